"""Models of sentence-transformers and plain models of transformers, as `Encoder` objects.

Each tower is a `SentenceTransformer`: that library tokenises, pools, projects and normalises.
Prompts and similarity come from the model's own files. A plain model (BERT, DistilBERT, RoBERTa,
MPNet, ...) becomes a `SentenceTransformer` with a pooling on top.
"""

from __future__ import annotations

import hashlib
import inspect
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ragbook.corpus import Passage
from ragbook.errors import InputError
from ragbook.models.embedded import MINILM_SHA256
from ragbook.models.inspection import check_tensors, check_weights, configuration
from ragbook.models.layout import inspect_folder
from ragbook.models.model_files import check_numbers, quiet, read_tokenizer, refusing
from ragbook.models.prompts import passage_text
from ragbook.models.towers import SCORE_SCALES, Encoder, tensors_sha256

POOLINGS = {
    "mean": "mean",
    "cls": "cls",
    "last": "lasttoken",
    "max": "max",
    "weightedmean": "weightedmean",
    "mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
}
"""Poolings: ragbook's name -> sentence-transformers' name. Names joined by plus signs mean several
poolings whose vectors are laid end to end."""
_SIMILARITIES = {"cosine": "cosine", "dot": "dot", "euclidean": "l2"}
_TASKS = {"query": "query", "passage": "document"}
_PASSAGE_PROMPTS = ("document", "passage", "corpus")
_MINILM_TENSORS = "2b5e406220fad0dc36189386bffe18628f2b74fe2b020b3bf186ff02a33eb70e"
"""`tensors_sha256` of the embedded encoder, which has the hash of its published file instead."""
_LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
_NO_LIMIT = 1_000_000  # a tokenizer without a limit states one of 10 ** 30


