"""Passage and question encoders for dense retrieval: one tower for each, or one for both.

An encoder is named

* `minilm`, the embedded one;
* a folder that `save_encoder` wrote (`ragbook train dpr` does);
* a pair of DPR checkpoints in `transformers`' layout, by its passage half: a local folder or a hub
  name that contains `ctx_encoder`. The other half has the same name with `question_encoder` there.

A folder of `save_encoder` holds `encoder.json` (how the towers are used, every file's size and
SHA-256), and for each tower the tensors in which it differs from the embedded encoder. Where it was
not trained from that one, it holds all tensors, `config.json` and the tokenizer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from ragbook.corpus import Passage
from ragbook.errors import InputError
from ragbook.files import file_records, is_bare_name, sha256_of_file, whole_file, write_json
from ragbook.models.embedded import (
    MINILM_ID,
    MINILM_SHA256,
    minilm_model,
    minilm_tokenizer,
)
from ragbook.models.prompts import passage_text
from ragbook.models.sharing import one_at_a_time

MAX_TOKENS = 256
"""Tokens that an encoder reads (MiniLM's authors and DPR's chose this); the rest is dropped."""

POOLINGS = ("mean", "cls")
SIMILARITIES = ("cosine", "dot", "l2")
PRECISIONS = ("float32", "bfloat16")
SENTENCE, SEGMENTS, TYPED = "title. text", "title [SEP] text", "title [SEP] text, two types"
"""How a passage is read: its title as a first sentence, or as a segment of its own, which shares
its token type with the text (DPR) or has another (REALM)."""

KIND, FORMAT_VERSION = "ragbook encoder", 1
MANIFEST = "encoder.json"


class Encoder:
    r"""Two BERT towers that give passages and questions vectors of one space.

    DPR (Karpukhin et al. 2020, section 3.1) has two towers, MiniLM one that reads both. From the
    vectors \(p\) of passage z and \(q\) of question x comes the score, higher for better passages:

    * `cosine`: \(p \cdot q\), both scaled to length 1;
    * `dot`: \(p \cdot q\);
    * `l2`: \(-\lVert p - q \rVert^2\).

    Attributes
    ----------
    passage_model, query_model: the towers, the same object where one reads both.
    tokenizer: of both.
    id: the name it was loaded by; the weights decide whether two encoders are the same, not this.
    sha256: of the passage tower's weights. An index depends on this tower alone: any query tower
        that was trained with it may search.
    query_sha256: of the query tower's weights.
    pooling: `mean` of the last states over real tokens, or the first one, `cls`.
    similarity: `cosine`, `dot` or `l2`.
    metric: how the index compares vectors, `inner_product` or `l2`.
    score_scale: the factor its training multiplied the scores by before the softmax, so that
        log p(z | x) = log_softmax(score_scale * score) is the distribution it was trained for.
    passage_form: `title. text`, `title [SEP] text` or the latter with two token types.
    dimension: length of a vector.
    precision: of `encode_passages`: `float32`, or `bfloat16` for the products of matrices, which
        takes a fraction of the time where the processor has it. Weights and vectors are float32.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        id: str,
        sha256: str,
        score_scale: float,
        *,
        query_model: Any = None,
        query_sha256: str | None = None,
        pooling: str = "mean",
        similarity: str = "cosine",
        passage_form: str = SENTENCE,
    ) -> None:
        self.passage_model = model.eval()
        self.query_model = model if query_model is None else query_model.eval()
        self.tokenizer = tokenizer
        self.id, self.sha256, self.query_sha256 = id, sha256, query_sha256 or sha256
        self.score_scale = score_scale
        self.pooling, self.similarity, self.passage_form = pooling, similarity, passage_form
        self.metric = "l2" if similarity == "l2" else "inner_product"
        projected = getattr(model.config, "retriever_proj_size", None)
        self.dimension: int = projected or model.config.hidden_size
        self.precision = "float32"

    @property
    def model(self) -> Any:
        """The passage tower, which is the only tower where one reads both."""
        return self.passage_model

    def to(self, device: str) -> Encoder:
        """Move the towers to a device (`cpu`, `cuda`, `cuda:1`), and return the encoder itself. The
        results of `encode_queries` and `encode_passages` are on the CPU all the same."""
        self.passage_model.to(device)
        self.query_model.to(device)
        return self

    def untied(self) -> Encoder:
        """The same encoder with a copy of its query tower, to be trained. The passage tower is
        shared with this encoder and does not change, so indexes built with it stay valid."""
        other = Encoder(
            self.passage_model,
            self.tokenizer,
            self.id,
            self.sha256,
            self.score_scale,
            query_model=deepcopy(self.query_model),
            query_sha256=self.query_sha256,
            pooling=self.pooling,
            similarity=self.similarity,
            passage_form=self.passage_form,
        )
        other.precision = self.precision
        return other

    def query_vectors(self, queries: Sequence[str]) -> Tensor:
        """float32 [n, d], in one forward pass, with gradients to the query tower."""
        return self.vectors(self.query_model, self._inputs(list(queries)))

    def passage_vectors(self, passages: Sequence[Passage]) -> Tensor:
        """float32 [n, d], in one forward pass, with gradients to the passage tower."""
        if self.passage_form == SENTENCE:
            inputs = self._inputs([passage_text(p) for p in passages])
        else:
            inputs = self._inputs([(p.title, p.text) if p.title else p.text for p in passages])
            if self.passage_form == SEGMENTS:
                inputs["token_type_ids"] = torch.zeros_like(inputs["input_ids"])
        return self.vectors(self.passage_model, inputs)

    def vectors(self, tower: Any, inputs: dict[str, Tensor]) -> Tensor:
        """The vectors of tokenised texts under one of the towers, float32 [n, d], on the device of
        the tower, with gradients.

        With `cosine` they have length 1, otherwise the length that the tower gave them.
        """
        device = next(tower.parameters()).device
        inputs = {name: value.to(device) for name, value in inputs.items()}
        states = tower(**inputs).last_hidden_state
        if self.pooling == "cls":
            pooled = states[:, 0].float()
        else:
            mask = inputs["attention_mask"][:, :, None].float()
            pooled = (states * mask).sum(1) / mask.sum(1)
        return functional.normalize(pooled, dim=-1) if self.similarity == "cosine" else pooled

    def scores(self, queries: Tensor, passages: Tensor) -> Tensor:
        """The similarity of question and passage vectors, float32 [B, n], with gradients.

        Parameters
        ----------
        queries: [B, d].
        passages: [n, d], the same for all questions, or [B, n, d], each question's own.
        """
        if self.similarity == "l2":
            return -(queries[:, None] - passages).square().sum(-1)
        return (passages @ queries[:, :, None]).squeeze(-1)

    @one_at_a_time
    def encode_queries(self, queries: Sequence[str], batch_size: int = 64) -> np.ndarray:
        """float32 [n, d]; see `vectors`."""
        lengths = [len(query) for query in queries]
        return self._encode(self.query_vectors, queries, lengths, batch_size, "float32")

    @one_at_a_time
    def encode_passages(self, passages: Sequence[Passage], batch_size: int = 64) -> np.ndarray:
        """float32 [n, d]; see `vectors`."""
        lengths = [len(passage_text(p)) for p in passages]
        return self._encode(self.passage_vectors, passages, lengths, batch_size, self.precision)

    def _inputs(self, texts: list[Any]) -> dict[str, Tensor]:
        return dict(
            self.tokenizer(
                texts, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
            )
        )

    @torch.no_grad()
    def _encode(
        self,
        vectors_of: Callable[[Sequence[Any]], Tensor],
        texts: Sequence[Any],
        lengths: Sequence[int],
        batch_size: int,
        precision: str,
    ) -> np.ndarray:
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        order = sorted(range(len(texts)), key=lengths.__getitem__)  # little padding
        device = next(self.passage_model.parameters()).device.type
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
            for at in range(0, len(order), batch_size):
                rows = order[at : at + batch_size]
                vectors[rows] = vectors_of([texts[i] for i in rows]).cpu().numpy()
        return vectors


