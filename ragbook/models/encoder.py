"""Passage and question encoders for dense retrieval: one tower for each, or one for both.

An encoder is named

* `minilm`, the embedded one;
* a folder that `save_encoder` wrote (`ragbook train dpr` does);
* a pair of DPR checkpoints in `transformers`' layout, by its passage half: a local folder or a hub
  name that contains `ctx_encoder`. The other half has the same name with `question_encoder` there;
* a sentence-transformers model (all-MiniLM, BGE, E5, GTE, ...), or a plain one of transformers
  (BERT, DistilBERT, RoBERTa, MPNet, Contriever, ...): a local folder or a hub name. See
  `ragbook.models.sentence`.

A folder of `save_encoder` holds `encoder.json` (how the towers are used, every file's size and
SHA-256). Of BERT towers it holds the tensors in which they differ from the embedded encoder; if
they were not trained from that one, it holds all tensors, `config.json` and the tokenizer. Other
towers are folders of sentence-transformers.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ragbook.corpus import Passage
from ragbook.errors import InputError
from ragbook.files import file_records, whole_file
from ragbook.models.embedded import (
    MINILM_ID,
    MINILM_SHA256,
    minilm_model,
    minilm_path,
    minilm_tokenizer,
)
from ragbook.models.encoder_manifest import (
    AGAIN,
    FORMAT_VERSION,
    MANIFEST,
    TOWERS_VERSION,
    check_files,
    read_encoder_manifest,
    tower_file,
    towers,
    write_encoder_manifest,
)
from ragbook.models.filling import ANY, NONE, fill, own_tensors
from ragbook.models.inspection import (
    MODULES,
    checkpoint_folder,
    configuration,
    refuse_code,
    whole_model,
)
from ragbook.models.layout import inspect_folder
from ragbook.models.model_files import (
    check_counts,
    check_folder,
    check_size,
    read_tokenizer,
    refusing,
    tensors_in,
    tried,
)
from ragbook.models.sentence import (
    SentenceEncoder,
    load_sentence,
    load_tower,
    save_towers,
    sentence_encoder,
)
from ragbook.models.sharing import one_at_a_time
from ragbook.models.towers import SEGMENTS, Encoder, weights_sha256


@one_at_a_time
def load_encoder(
    name: str | Path = "minilm",
    pooling: str | None = None,
    *,
    query_encoder: str | None = None,
    similarity: str | None = None,
    query_prompt: str | None = None,
    passage_prompt: str | None = None,
) -> Encoder:
    """The encoder of that name (see the module), its towers float32. Each call returns new towers,
    as they may be trained.

    Parameters
    ----------
    pooling: for a plain model of transformers: `mean` (the default), `cls`, `last`, or another of
        `ragbook.models.sentence.POOLINGS`. Other encoders have their own.
    query_encoder: another model for the questions; both must be of sentence-transformers, plain, or
        `minilm`.
    similarity: `cosine`, `dot` or `l2`; by default that of the model's files, or the cosine.
    query_prompt, passage_prompt: texts before each query and passage; by default those of the
        model's files.

    Raises
    ------
    InputError: there is no such encoder, it cannot be loaded, half of a pair is missing, a file is
        damaged, or the options contradict the encoder's own settings.
    """
    name = str(name)
    minilm = name in ("minilm", MINILM_ID)
    asked: dict[str, Any] = {
        "pooling": pooling,
        "similarity": similarity,
        "query_prompt": query_prompt,
        "passage_prompt": passage_prompt,
    }
    if query_encoder is not None:
        for each in (name, query_encoder):
            if _is_saved(each) or _is_dpr(each):
                raise InputError(
                    f"{each} already has towers for questions and passages; leave --query-encoder "
                    "out, or name two sentence-transformers or plain models"
                )
        query = str(minilm_path()) if query_encoder in ("minilm", MINILM_ID) else query_encoder
        passages = (str(minilm_path()), MINILM_ID) if minilm else (name, name)
        return load_sentence(passages[0], id=passages[1], query_encoder=query, **asked)
    if minilm:
        encoder = Encoder(minilm_model(), minilm_tokenizer(), MINILM_ID, MINILM_SHA256, 20.0)
    elif _is_saved(name):
        encoder = _load_folder(name)
    elif _is_dpr(name):
        encoder = _load_dpr(name)
    else:
        return load_sentence(name, **asked)
    own = {
        "pooling": encoder.pooling,
        "similarity": encoder.similarity,
        "query_prompt": encoder.prompts.get("query", ""),
        "passage_prompt": encoder.prompts.get("passage", ""),
    }
    for key, value in asked.items():
        if value not in (None, own[key]):
            raise InputError(
                f"{name} has a {key.replace('_', ' ')} of its own, {own[key]!r}, not {value!r}; "
                f"leave --{key.replace('_', '-')} out"
            )
    return encoder


def look_up_encoder(
    name: str, pooling: str | None = None, query_encoder: str | None = None
) -> None:
    """Look through the files of the encoders of these names; no weights are loaded. The arguments
    are those of `load_encoder`.

    Raises
    ------
    InputError: there is no such encoder, or it cannot be loaded.
    """
    for each in filter(None, (name, query_encoder)):
        if each in ("minilm", MINILM_ID):
            continue
        if _is_saved(each):
            read_encoder_manifest(Path(each))
        elif _is_dpr(each):
            for half in ("ctx_encoder", "question_encoder"):
                checkpoint_folder(re.sub("(ctx|question)_encoder", half, each))
        else:
            inspect_folder(each, pooling)


def _is_saved(name: str) -> bool:
    return (Path(name) / MANIFEST).is_file()


def _is_dpr(name: str) -> bool:
    halves = "ctx_encoder" in name or "question_encoder" in name
    return halves and not (Path(name) / MODULES).is_file()


def save_encoder(folder: Path | str, encoder: Encoder) -> None:
    """Write an encoder into a folder, for `load_encoder`, without loss; the manifest comes last.

    The folder may hold other files. A tower that is the embedded encoder is named and not written;
    of a tower that was trained from it, only the changed tensors are written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)  # until the end the folder is not complete
    for tower in towers(False):  # of an encoder that was here before
        (folder / tower_file(tower)).unlink(missing_ok=True)
    if isinstance(encoder, SentenceEncoder):
        _save_towers(folder, encoder)
        return
    models = {"passage": encoder.passage_model, "query": encoder.query_model}
    tied = encoder.passage_model is encoder.query_model
    base = _base_tensors(encoder)
    files: list[str] = []
    if not base:
        encoder.passage_model.config.save_pretrained(folder)
        files += [Path(path).name for path in encoder.tokenizer.save_pretrained(folder)]
        files = sorted({"config.json", *(name for name in files if (folder / name).is_file())})
    for tower in towers(tied):
        changed = {
            key: _compact(value)
            for key, value in _tensors_here(models[tower]).items()
            if key not in base or not torch.equal(value.float(), base[key])
        }
        path = folder / tower_file(tower)
        if changed:
            with whole_file(path) as unfinished:
                save_file(changed, str(unfinished))
            files.append(path.name)
    manifest = {
        "format_version": FORMAT_VERSION,
        "base": MINILM_SHA256 if base else None,
        "tied": tied,
        "pooling": encoder.pooling,
        "similarity": encoder.similarity,
        "score_scale": encoder.score_scale,
        "passage_form": encoder.passage_form,
        "files": file_records(folder, files),
    }
    write_encoder_manifest(folder, manifest)


