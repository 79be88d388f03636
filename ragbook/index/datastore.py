"""The datastore of kNN-LM: every token of the corpus as a (key, value) pair.

Khandelwal et al. 2020, section 2. A folder with

    keys.npy         float16 [N, d], the model's state before each token
    values.npy       int32 [N], the token
    offsets.npy      int64 [passages + 1]: passage p's pairs are rows offsets[p] to offsets[p + 1]
    passages.arrow   the passages, so that every neighbour leads back to one
    ivfpq.faiss      the approximate index of the keys, if one was trained
    manifest.json    corpus, language model, and every file's size and SHA-256

It is built in a hidden folder beside it (`ragbook.index.working`), its arrays a chunk of passages
at a time (`ragbook.index.arrays`). A killed build goes on after its last complete chunk.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ragbook.errors import InputError
from ragbook.files import (
    file_records,
    fsync,
    remove_unfinished,
    replace_folder,
    whole_file,
    write_whole,
)
from ragbook.index import neighbours
from ragbook.index.arrays import (
    KEYS,
    OFFSETS,
    PROGRESS,
    VALUES,
    check_room,
    mapped,
    write_keys,
    write_tokens,
)
from ragbook.index.checksums import ranges_of
from ragbook.index.factories import faiss_errors
from ragbook.index.manifest import (
    MANIFEST,
    DatastoreManifest,
    Manifest,
    hash_problems,
    is_damaged,
    opening_problems,
    read_signed,
    serialize,
    size_problems,
)
from ragbook.index.passages import StoredPassages, passage_checksums, write_passages
from ragbook.index.structure import DamagedError, check_codes, check_lists, check_rows
from ragbook.index.working import (
    beside,
    clear_remains,
    is_empty,
    locked,
    take_up,
)

if TYPE_CHECKING:
    from ragbook.corpus import Corpus
    from ragbook.models import LanguageModel

KIND = "ragbook knn-lm datastore"
FORMAT_VERSION = 2
PASSAGES, APPROXIMATE = "passages.arrow", "ivfpq.faiss"
FILES = (KEYS, VALUES, OFFSETS, PASSAGES)


class Datastore:
    """An opened datastore; keys and values stay on the disk until they are read.

    Attributes
    ----------
    keys: float16 [N, d], memory-mapped.
    values: int32 [N], memory-mapped.
    offsets: int64 [passages + 1].
    passages: the passages that the keys were made from, read from the disk when they are used.
    manifest: the content of `manifest.json`.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path, self.manifest = path, manifest
        corpus, pairs = manifest["corpus"], manifest["pairs"]
        dimension = manifest["language_model"]["dimension"]
        self.keys = mapped(path / KEYS, np.float16, (pairs, dimension))
        self.values = mapped(path / VALUES, np.int32, (pairs,))
        self.offsets = mapped(path / OFFSETS, np.int64, (corpus["passages"] + 1,))
        if self.offsets[0] != 0 or self.offsets[-1] != pairs:
            raise InputError(f"{path / OFFSETS} is damaged; build the datastore again.")
        batches = manifest.get("checksums", {}).get(PASSAGES, {}).get("batches", ())
        self.passages = StoredPassages(path / PASSAGES, corpus["name"], corpus["sha256"], batches)
        if len(self.passages) != corpus["passages"]:
            raise InputError(
                f"{path / PASSAGES} has {len(self.passages):,} passages, and the manifest says "
                f"{corpus['passages']:,}; build the datastore again."
            )

    @classmethod
    def open(cls, path: Path | str, verified: bool = False) -> Datastore:
        """Open a datastore; what is checked is as in `PassageIndex.open`.

        Parameters
        ----------
        verified: whether to check every byte first, as `verify` does.

        Raises
        ------
        InputError: the folder is not a datastore, or one of another version, or a damaged one.
        """
        path = Path(path)
        if verified and (problems := verify(path)):
            raise InputError(f"{problems[0]}; build the datastore again.")
        manifest = _read_manifest(path)
        if problems := opening_problems(path, manifest):
            raise InputError(f"{problems[0]}; build the datastore again.")
        return cls(path, manifest)

    def __len__(self) -> int:
        return len(self.values)

    def check_model(self, lm: LanguageModel) -> None:
        """Raise InputError if another language model than `lm` made the keys."""
        made = self.manifest["language_model"]
        if made["sha256"] != lm.sha256:
            raise InputError(
                f"{self.path} holds the keys of the language model {made['name']!r}, which cannot "
                f"be compared with those of {lm.name!r}; use {made['name']!r} or build another "
                "datastore."
            )

    def passage_of(self, rows: np.ndarray) -> np.ndarray:
        """The position in `passages` of each row's passage: int64, of the shape of `rows`."""
        return np.searchsorted(self._ascending, rows, side="right") - 1

    @cached_property
    def _ascending(self) -> np.ndarray:
        """The offsets, looked through once."""
        if (self.offsets[1:] < self.offsets[:-1]).any():
            raise InputError(f"{self.path / OFFSETS} is damaged; build the datastore again.")
        return self.offsets

    @cached_property
    def _approximate(self) -> Any:
        """The approximate index; a search reads from the disk only what it needs."""
        import faiss

        if APPROXIMATE not in self.manifest["files"]:
            raise InputError(
                f"{self.path} has no approximate index; add one with "
                "`ragbook datastore build --ivfpq` or search exactly."
            )
        path = self.path / APPROXIMATE
        try:
            index: Any = faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
            if not isinstance(index, faiss.IndexIVFPQ):
                raise DamagedError("it is of another kind")
            if (index.ntotal, index.d) != self.keys.shape or index.metric_type != faiss.METRIC_L2:
                raise DamagedError("it has other keys than the datastore")
            check_codes(index)
            check_lists(index, path)
        except (RuntimeError, MemoryError, ValueError, OSError) as error:
            why = f" ({error})" if isinstance(error, DamagedError) else ""
            raise InputError(
                f"{path} cannot be read, or it is damaged{why}; build the datastore again."
            ) from None
        return index

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k nearest pairs of each query, exactly.

        Parameters
        ----------
        queries: float32 [N, d].
        k: neighbours of each query; all pairs where there are fewer.

        Returns
        -------
        (squared L2 distances float32 [N, k], rows int64 [N, k]), nearest first.
        """
        return neighbours.exact(self.keys, queries, k)

    def search_approximately(
        self,
        queries: np.ndarray,
        k: int,
        probes: int = neighbours.PROBES,
        *,
        recompute: bool = False,
    ) -> tuple[np.ndarray, np.ndarray]:
        """`search` with the approximate index.

        Parameters
        ----------
        probes: number of cells to search.
        recompute: replace the approximate distances of the codes by the exact ones of the stored
            keys, and order the same neighbours by these.

        Raises
        ------
        InputError: the datastore has no such index.
        """
        distances, rows = neighbours.approximate(self._approximate, queries, k, probes)
        check_rows(rows, len(self))
        return neighbours.recomputed(self.keys, queries, rows) if recompute else (distances, rows)


def build_datastore(
    corpus: Corpus | StoredPassages, out: Path | str, lm: LanguageModel, progress: bool = True
) -> Datastore:
    """Run the language model over every passage and write its datastore as the folder `out`.

    Each passage is read by itself from its start, title first, a long one in windows that overlap
    (`LanguageModel.windows`): that is a key's whole context. So a passage's pairs depend on nothing
    else in the corpus, and are the same in every datastore; for longer contexts give whole articles
    as passages (chapter 3 measures both). If `out` already holds a datastore of the same corpus and
    model, that datastore is returned; a killed build is resumed.

    Parameters
    ----------
    lm: the model, on any device. One that was placed in another precision than float32 after its
        hash was taken makes a datastore of the same model, whose manifest says the precision.
    progress: whether to print the size before the model is run, and to show a bar, on a terminal.

    Raises
    ------
    InputError: the corpus is empty, `out` holds something else, another process is building there,
        the disk has too little room, or a key is not finite in float16.
    """
    out = Path(os.path.abspath(out))
    if len(corpus) == 0:
        raise InputError(f"Corpus {corpus.name!r} has no passages, so there is nothing to store.")
    described = {
        "corpus": {"name": corpus.name, "passages": len(corpus), "sha256": corpus.sha256},
        "language_model": {
            "name": lm.name,
            "sha256": lm.sha256,
            "dimension": lm.dimension,
            "window": lm.window,
            **_precision_record(lm),
        },
    }
    working = beside(out)
    state = described | {"format_version": FORMAT_VERSION}
    if out.exists() and not is_empty(out):
        standing = _standing(out, described)
        clear_remains(working, state)
        return standing
    out.parent.mkdir(parents=True, exist_ok=True)
    with locked(working, f"store/{PROGRESS}"):
        if out.exists() and not is_empty(out):  # another process has built it in the meantime
            return _standing(out, described)
        take_up(working, state, "store")
        store = working / "store"
        if not (store / MANIFEST).is_file():  # it is there after a kill just before the renaming
            offsets = write_tokens(corpus, store, lm, progress)
            check_room(store, int(offsets[-1]), lm.dimension, progress)
            write_keys(store, offsets, lm, progress)
            write_passages(store / PASSAGES, corpus)
            for name in FILES:
                fsync(store / name)
            _write_manifest(store, described | {"pairs": int(offsets[-1])}, FILES)
        (store / PROGRESS).unlink(missing_ok=True)
        replace_folder(store, out)
    return Datastore.open(out)


def _precision_record(lm: LanguageModel) -> Manifest:
    """The manifest's entry about the precision of the model's weights: empty for the usual one, and
    for a model of your own without this attribute."""
    precision = getattr(lm, "precision", "float32")
    return {} if precision == "float32" else {"precision": precision}


def add_approximate(datastore: Datastore) -> Datastore:
    """Train the approximate index of a datastore's keys, write it beside them, and return the
    datastore, opened again.

    If there is such an index already, it is kept. A kill leaves the datastore as it was.

    Raises
    ------
    InputError: there are too few pairs to train one.
    """
    import faiss

    if APPROXIMATE in datastore.manifest["files"]:
        return datastore
    index = neighbours.train_ivfpq(datastore.keys)
    path = datastore.path
    remove_unfinished(path, APPROXIMATE)  # of a process that was killed
    with (
        whole_file(path / APPROXIMATE) as unfinished,
        faiss_errors(f"{path / APPROXIMATE} could not be written", "make room on the disk"),
    ):
        faiss.write_index(index, str(unfinished))
    kept = {key: datastore.manifest[key] for key in ("corpus", "language_model", "pairs")}
    described = kept | {"approximate": {"cells": index.nlist, "code_bytes": index.code_size}}
    _write_manifest(path, described, (*FILES, APPROXIMATE))
    return Datastore.open(path)


def verify(path: Path | str) -> list[str]:
    """One sentence for every file of a datastore that is missing or whose bytes have changed.

    Raises
    ------
    InputError: the folder is not a datastore.
    """
    path = Path(path)
    try:
        manifest = _read_manifest(path)
    except InputError as error:
        there = (path / MANIFEST).is_file() and any((path / name).is_file() for name in FILES)
        if there and is_damaged(path, KIND, FORMAT_VERSION):
            return [str(error)]
        raise
    return size_problems(path, manifest) or hash_problems(path, manifest)


def _read_manifest(path: Path) -> Manifest:
    if not (path / MANIFEST).is_file():
        raise InputError(
            f"{path} is not a complete datastore; build one with `ragbook datastore build`."
        )
    manifest = read_signed(
        path / MANIFEST, KIND, FORMAT_VERSION, DatastoreManifest, "a datastore", "datastore"
    )
    if missing := set(FILES) - manifest["files"].keys():
        raise InputError(
            f"{path / MANIFEST} does not list {min(missing)}; build the datastore again."
        )
    return manifest


def _write_manifest(folder: Path, described: Manifest, names: Sequence[str]) -> None:
    manifest = {"kind": KIND, "format_version": FORMAT_VERSION, **described}
    manifest["checksums"] = {
        **{name: {"ranges": ranges_of(folder / name)} for name in names},
        PASSAGES: passage_checksums(folder / PASSAGES),
    }
    whole = serialize(manifest | {"files": file_records(folder, names)})
    write_whole(folder / MANIFEST, lambda file: file.write(whole))


def _standing(out: Path, described: Manifest) -> Datastore:
    """The datastore at `out` if it is the requested one; otherwise InputError."""
    try:
        datastore = Datastore.open(out)
    except InputError as error:
        problem = str(error)
    else:
        if described.items() <= datastore.manifest.items():
            return datastore
        problem = f"{out} holds another datastore"
    raise InputError(f"{problem.removesuffix('.')}; choose another folder or remove this one.")
