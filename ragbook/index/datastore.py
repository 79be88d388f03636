"""The datastore of kNN-LM: every token of the corpus as a (key, value) pair.

Khandelwal et al. 2020, section 2.

A folder with `keys.npy` (float16 [N, d]), `values.npy` (int32 [N], the next token), `offsets.npy`
(int64 [passages + 1]: passage p's pairs are rows offsets[p] to offsets[p + 1], so every neighbour
leads back to its passage) and `manifest.json`. It is written under a hidden name and renamed when
whole; a killed build leaves nothing that opens, and building again starts over.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from ragbook.errors import InputError
from ragbook.index.manifest import fsync, sha256_of_file

if TYPE_CHECKING:
    from ragbook.corpus import Corpus
    from ragbook.models import LanguageModel

KIND = "ragbook knn-lm datastore"
FILES = ("keys.npy", "values.npy", "offsets.npy")


class Datastore:
    """An opened datastore; keys and values stay on the disk until they are read.

    Attributes
    ----------
    keys: float16 [N, d], memory-mapped.
    values: int32 [N], memory-mapped.
    offsets: int64 [passages + 1].
    manifest: what `manifest.json` says.
    """

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path, self.manifest = path, manifest
        self.keys, self.values, self.offsets = (
            np.load(path / name, mmap_mode="r", allow_pickle=False) for name in FILES
        )

    @classmethod
    def open(cls, path: Path | str) -> Datastore:
        """Open a datastore; sizes are checked against its manifest.

        Raises
        ------
        InputError: the folder is no datastore, or a file of it is missing or has another size.
        """
        path = Path(path)
        try:
            manifest = json.loads((path / "manifest.json").read_bytes().decode())
            whole = manifest["kind"] == KIND and all(
                (path / name).stat().st_size == manifest["files"][name]["bytes"] for name in FILES
            )
        except (OSError, ValueError, KeyError, TypeError):
            whole, manifest = False, {}
        if not whole:
            raise InputError(
                f"{path} is not a whole datastore; build one with `ragbook datastore build`."
            )
        return cls(path, manifest)

    def passage_of(self, rows: np.ndarray) -> np.ndarray:
        """The position in the corpus of the passage that each row is from, int64, rows' shape."""
        return np.searchsorted(self.offsets, rows, side="right") - 1


def build_datastore(
    corpus: Corpus, out: Path | str, lm: LanguageModel, progress: bool = True
) -> Datastore:
    """Run the language model over every passage and write its datastore as the folder `out`.

    Each passage is read by itself from its start, title first: that is a key's whole context.

    Raises
    ------
    InputError: `out` exists.
    """
    out = Path(os.path.abspath(out))
    if out.exists():
        raise InputError(f"{out} exists; choose another folder or remove it.")
    lengths = [len(lm.passage_ids(passage)) - 1 for passage in corpus]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    working = out.with_name(f".{out.name}.building")
    shutil.rmtree(working, ignore_errors=True)
    working.mkdir(parents=True)
    shape = (int(offsets[-1]), lm.dimension)
    open_memmap = np.lib.format.open_memmap
    keys = open_memmap(working / "keys.npy", mode="w+", dtype=np.float16, shape=shape)
    values = open_memmap(working / "values.npy", mode="w+", dtype=np.int32, shape=shape[:1])
    np.save(working / "offsets.npy", offsets)
    bar = tqdm(total=len(corpus), desc="datastore", disable=None if progress else True)
    with bar:
        for at in range(0, len(corpus), 32):
            for number, (key, value) in enumerate(lm.memory(corpus[at : at + 32]), at):
                rows = slice(offsets[number], offsets[number + 1])
                keys[rows], values[rows] = key.numpy(), value.numpy()
                bar.update()
    keys.flush()
    values.flush()
    manifest = {
        "kind": KIND,
        "format_version": 1,
        "corpus": {"name": corpus.name, "passages": len(corpus), "sha256": corpus.sha256},
        "language_model": {"name": lm.name, "dimension": lm.dimension},
        "pairs": shape[0],
        "files": {
            name: {
                "sha256": sha256_of_file(working / name),
                "bytes": (working / name).stat().st_size,
            }
            for name in FILES
        },
    }
    (working / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    for name in (*FILES, "manifest.json"):
        fsync(working / name)
    os.rename(working, out)
    fsync(out.parent)
    return Datastore.open(out)
