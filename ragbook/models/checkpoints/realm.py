"""The original REALM checkpoints, as `transformers` 4 saved them before it dropped REALM.

`google/realm-cc-news-pretrained-embedder`, `-encoder` and `-scorer`, and `google/realm-orqa-*` are
BERTs with heads. A folder or hub name holds `config.json`, the tokenizer's `vocab.txt` and
`model.safetensors`, whose tensors go here:

| tensor | place |
|---|---|
| `realm.*` | `BertModel` of the embedder, encoder or reader |
| `cls.dense`, `cls.LayerNorm` | `ProjectedTower.dense`, `.norm` (embedder) |
| `cls.predictions.transform.*` | `MaskedHead.dense`, `.norm` (encoder) |
| `cls.predictions.bias` | `MaskedHead.bias` |
| `cls.predictions.decoder.*` | none: it repeats the word vectors and the bias |
| `embedder.*` | the embedder above (scorer, openqa) |
| `query_embedder.*` | the tower of the sentences, where it is a second one (scorer) |
| `reader.realm.*` | `BertModel` of the span reader (openqa) |
| `reader.qa_outputs.dense_intermediate` | `SpanScorer.start` (first half), `.end` (second) |
| `reader.qa_outputs.layer_normalization` | `SpanScorer.norm` |
| `reader.qa_outputs.dense_output` | `SpanScorer.out` |
| `block_emb` | the vectors of the checkpoint's own passages |

Heads that a part holds and never uses (an embedder's predictions, a reader's pooler) are dropped.
The hub's files are pickles (`pytorch_model.bin`), which are not read: with `transformers` 4
installed, convert them by `RealmEmbedder.from_pretrained(NAME).save_pretrained(FOLDER)`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from ragbook.corpus import Passage
from ragbook.errors import InputError
from ragbook.files import whole_file
from ragbook.models.masked import NULL, MaskedHead, MaskedReader, untitled
from ragbook.models.model_files import (
    a_few,
    check_counts,
    check_folder,
    check_numbers,
    check_size,
    numbers_in,
    one_line,
    read_tokenizer,
    refusing,
    settings_of,
    tensors_in,
    tried,
)
from ragbook.models.pairs import PairEncoder
from ragbook.models.projected import ProjectedTower
from ragbook.models.prompts import Inputs, pair
from ragbook.models.span import SpanReader, SpanScorer
from ragbook.models.towers import TYPED, Encoder, weights_sha256

TENSORS, BLOCKS = "model.safetensors", "block_emb"

Tensors = dict[str, Tensor]


def load_realm_embedder(name: str) -> Encoder:
    """The encoder of an embedder, a scorer or an open QA checkpoint.

    Scores are inner products without a factor; title and text are two segments with different token
    types.

    Raises
    ------
    InputError: there is no such checkpoint with safetensors, or it lacks tensors.
    """
    config, tensors = _open(name)
    passages = _part(tensors, "embedder.") or tensors
    queries = _part(tensors, "query_embedder.")
    tower = _tower(name, config, passages)
    query_tower = _tower(name, config, queries) if queries else tower
    encoder = Encoder(
        tower,
        _tokenizer(name, config),
        name,
        weights_sha256(tower),
        1.0,
        query_model=query_tower,
        query_sha256=weights_sha256(query_tower),
        pooling="cls",
        similarity="dot",
        passage_form=TYPED,
    )
    tried(name, lambda: encoder.encode_queries(["Which word?"]))
    tried(name, lambda: encoder.encode_passages([NULL]))
    return encoder


def load_realm_encoder(name: str) -> MaskedReader:
    """The knowledge-augmented encoder, which reads passages without their titles.

    Raises
    ------
    InputError: as of `load_realm_embedder`.
    """
    config, tensors = _open(name)
    with refusing(lambda said: f"{name} has a config.json that describes no BERT ({said})"):
        model = BertModel(config, add_pooling_layer=False)
    _fill(name, model, _part(tensors, "realm.", without="pooler."))
    with refusing(lambda said: f"{name} has a config.json that describes no head ({said})"):
        head = MaskedHead(
            config.hidden_size, config.vocab_size, config.hidden_act, config.layer_norm_eps
        )
    own = _part(tensors, "cls.predictions.")
    _fill(
        name,
        head,
        {
            **_part(own, "transform.dense.", to="dense."),
            **_part(own, "transform.LayerNorm.", to="norm."),
            **{key: value for key, value in own.items() if key == "bias"},
        },
    )
    reader = MaskedReader(model.eval(), head.eval(), _tokenizer(name, config), titles=False)
    tried(name, lambda: head(model(torch.tensor([[1, 2]])).last_hidden_state, reader.words))
    return reader


def save_realm_encoder(folder: Path | str, reader: MaskedReader) -> None:
    """Write a knowledge-augmented encoder as `transformers` 4 did, for `load_realm_encoder`.

    The file gets its name only when it is complete.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    head = reader.head.state_dict()
    tensors = {f"realm.{name}": value for name, value in reader.model.state_dict().items()}
    for name, value in head.items():
        name = name.replace("dense.", "transform.dense.").replace("norm.", "transform.LayerNorm.")
        tensors[f"cls.predictions.{name}"] = value
    reader.tokenizer.save_pretrained(folder)
    config = reader.model.config.to_dict() | {"model_type": "realm"}
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    with whole_file(folder / TENSORS) as unfinished:
        save_file({n: v.float().contiguous() for n, v in tensors.items()}, str(unfinished))