def _save_towers(folder: Path, encoder: SentenceEncoder) -> None:
    manifest = {
        "format_version": TOWERS_VERSION,
        "tied": encoder.passage_model is encoder.query_model,
        "similarity": encoder.similarity,
        "score_scale": encoder.score_scale,
        "prompts": dict(encoder.prompts),
        "files": file_records(folder, save_towers(folder, encoder)),
    }
    write_encoder_manifest(folder, manifest)


def _base_tensors(encoder: Encoder) -> dict[str, Tensor]:
    """The embedded encoder's tensors if the towers have its shape and its tokenizer, else {}."""
    if encoder.tokenizer is not minilm_tokenizer():
        return {}
    base = minilm_model().state_dict()
    shapes = {name: value.shape for name, value in encoder.passage_model.state_dict().items()}
    return base if shapes == {name: value.shape for name, value in base.items()} else {}


def _tensors_here(tower: Any) -> dict[str, Tensor]:
    """A tower's tensors, on the CPU."""
    return {name: value.detach().cpu() for name, value in tower.state_dict().items()}


def _compact(value: Tensor) -> Tensor:
    """The tensor in bfloat16 if that loses nothing, as after training in it, else in float32."""
    short = value.bfloat16()
    return (short if torch.equal(short.float(), value.float()) else value.float()).contiguous()


