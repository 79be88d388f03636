"""Building the passage index: encode in shards, assemble, rename into place.

Everything is made in a hidden folder beside the index, `.NAME.building`:

    state.json          what is being built: corpus, encoder, batch and shard size
    shards/00000.npy    vectors of the first `shard_passages` passages, and so on
    index/              the finished folder, renamed to its place when all of it is on the disk

A build that was killed goes on from its last whole shard, if the state says that it was the same
build. Shards always have the same bounds, so the vectors do not depend on where the kill came.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from ragbook.errors import InputError
from ragbook.index.index import FAISS_FILE, FLAT, PASSAGES_FILE, PassageIndex, encoder_record
from ragbook.index.manifest import MANIFEST, fsync, write_manifest
from ragbook.index.passages import StoredPassages, write_passages
from ragbook.index.working import (
    beside,
    clear_remains,
    is_empty,
    locked,
    put_in_place,
    take_up,
    write_whole,
)

if TYPE_CHECKING:
    from ragbook.corpus import Corpus
    from ragbook.models import Encoder

SHARD_PASSAGES = 256


def build_index(
    corpus: Corpus | StoredPassages,
    out: Path | str,
    encoder: Encoder,
    batch_size: int = 64,
    progress: bool = True,
    *,
    overwrite: bool = False,
    shard_passages: int = SHARD_PASSAGES,
) -> PassageIndex:
    """Encode a corpus and write its exact index as the folder `out`.

    An index of the same corpus and encoder that stands there is returned as it is; a build that was
    killed is taken up again. The same inputs give the same bytes.

    Parameters
    ----------
    batch_size: passages in one forward pass of the encoder.
    progress: show a bar, on a terminal.
    overwrite: replace an index of other inputs, or a damaged one, instead of refusing.
    shard_passages: passages in one shard, what a kill can cost at most.

    Raises
    ------
    InputError: the corpus is empty, `out` holds something else, another process is building there,
        or the encoder gave vectors that are not finite.
    """
    out = Path(os.path.abspath(out))
    if len(corpus) == 0:
        raise InputError(f"Corpus {corpus.name!r} has no passages, so there is nothing to index.")
    if encoder.metric not in FLAT:
        raise InputError(
            f"Encoder {encoder.id} compares by {encoder.metric}, which cannot be indexed; "
            f"choose one that compares by {' or '.join(FLAT)}."
        )
    standing = _standing(out, corpus, encoder, overwrite)
    working = beside(out)
    state = {
        "corpus": corpus.sha256,
        "encoder": encoder_record(encoder),
        "batch_size": batch_size,
        "shard_passages": shard_passages,
    }
    if standing is not None:
        clear_remains(working, state)
        return standing
    out.parent.mkdir(parents=True, exist_ok=True)
    with locked(working):
        if (standing := _standing(out, corpus, encoder, overwrite)) is not None:
            return standing  # another process has built it in between
        take_up(working, state, "shards")
        shards = _encode(corpus, encoder, working / "shards", batch_size, shard_passages, progress)
        _assemble(corpus, encoder, working / "index", shards)
        put_in_place(working / "index", out)
    return PassageIndex.open(out)


def _standing(
    out: Path, corpus: Corpus | StoredPassages, encoder: Encoder, overwrite: bool
) -> PassageIndex | None:
    """The index at `out` if it is the one asked for; None if `out` is free or may be replaced."""
    if not out.exists() or is_empty(out):
        return None
    names = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if not names & {FAISS_FILE, PASSAGES_FILE}:
        raise InputError(f"{out} exists and is not a passage index; choose another folder.")
    try:
        index = PassageIndex.open(out)
        index.check_encoder(encoder)
        if index.corpus.sha256 == corpus.sha256:
            return index
        problem = f"{out} holds an index of another corpus, {index.corpus.name!r}"
    except InputError as error:
        problem = str(error).removesuffix(".")
    if overwrite:
        if others := names - {MANIFEST, FAISS_FILE, PASSAGES_FILE}:
            raise InputError(
                f"{out} holds {min(others)} beside an index, so it is not replaced; "
                "choose another folder."
            )
        return None
    raise InputError(f"{problem}; choose another folder or replace it with --overwrite.")


def _encode(
    corpus: Corpus | StoredPassages,
    encoder: Encoder,
    folder: Path,
    batch_size: int,
    shard_passages: int,
    progress: bool,
) -> list[Path]:
    """Encode the shards that are not there yet; the paths of all, in the corpus's order."""
    shards = []
    bar = tqdm(
        total=len(corpus),
        desc=f"encoding {corpus.name}",
        unit="passage",
        disable=None if progress else True,
    )
    with bar:
        for start in range(0, len(corpus), shard_passages):
            passages = corpus[start : start + shard_passages]
            path = folder / f"{start // shard_passages:05d}.npy"
            shape = (len(passages), encoder.dimension)
            if not _is_whole(path, shape):
                vectors = np.ascontiguousarray(
                    encoder.encode_passages(passages, batch_size=batch_size), dtype=np.float32
                )
                if vectors.shape != shape or not np.isfinite(vectors).all():
                    raise InputError(
                        f"Encoder {encoder.id} gave vectors of shape {vectors.shape} or not finite "
                        f"for passages {start} to {start + len(passages) - 1} of {corpus.name!r}, "
                        f"expected finite ones of shape {shape}."
                    )
                write_whole(path, lambda file, vectors=vectors: np.save(file, vectors))
            shards.append(path)
            bar.update(len(passages))
    return shards


def _is_whole(path: Path, shape: tuple[int, int]) -> bool:
    """Whether a shard is there and readable (a power cut can leave an empty file)."""
    try:
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return False
    return vectors.shape == shape and vectors.dtype == np.float32


def _assemble(
    corpus: Corpus | StoredPassages, encoder: Encoder, folder: Path, shards: list[Path]
) -> None:
    """Write the three files of the index; the manifest last."""
    import faiss

    shutil.rmtree(folder, ignore_errors=True)  # what a killed build had begun
    folder.mkdir()
    write_passages(folder / PASSAGES_FILE, corpus)
    index = getattr(faiss, FLAT[encoder.metric])(encoder.dimension)
    for shard in shards:
        index.add(np.load(shard, allow_pickle=False))
    faiss.write_index(index, str(folder / FAISS_FILE))
    for name in (PASSAGES_FILE, FAISS_FILE):
        fsync(folder / name)
    write_manifest(
        folder,
        corpus={"name": corpus.name, "passages": len(corpus), "sha256": corpus.sha256},
        encoder=encoder_record(encoder),
        index={"type": type(index).__name__, "parameters": {}},
        files=[PASSAGES_FILE, FAISS_FILE],
    )
    fsync(folder)