def load_realm_open_qa(name: str) -> tuple[Encoder, SpanReader, Tensor]:
    """An open QA checkpoint: its embedder, its span reader, and the vectors of its own passages,
    float32 [passages, retriever_proj_size], whose texts the checkpoint holds in a file of its own.

    The reader reads passages without their titles. It was trained with one softmax over spans and
    passages together: use it as `Realm(reader, retriever, orqa=True)`.

    Raises
    ------
    InputError: as of `load_realm_embedder`.
    """
    config, tensors = _open(name)
    encoder = load_realm_embedder(name)
    with refusing(lambda said: f"{name} has a config.json that describes no BERT ({said})"):
        model = BertModel(config, add_pooling_layer=False)
    _fill(name, model, _part(tensors, "reader.realm.", without="pooler."))
    scorer = SpanScorer(config.hidden_size, config.span_hidden_size, config.max_span_width)
    scorer.norm.eps = config.reader_layer_norm_eps
    own = _part(tensors, "reader.qa_outputs.")
    if BLOCKS not in tensors or "dense_intermediate.weight" not in own:
        raise InputError(
            f"{name} has no reader or no {BLOCKS}; name an open QA checkpoint of REALM"
        )
    starts, ends = own["dense_intermediate.weight"].chunk(2)
    _fill(
        name,
        scorer,
        {
            "start.weight": starts,
            # The checkpoint has one bias and ours has two, which are only used as a sum.
            "start.bias": own["dense_intermediate.bias"].reshape(2, -1).sum(0),
            "end.weight": ends,
            **_part(own, "layer_normalization.", to="norm."),
            **_part(own, "dense_output.", to="out."),
        },
    )
    reader = SpanReader(model, scorer, encoder.tokenizer, name)
    longest = config.reader_seq_len

    def layout(
        tokenizer: Any, questions: Sequence[str], passages: Sequence[Passage | None]
    ) -> Inputs:
        return pair(tokenizer, questions, untitled(passages), longest)

    reader.pairs = PairEncoder(reader.pairs.encoder, encoder.tokenizer, layout)
    tried(name, lambda: reader.pairs(["Which word?"], [NULL])[1])
    return encoder, reader, tensors[BLOCKS]


