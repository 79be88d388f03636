"""Building the passage index: encode in shards, assemble, rename into place.

Everything is built in a hidden folder beside the index, `.NAME.building`:

    state.json          what is being encoded: corpus, encoder, batch and shard size
    shards/00000.npy    vectors of the first `shard_passages` passages, and so on
    stage-.../          a trained index and filled blocks of it (`ragbook.index.assembly`)
    index/              the finished folder, renamed to its place when all of it is on the disk

A killed build goes on after its last complete shard and block, if the state says that it was the
same build. Shards always have the same bounds, so the vectors do not depend on when a build was
killed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ragbook.errors import InputError
from ragbook.files import replace_folder
from ragbook.index.assembly import clear_other_stages, write_faiss_files
from ragbook.index.checksums import ranges_of
from ragbook.index.encoding import (
    ShardEncoder,
    Vectors,
    WriteShards,
    encode,
    write_by_processes,
)
from ragbook.index.factories import EXACT, try_factory
from ragbook.index.index import PASSAGES_FILE, PassageIndex, encoder_record
from ragbook.index.manifest import KIND, MANIFEST, Manifest, write_manifest
from ragbook.index.parts import FLAT, VECTORS_FILE, open_parts
from ragbook.index.passages import StoredPassages, passage_checksums, write_passages
from ragbook.index.recall import measured_recall
from ragbook.index.working import (
    beside,
    clear_remains,
    is_empty,
    locked,
    take_up,
)
from ragbook.manifests import BM25_FILE

if TYPE_CHECKING:
    from ragbook.corpus import Corpus
    from ragbook.models import Encoder

DEVICES = ("cpu", "cuda", "mps")
SHARD_PASSAGES, MANY = 256, 100_000
"""Passages in a shard. Corpora of more than MANY passages have shards sixteen times as large, so
that a folder does not hold a hundred thousand files."""


ENGINES = ("local", "ray")


def build_index(
    corpus: Corpus | StoredPassages,
    out: Path | str,
    encoder: Encoder,
    batch_size: int = 64,
    progress: bool = True,
    *,
    overwrite: bool = False,
    shard_passages: int | None = None,
    factory: str = EXACT,
    parts: int = 1,
    workers: int = 1,
    engine: str = "local",
    device: str = "cpu",
) -> PassageIndex:
    """Encode a corpus and write its index as the folder `out`.

    If `out` already holds an index of the same corpus, encoder and kind, that index is returned; a
    killed build is resumed. The same inputs give the same bytes, except for a graph (HNSW) that
    several threads made.

    Parameters
    ----------
    batch_size: passages in one forward pass of the encoder.
    progress: whether to show a bar, on a terminal.
    overwrite: replace an index of other inputs, or a damaged one, instead of refusing.
    shard_passages: passages in one shard, which is the most that is lost if a build is killed; by
        default it depends on the corpus's size.
    factory: Faiss's factory string. An index other than the exact one is trained on a sample, its
        recall is measured, and its candidates are ranked again by their full vectors.
    parts: number of Faiss files of consecutive passages, which several machines can serve.
    workers: processes that encode.
    device: `cpu`, for wherever the encoder is; `mps`; or `cuda`, with which each process uses a GPU
        of its own, if there are enough.
    engine: `local`, or `ray` for actors of a Ray cluster that shares the disk with this machine.

    Raises
    ------
    InputError: the corpus is empty, `out` holds something else, another process is building there,
        the encoder gave vectors that are not finite, or there is no such index, engine or GPU.
    """
    out = Path(os.path.abspath(out))
    if len(corpus) == 0:
        raise InputError(f"Corpus {corpus.name!r} has no passages, so there is nothing to index.")
    if encoder.metric not in FLAT:
        raise InputError(
            f"Encoder {encoder.id} compares by {encoder.metric}, which cannot be indexed; "
            f"choose one that compares by {' or '.join(FLAT)}."
        )
    if engine not in ENGINES:
        raise InputError(f"There is no engine {engine!r}; choose {' or '.join(ENGINES)}.")
    if device not in DEVICES:
        raise InputError(f"There is no device {device!r}; choose {' or '.join(DEVICES)}.")
    if device != "cpu" and engine == "local":
        from ragbook.models.devices import choose_device

        choose_device(device)  # or its refusal
    if not 1 <= parts <= len(corpus):
        raise InputError(f"An index of {len(corpus):,} passages cannot have {parts} parts.")
    if factory != EXACT:  # refuse a wrong one now and not after the encoding
        try_factory(factory, encoder.dimension, encoder.metric, len(corpus))
    if shard_passages is None:
        shard_passages = SHARD_PASSAGES if len(corpus) <= MANY else 16 * SHARD_PASSAGES
    kind = (factory, parts)
    standing = _standing(out, corpus, encoder, kind, overwrite)
    working = beside(out)
    state = {
        "corpus": corpus.sha256,
        "encoder": encoder_record(encoder) | precision_record(encoder),
        "batch_size": batch_size,
        "shard_passages": shard_passages,
        **({} if device == "cpu" else {"device": device}),
    }
    if standing is not None:
        clear_remains(working, state)
        return standing
    out.parent.mkdir(parents=True, exist_ok=True)
    with locked(working, "shards/*.npy"):
        if (standing := _standing(out, corpus, encoder, kind, overwrite)) is not None:
            return standing  # another process has built it in the meantime
        take_up(working, state, "shards")
        shards = ShardEncoder(
            corpus, encoder, working / "shards", batch_size, shard_passages, device
        )
        vectors = encode(shards, workers, _writer(engine), progress)
        stage = json.dumps([state, kind], sort_keys=True).encode()
        stage = working / f"stage-{hashlib.sha256(stage).hexdigest()[:16]}"
        clear_other_stages(working, stage)
        _assemble(corpus, encoder, working / "index", stage, vectors, factory, parts)
        replace_folder(working / "index", out)
    return PassageIndex.open(out)


def _writer(engine: str) -> WriteShards:
    """The function that encodes the shards with that engine."""
    if engine == "local":
        return write_by_processes
    from ragbook.index.ray.encoding import write_by_ray

    return write_by_ray


def precision_record(encoder: Encoder) -> Manifest:
    """The manifest's entry about the precision of the encoder's arithmetic: empty for the usual
    one, and for an encoder of your own without this attribute."""
    precision = getattr(encoder, "precision", "float32")
    return {} if precision == "float32" else {"precision": precision}


def _standing(
    out: Path,
    corpus: Corpus | StoredPassages,
    encoder: Encoder,
    kind: tuple[str, int],
    overwrite: bool,
) -> PassageIndex | None:
    """The index at `out` if it is the requested one; None if `out` is free or may be replaced."""
    if not out.exists() or is_empty(out):
        return None
    names = {path.name for path in out.iterdir()} if out.is_dir() else set()
    own = {name for name in names if name in (PASSAGES_FILE, VECTORS_FILE) or _is_faiss(name)}
    if not own or not _is_marked(out):
        raise InputError(f"{out} exists and is not a passage index; choose another folder.")
    try:
        index = PassageIndex.open(out)
        index.check_encoder(encoder)
        parameters = index.manifest["index"]["parameters"]
        stands = (parameters.get("factory", EXACT), parameters.get("parts", 1))
        if index.corpus.sha256 != corpus.sha256:
            problem = f"{out} holds an index of another corpus, {index.corpus.name!r}"
        elif stands != kind:
            problem = (
                f"{out} holds an index of another kind ({stands[0]} in parts: {stands[1]}) than "
                f"was asked for ({kind[0]} in parts: {kind[1]})"
            )
        else:
            return index
    except InputError as error:
        problem = str(error).removesuffix(".")
    if overwrite:
        kept = {name for name in names if name.lstrip(".").startswith(BM25_FILE)}
        if others := names - own - kept - {MANIFEST}:
            raise InputError(
                f"{out} holds {min(others)} beside an index, so it is not replaced; "
                "choose another folder."
            )
        return None
    raise InputError(f"{problem}; choose another folder or replace it with --overwrite.")


def _is_marked(folder: Path) -> bool:
    """Whether a folder carries the mark of an index, so that it may be replaced: a manifest that
    names its kind, however damaged, or a passage file with this project's columns."""
    with suppress(OSError), (folder / MANIFEST).open("rb") as file:
        if KIND.encode() in file.read(1 << 20):
            return True
    with suppress(InputError, OSError):
        StoredPassages(folder / PASSAGES_FILE, "", "")
        return True
    return False