class SentenceEncoder(Encoder):
    """Two towers that are `SentenceTransformer` objects.

    A passage is read as `title. text`, after its prompt. Each tower has its own tokenizer.

    Parameters
    ----------
    passage_model, query_model: the towers; the second is None if one tower reads both.
    prompts: texts before each query and each passage, under `query` and `passage`.

    The other parameters and the attributes are those of `Encoder`.
    """

    def __init__(
        self,
        passage_model: Any,
        id: str,
        sha256: str,
        score_scale: float,
        *,
        query_model: Any = None,
        query_sha256: str | None = None,
        query_id: str | None = None,
        similarity: str = "cosine",
        prompts: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(
            passage_model,
            passage_model.tokenizer,
            id,
            sha256,
            score_scale,
            query_model=query_model,
            query_sha256=query_sha256,
            pooling=pooling_of(passage_model),
            similarity=similarity,
            dimension=passage_model.get_embedding_dimension(),
        )
        self.query_id = query_id
        self.prompts = {key: text for key, text in (prompts or {}).items() if text}
        self.max_tokens = _max_tokens(passage_model)

    def query_vectors(self, queries: Sequence[str]) -> Tensor:
        """float32 [n, d], in one forward pass, with gradients to the query tower."""
        return self._vectors(self.query_model, list(queries), "query")

    def passage_vectors(self, passages: Sequence[Passage]) -> Tensor:
        """float32 [n, d], in one forward pass, with gradients to the passage tower."""
        return self._vectors(self.passage_model, [passage_text(p) for p in passages], "passage")

    def vectors(self, tower: Any, inputs: dict[str, Any]) -> Tensor:
        """The vectors of texts tokenised by the tower's `preprocess`, float32 [n, d], on the
        device of the tower, with gradients."""
        device = next(tower.parameters()).device
        inputs = {n: v.to(device) if isinstance(v, Tensor) else v for n, v in inputs.items()}
        found = tower(inputs)["sentence_embedding"].float()[:, : self.dimension]
        return functional.normalize(found, dim=-1) if self.similarity == "cosine" else found

    def _vectors(self, tower: Any, texts: list[str], role: str) -> Tensor:
        inputs = tower.preprocess(texts, prompt=self.prompts.get(role), task=_TASKS[role])
        return self.vectors(tower, inputs)


def load_sentence(
    name: str,
    pooling: str | None = None,
    *,
    id: str | None = None,
    query_encoder: str | None = None,
    similarity: str | None = None,
    query_prompt: str | None = None,
    passage_prompt: str | None = None,
) -> SentenceEncoder:
    """Load a sentence-transformers model or a plain model as an encoder.

    Parameters
    ----------
    id: the encoder's id, by default its name.

    The other parameters are those of `load_encoder`.

    Raises
    ------
    InputError: there is no such model, it is not an encoder, or the options contradict its files.
    """
    passages = load_tower(name, pooling)
    if pooling not in (None, pooling_of(passages)):
        raise InputError(
            f"{name} pools by {pooling_of(passages)}, as its modules.json says, not by {pooling}; "
            "leave --pooling out"
        )
    queries = passages if query_encoder is None else load_tower(query_encoder, pooling)
    dimensions = [tower.get_embedding_dimension() for tower in (passages, queries)]
    if dimensions[0] != dimensions[1]:
        raise InputError(
            f"the vectors of {name} have {dimensions[0]} dimensions and those of {query_encoder} "
            f"{dimensions[1]}; name two encoders that were trained together"
        )
    if similarity is None:
        similarity, other = similarity_of(name, passages), similarity_of(name, queries)
        if similarity != other:
            raise InputError(
                f"{name} compares by {similarity} and {query_encoder} by {other}; name two "
                "encoders that were trained together, or choose one with --similarity"
            )
    stated = [passages.prompts.get(key) for key in _PASSAGE_PROMPTS]
    if query_prompt is None:
        query_prompt = queries.prompts.get("query")
    if passage_prompt is None:
        # sentence-transformers gives every model an empty prompt `document`, which would hide the
        # model's own prompt under another name.
        passage_prompt = next(filter(None, stated), None)
    return sentence_encoder(
        (passages, queries),
        id or name,
        SCORE_SCALES[similarity],
        similarity,
        {"query": query_prompt or "", "passage": passage_prompt or ""},
        query_encoder,
    )


def sentence_encoder(
    towers: tuple[Any, Any],
    id: str,
    score_scale: float,
    similarity: str,
    prompts: Mapping[str, str],
    query_id: str | None = None,
) -> SentenceEncoder:
    """An encoder of a passage tower and a query tower, which may be the same, with their hashes."""
    passages, queries = towers
    sha256 = tower_sha256(passages, similarity)
    return SentenceEncoder(
        passages,
        id,
        sha256,
        score_scale,
        query_model=queries,
        query_sha256=sha256 if queries is passages else tower_sha256(queries, similarity),
        query_id=query_id,
        similarity=similarity,
        prompts=prompts,
    )


def load_tower(name: str, pooling: str | None = None) -> Any:
    """Load a `SentenceTransformer` from a folder or hub name, float32, on the CPU.

    Parameters
    ----------
    pooling: for a plain model, by default `mean`; a `modules.json` has its own.

    Raises
    ------
    InputError: see `load_sentence`.
    """
    from transformers import AutoModel

    layout = inspect_folder(name, pooling)
    where = layout.transformer
    if where is not None:
        check_weights(name, where, configuration(name, where), AutoModel)
    with (
        refusing(
            lambda said: (
                f"{name} does not load as an encoder ({said}); download it again or name another"
            )
        ),
        quiet(),
    ):
        tower = _loaded(layout.folder, pooling, described=bool(layout.modules))
        if where is not None:
            _settle(name, tower[0])
            check_tensors(name, where, tower[0].model)
            rows = tower[0].model.get_input_embeddings().num_embeddings
            read_tokenizer(name, where, rows)
        tower = tower.float().eval()
        check_numbers(name, tower)
        _try(tower)
    return tower


def _try(tower: Any) -> None:
    """Encode a text, which shows whether the modules and the tokenizer fit each other."""
    with torch.no_grad():
        found = tower(tower.preprocess(["A word."]))["sentence_embedding"]
    found = found[:, : tower.truncate_dim]  # which the tower itself does when it encodes
    if found.shape != (1, tower.get_embedding_dimension()) or not found.isfinite().all():
        raise ValueError("its vectors are not those that it describes")


def _loaded(folder: Path, pooling: str | None, described: bool) -> Any:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    kwargs: dict[str, Any] = {
        # Names and shapes are checked afterwards (`check_tensors`).
        "model_kwargs": {
            **_LOCAL,
            "use_safetensors": True,
            "dtype": torch.float32,
            "ignore_mismatched_sizes": True,
        },
        "processor_kwargs": dict(_LOCAL),
        "config_kwargs": dict(_LOCAL),
    }
    if described:
        return SentenceTransformer(
            str(folder), device="cpu", local_files_only=True, trust_remote_code=False, **kwargs
        )
    modes = (pooling or "mean").split("+")
    if unknown := set(modes) - POOLINGS.keys():
        raise InputError(f"there is no pooling {min(unknown)!r}; choose {', '.join(POOLINGS)}")
    transformer = Transformer(str(folder), **kwargs)
    theirs: Any = [POOLINGS[mode] for mode in modes]
    pool = Pooling(transformer.get_embedding_dimension(), theirs)
    return SentenceTransformer(
        modules=[transformer, pool], device="cpu", local_files_only=True, trust_remote_code=False
    )


def _settle(name: str, transformer: Any) -> None:
    """Drop a pooler that is not used (if the file lacks it, it is random), and make sure that texts
    can be padded and are cut to the model's number of positions."""
    model, tokenizer = transformer.model, transformer.tokenizer
    output = transformer.modality_config["text"]["method_output_name"]
    optional = "add_pooling_layer" in inspect.signature(type(model).__init__).parameters
    if output == "last_hidden_state" and optional:
        model.pooler = None
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise InputError(
                f"the tokenizer of {name} has no padding token; set one and save the tokenizer"
            )
        tokenizer.pad_token = tokenizer.eos_token
    places: Any = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    if getattr(places, "padding_idx", None) is not None:  # RoBERTa and MPNet count from it on
        most = places.num_embeddings - places.padding_idx - 1
        transformer.max_seq_length = min(transformer.max_seq_length, most)


def pooling_of(tower: Any) -> str:
    """The pooling of a `SentenceTransformer`, by ragbook's names; `none` if it has no pooling."""
    ours = {theirs: name for name, theirs in POOLINGS.items()}
    for module in tower:
        if (modes := getattr(module, "pooling_mode", None)) is not None:
            name = "+".join(ours[m] for m in ([modes] if isinstance(modes, str) else modes))
            return name if module.include_prompt else f"{name} behind the prompt"
    return "none"


def similarity_of(name: str, tower: Any) -> str:
    """The similarity of a `SentenceTransformer`; for normalised vectors the inner product is the
    cosine."""
    said = tower.similarity_fn_name
    if said not in _SIMILARITIES:
        raise InputError(
            f"{name} compares by {said}, which cannot be indexed; name an encoder that compares by "
            f"{', '.join(_SIMILARITIES.values())}"
        )
    normalised = type(tower[-1]).__name__ == "Normalize"
    return "cosine" if said == "dot" and normalised else _SIMILARITIES[said]


def tower_sha256(tower: Any, similarity: str) -> str:
    """SHA-256 of a tower's tensors and of its modules, except those that an index's manifest
    describes: the pooling, and a normalisation that comes with the cosine."""
    tensors: dict[str, Tensor] = {}
    modules = []
    for number, module in enumerate(tower):
        kind = type(module).__name__
        body = module.model if kind == "Transformer" else module
        tensors |= {f"{number}.{name}": value for name, value in body.state_dict().items()}
        told = kind in ("Transformer", "Pooling", "Dropout") or (
            kind == "Normalize" and similarity == "cosine" and number == len(tower) - 1
        )
        if not told:
            activation = type(getattr(module, "activation_function", None)).__name__
            modules.append(f"{number} {kind} {activation}")
    found = tensors_sha256(tensors)
    if modules:
        return hashlib.sha256("\n".join([found, *modules]).encode()).hexdigest()
    return MINILM_SHA256 if found == _MINILM_TENSORS else found


def _max_tokens(tower: Any) -> int | None:
    """The most tokens of a text that a tower reads; None if there is no limit."""
    limit = tower.max_seq_length
    return None if limit is None or limit > _NO_LIMIT else int(limit)


def save_towers(folder: Path, encoder: SentenceEncoder) -> list[str]:
    """Write the towers as sentence-transformers' own folders, `passage` and, if there are two,
    `query`; returns the names of all files, relative to `folder`."""
    towers = {"passage": encoder.passage_model, "query": encoder.query_model}
    if encoder.passage_model is encoder.query_model:
        del towers["query"]
    prompts = {key: encoder.prompts.get(role, "") for role, key in _TASKS.items()}
    names = {ours: theirs for theirs, ours in _SIMILARITIES.items()}
    for role, tower in towers.items():
        shutil.rmtree(folder / role, ignore_errors=True)
        tower.prompts = dict(prompts)
        tower.similarity_fn_name = names[encoder.similarity]
        with quiet():
            tower.save_pretrained(str(folder / role), create_model_card=False)
    files = (path for role in towers for path in (folder / role).rglob("*") if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in files)