def _open(name: str) -> tuple[BertConfig, Tensors]:
    """A checkpoint's configuration, with REALM's own settings, and its tensors, float32."""
    from transformers.utils.hub import cached_file

    if Path(name).is_dir():
        check_folder(name, Path(name))
    with refusing(
        lambda said: (
            f"there is no REALM checkpoint with {TENSORS} at {name!r}, neither in a local folder "
            f"nor in the hub's cache or on the network ({said}); pytorch_model.bin is a pickle and "
            "is not read: convert it first (see ragbook.models.checkpoints.realm)"
        )
    ):
        settings_file = Path(str(cached_file(name, "config.json")))
        weights = Path(str(cached_file(name, TENSORS)))
    settings = settings_of(name, settings_file)
    if settings.get("model_type") != "realm":
        raise InputError(
            f"{name} is a checkpoint of {one_line(settings.get('model_type'))!r}; name one of REALM"
        )
    stored = tensors_in(name, weights)
    with refusing(lambda said: f"{name} has a config.json that is none of REALM's ({said})"):
        config = BertConfig(**{**DEFAULTS, **settings, "model_type": "bert"})
    odd = [key for key in _WHOLE if not _is_size(getattr(config, key), numbers_in(stored))]
    if odd or not isinstance(config.reader_layer_norm_eps, float):
        raise InputError(
            f"{name} has a config.json with sizes that its files do not have: "
            f"{a_few(odd) or 'reader_layer_norm_eps'}; download it again"
        )
    check_counts(name, config.to_dict(), len(stored))
    check_size(name, stored, lambda: ProjectedTower(config))
    with refusing(lambda said: f"{weights} is damaged ({said}); download it again"):
        return config, {key: value.float() for key, value in load_file(str(weights)).items()}


DEFAULTS = {
    "hidden_act": "gelu_new",
    "retriever_proj_size": 128,
    "span_hidden_size": 256,
    "max_span_width": 10,
    "reader_layer_norm_eps": 1e-3,
    "reader_seq_len": 320,
}
"""The defaults of `transformers`' `RealmConfig`, which a configuration leaves out."""
_WHOLE = ("retriever_proj_size", "span_hidden_size", "max_span_width", "reader_seq_len")


def _is_size(value: Any, most: int) -> bool:
    """Whether a setting is a length that the checkpoint's tensors can have."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= max(most, 4096)


def _part(tensors: Tensors, prefix: str, to: str = "", without: str = " ") -> Tensors:
    """The tensors whose names begin with `prefix`, which is replaced by `to`; names that begin with
    `without` are left out."""
    short = {key.removeprefix(prefix): v for key, v in tensors.items() if key.startswith(prefix)}
    return {to + key: value for key, value in short.items() if not key.startswith(without)}


def _tower(name: str, config: BertConfig, tensors: Tensors) -> ProjectedTower:
    with refusing(lambda said: f"{name} has a config.json that describes no tower ({said})"):
        tower = ProjectedTower(config)
    _fill(
        name,
        tower,
        {
            **_part(tensors, "realm.", to="bert."),
            **_part(tensors, "cls.dense.", to="dense."),
            **_part(tensors, "cls.LayerNorm.", to="norm."),
        },
    )
    return tower.eval()


def _fill(name: str, module: nn.Module, tensors: Tensors) -> None:
    """Copy tensors into the module; all of its tensors must be there, with the same shapes."""
    places = module.state_dict()
    given = {key: value for key, value in tensors.items() if not key.endswith("position_ids")}
    wrong = [
        key
        for key in sorted(places.keys() | given.keys())
        if key not in places or key not in given or places[key].shape != given[key].shape
    ]
    if wrong:
        raise InputError(
            f"{name} does not have the tensors of {type(module).__name__}: {a_few(wrong)} "
            "are missing, left over or of another shape; name another checkpoint of REALM"
        )
    module.load_state_dict(given)
    check_numbers(name, module)


def _tokenizer(name: str, config: BertConfig) -> Any:
    return read_tokenizer(name, name, config.vocab_size, tokenizer_type="bert")