def cut_passages(corpus: Corpus | StoredPassages, encoder: Encoder) -> dict[str, int]:
    """The passages that are longer than what the encoder sees: for each its id and how many words
    at its end have no part in its vector."""
    from ragbook.models.limits import cut_by_encoder

    out: dict[str, int] = {}
    for first in range(0, len(corpus), 1024):
        out |= cut_by_encoder(encoder, corpus[first : first + 1024])
    return out


def _place_record(corpus: Corpus | StoredPassages) -> Manifest:
    """The manifest's entry about the folder of the corpus's documents, if it has one whose name is
    proper text."""
    with suppress(UnicodeEncodeError):
        if corpus.documents is not None:
            str(corpus.documents).encode("utf-8")
            return {"path": str(corpus.documents)}
    return {}


def _is_faiss(name: str) -> bool:
    return name.startswith("faiss") and name.endswith((".index", ".lists"))


def _assemble(
    corpus: Corpus | StoredPassages,
    encoder: Encoder,
    folder: Path,
    stage: Path,
    vectors: Vectors,
    factory: str,
    parts: int,
) -> None:
    """Write the files of the index, the manifest last."""
    shutil.rmtree(folder, ignore_errors=True)  # a killed build may have left one
    folder.mkdir()
    write_passages(folder / PASSAGES_FILE, corpus)
    kind, parameters = write_faiss_files(folder, stage, vectors, encoder.metric, factory, parts)
    faiss_files = sorted(path.name for path in folder.iterdir() if path.name != PASSAGES_FILE)
    files = [PASSAGES_FILE, *faiss_files]
    described = {
        "corpus": {
            "name": corpus.name,
            "passages": len(corpus),
            "sha256": corpus.sha256,
            **_place_record(corpus),
        },
        "encoder": encoder_record(encoder) | precision_record(encoder),
        "index": {"type": kind, "parameters": parameters},
    }
    if cut := cut_passages(corpus, encoder):
        parameters |= {"cut": {"passages": len(cut), "words": max(cut.values())}}
    if factory != EXACT:
        opened = open_parts(folder, described | {"files": dict.fromkeys(files)})
        parameters |= measured_recall(opened, vectors, corpus, encoder)
    write_manifest(folder, **described, files=files, checksums=_checksums(folder, files))


def _checksums(folder: Path, files: list[str]) -> Manifest:
    """The manifest's entry `checksums`, for files on the disk."""
    beside_lists = {name.replace(".lists", ".index") for name in files if name.endswith(".lists")}
    found: Manifest = {
        name: {"ranges": ranges_of(folder / name, whole=name in beside_lists)} for name in files
    }
    return found | {PASSAGES_FILE: passage_checksums(folder / PASSAGES_FILE)}