def load_encoder(name: str = "minilm") -> Encoder:
    """The encoder of that name (see the module), its towers float32; each call returns a new one.

    Raises
    ------
    InputError: there is no encoder of that name, half of a pair is missing, or a file is damaged.
    """
    if name in ("minilm", MINILM_ID):
        return Encoder(minilm_model(), minilm_tokenizer(), MINILM_ID, MINILM_SHA256, 20.0)
    if (Path(name) / MANIFEST).is_file():
        return _load_folder(name)
    if "ctx_encoder" in name or "question_encoder" in name:
        return _load_dpr(name)
    raise InputError(
        f"there is no encoder {name!r}; choose 'minilm' ({MINILM_ID}), a folder that `ragbook "
        "train dpr` wrote, or a DPR pair, by the folder or hub name that contains 'ctx_encoder'"
    )


def save_encoder(folder: Path | str, encoder: Encoder) -> None:
    """Write an encoder into a folder, for `load_encoder`, without loss; the manifest comes last.

    The folder may hold other files. A tower that is the embedded encoder is named and not written;
    of a tower that was trained from it, only the changed tensors are written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)  # until the end the folder is not complete
    towers = {"passage": encoder.passage_model, "query": encoder.query_model}
    tied = encoder.passage_model is encoder.query_model
    base = _base_tensors(encoder)
    files: list[str] = []
    if not base:
        encoder.passage_model.config.save_pretrained(folder)
        files += [Path(path).name for path in encoder.tokenizer.save_pretrained(folder)]
        files = sorted({"config.json", *(name for name in files if (folder / name).is_file())})
    for tower in _towers(tied):
        changed = {
            key: _compact(value.detach())
            for key, value in towers[tower].state_dict().items()
            if key not in base or not torch.equal(value.float(), base[key])
        }
        path = folder / f"{tower}.safetensors"
        if changed:
            with whole_file(path) as unfinished:
                save_file(changed, str(unfinished))
            files.append(path.name)
    manifest = {
        "kind": KIND,
        "format_version": FORMAT_VERSION,
        "base": MINILM_SHA256 if base else None,
        "tied": tied,
        "pooling": encoder.pooling,
        "similarity": encoder.similarity,
        "score_scale": encoder.score_scale,
        "passage_form": encoder.passage_form,
        "files": file_records(folder, files),
    }
    write_json(folder / MANIFEST, manifest)


def weights_sha256(model: nn.Module) -> str:
    """SHA-256 of a tower's tensors, as float32 and in the order of their names: it does not depend
    on how files store them. The embedded encoder has the hash of its published file instead."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        array = value.detach().float().cpu().contiguous().numpy()
        digest.update(f"{name} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _towers(tied: bool) -> tuple[str, ...]:
    """The names of the towers that a folder has files of."""
    return ("passage",) if tied else ("passage", "query")


def _base_tensors(encoder: Encoder) -> dict[str, Tensor]:
    """The embedded encoder's tensors if the towers have its shape and its tokenizer, else {}."""
    if encoder.tokenizer is not minilm_tokenizer():
        return {}
    base = minilm_model().state_dict()
    shapes = {name: value.shape for name, value in encoder.passage_model.state_dict().items()}
    return base if shapes == {name: value.shape for name, value in base.items()} else {}


def _compact(value: Tensor) -> Tensor:
    """The tensor in bfloat16 if that loses nothing, as after training in it, else in float32."""
    short = value.bfloat16()
    return (short if torch.equal(short.float(), value.float()) else value.float()).contiguous()


def _load_folder(name: str) -> Encoder:
    folder = Path(name)
    manifest = _read_manifest(folder)
    for file, record in manifest["files"].items():
        path = folder / file
        if not path.is_file() or sha256_of_file(path) != record["sha256"]:
            raise InputError(f"{path} is missing or damaged; train the encoder again or restore it")
    if manifest["base"] is None:
        from transformers import AutoConfig, AutoTokenizer

        from ragbook.models.projected import new_tower

        config: Any = AutoConfig.from_pretrained(str(folder))
        tokenizer = AutoTokenizer.from_pretrained(str(folder))
        make: Callable[[], Any] = partial(new_tower, config)
    else:
        tokenizer, make = minilm_tokenizer(), minilm_model
    models, hashes = [], []
    for tower in _towers(manifest["tied"]):
        model, file = make(), f"{tower}.safetensors"
        if file in manifest["files"]:
            changed = {k: v.float() for k, v in load_file(str(folder / file)).items()}
            result = model.load_state_dict(changed, strict=False)
            if result.unexpected_keys or (manifest["base"] is None and result.missing_keys):
                raise InputError(f"{folder / file} does not fit its encoder; train it again")
        models.append(model)
        hashes.append(weights_sha256(model) if file in manifest["files"] else MINILM_SHA256)
    return Encoder(
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


def _read_manifest(folder: Path) -> dict[str, Any]:
    """The content of `encoder.json`, after checking that it has the expected entries."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes().decode())
        needed = {"config.json"} | {f"{tower}.safetensors" for tower in _towers(manifest["tied"])}
        whole = (
            manifest["kind"] == KIND
            and manifest["format_version"] == FORMAT_VERSION
            and manifest["base"] in (None, MINILM_SHA256)
            and isinstance(manifest["tied"], bool)
            and manifest["pooling"] in POOLINGS
            and manifest["similarity"] in SIMILARITIES
            and manifest["score_scale"] > 0
            and manifest["passage_form"] in (SENTENCE, SEGMENTS, TYPED)
            and (manifest["base"] or needed <= set(manifest["files"]))
            and all(is_bare_name(n) and r["sha256"] for n, r in manifest["files"].items())
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        whole, manifest = False, {}
    if not whole:
        raise InputError(
            f"{path} is damaged, or from another version of ragbook; write it again with "
            "`ragbook train dpr`"
        )
    return manifest


def _load_dpr(name: str) -> Encoder:
    """DPR's two checkpoints (Karpukhin et al. 2020): vectors are the [CLS] states without a
    projection, compared by inner product; passages are read as [CLS] title [SEP] text [SEP]."""
    from transformers import AutoTokenizer, DPRContextEncoder, DPRQuestionEncoder

    passage_name = name.replace("question_encoder", "ctx_encoder")
    query_name = name.replace("ctx_encoder", "question_encoder")
    passage_model = _dpr_tower(DPRContextEncoder, passage_name, query_name).ctx_encoder.bert_model
    query_model = _dpr_tower(DPRQuestionEncoder, query_name, passage_name)
    query_model = query_model.question_encoder.bert_model
    tokenizer = AutoTokenizer.from_pretrained(passage_name)
    if AutoTokenizer.from_pretrained(query_name).get_vocab() != tokenizer.get_vocab():
        raise InputError(
            f"{passage_name} and {query_name} have different tokenizers; name both halves of one "
            "pair"
        )
    return Encoder(
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


def _dpr_tower(kind: Any, name: str, other: str) -> Any:
    """One half of a DPR pair."""
    try:
        model = kind.from_pretrained(name, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise InputError(
            f"there is no DPR checkpoint with safetensors at {name!r}, the other half of "
            f"{other!r}: it is neither a local folder nor in the hub's cache or on the network; "
            "check the name, or download it first"
        ) from error
    if model.config.projection_dim:
        raise InputError(
            f"{name} projects its vectors, which published DPR checkpoints do not; name another "
            "checkpoint"
        )
    return model.eval()