def _load_folder(name: str) -> Encoder:
    folder = Path(name)
    manifest = read_encoder_manifest(folder)
    check_files(folder, manifest)
    if manifest["format_version"] == TOWERS_VERSION:
        loaded = [load_tower(str(folder / tower)) for tower in towers(manifest["tied"])]
        return sentence_encoder(
            (loaded[0], loaded[-1]),
            name,
            manifest["score_scale"],
            manifest["similarity"],
            manifest["prompts"],
        )
    if manifest["base"] is None:
        check_folder(name, folder)
        refuse_code(name, folder)
        config = configuration(name, folder)
        tokenizer = read_tokenizer(name, folder, getattr(config, "vocab_size", 0))
        make: Callable[[], Any] = partial(_new_tower, name, config)
    else:
        tokenizer, make = minilm_tokenizer(), minilm_model
    models, hashes = [], []
    for tower in towers(manifest["tied"]):
        file = tower_file(tower)
        if file in manifest["files"]:
            if manifest["base"] is None:
                stored = tensors_in(name, folder / file)
                check_counts(name, config.to_dict(), len(stored))
                check_size(name, stored, make)
            model = make()
            own = own_tensors(folder / file, AGAIN)
            fill(model, own, ANY if manifest["base"] else NONE)
        else:
            model = make()
        models.append(model)
        hashes.append(weights_sha256(model) if file in manifest["files"] else MINILM_SHA256)
    encoder = Encoder(
        models[0],
        tokenizer,
        name,
        hashes[0],
        manifest["score_scale"],
        query_model=models[-1],
        query_sha256=hashes[-1],
        pooling=manifest["pooling"],
        similarity=manifest["similarity"],
        passage_form=manifest["passage_form"],
    )
    _try(encoder)
    return encoder


def _try(encoder: Encoder) -> None:
    """Encode a question and a passage, or refuse the encoder."""
    tried(encoder.id, lambda: encoder.encode_queries(["Which word?"]))
    tried(encoder.id, lambda: encoder.encode_passages([Passage("", "A title", "A word.")]))


def _new_tower(name: str, config: Any) -> Any:
    """A tower without its weights."""
    from ragbook.models.projected import new_tower

    with refusing(lambda said: f"{name} has a config.json that describes no tower ({said})"):
        return new_tower(config)


def _load_dpr(name: str) -> Encoder:
    """DPR's two checkpoints (Karpukhin et al. 2020): vectors are the [CLS] states without a
    projection, compared by inner product; passages are read as [CLS] title [SEP] text [SEP]."""
    from transformers import DPRContextEncoder, DPRQuestionEncoder

    passage_name = name.replace("question_encoder", "ctx_encoder")
    query_name = name.replace("ctx_encoder", "question_encoder")
    passage_model = _dpr_tower(DPRContextEncoder, passage_name, query_name).ctx_encoder.bert_model
    query_model = _dpr_tower(DPRQuestionEncoder, query_name, passage_name)
    query_model = query_model.question_encoder.bert_model
    tokenizer = read_tokenizer(passage_name, passage_name, passage_model.config.vocab_size)
    other = read_tokenizer(query_name, query_name, query_model.config.vocab_size)
    if other.get_vocab() != tokenizer.get_vocab():
        raise InputError(
            f"{passage_name} and {query_name} have different tokenizers; name both halves of one "
            "pair"
        )
    encoder = Encoder(
        passage_model,
        tokenizer,
        passage_name,
        weights_sha256(passage_model),
        1.0,
        query_model=query_model,
        query_sha256=weights_sha256(query_model),
        pooling="cls",
        similarity="dot",
        passage_form=SEGMENTS,
    )
    _try(encoder)
    return encoder


def _dpr_tower(kind: Any, name: str, other: str) -> Any:
    """One half of a DPR pair."""
    if Path(other).is_dir() and not (Path(name) / "config.json").is_file():
        raise InputError(
            f"there is no DPR checkpoint with safetensors at {name!r}, the other half of "
            f"{other!r}; check the name, or download it first"
        )
    model = whole_model(kind, name, "DPR")
    if model.config.projection_dim:
        raise InputError(
            f"{name} projects its vectors, which published DPR checkpoints do not; name another "
            "checkpoint"
        )
    return model
