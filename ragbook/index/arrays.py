"""The arrays of a datastore (`ragbook.index.datastore`): written a chunk of passages at a time, and
mapped.

First the tokens of the whole corpus are written, whose number tells how large the datastore will
be, then the keys are appended. A killed build goes on after its last complete chunk; chunks always
have the same bounds, so the keys do not depend on when a build was killed. No more than a chunk is
ever in memory.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from msgspec import Struct
from tqdm import tqdm

from ragbook import manifests
from ragbook.errors import InputError
from ragbook.files import fsync, write_json, write_whole

if TYPE_CHECKING:
    from ragbook.corpus import Corpus
    from ragbook.index.passages import StoredPassages
    from ragbook.models import LanguageModel

KEYS, VALUES, OFFSETS = "keys.npy", "values.npy", "offsets.npy"
PROGRESS = "progress.json"
"""During a build: how many passages' keys are on the disk."""
CHUNK_PASSAGES = 256


def mapped(path: Path, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    """Map a .npy file that must have this type and shape, and no byte more: a header of another
    length is read too, and what it says is then found at the wrong place.

    Raises
    ------
    InputError: it has not, or its header is damaged.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        right = array.dtype == dtype and array.shape == shape and array.flags.c_contiguous
        right = right and path.stat().st_size == getattr(array, "offset", 0) + array.nbytes
    except Exception:  # numpy reads the header as a Python literal, and raises what that raises
        right, array = False, np.empty(0)
    if not right:
        raise InputError(
            f"{path} is damaged: it does not hold {np.dtype(dtype)} numbers of the shape {shape}; "
            "build the datastore again."
        )
    return array


def _write_header(file: BinaryIO, dtype: str, shape: tuple[int, ...]) -> None:
    """Write the header of a .npy file; numpy leaves room in it for the length to grow."""
    file.seek(0)
    described = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, described)


def write_tokens(
    corpus: Corpus | StoredPassages, store: Path, lm: LanguageModel, progress: bool
) -> np.ndarray:
    """Write every passage's tokens except its first as the values; returns the offsets."""
    if (offsets := _finished_tokens(store, len(corpus))) is not None:
        return offsets
    lengths = []
    with (
        (store / VALUES).open("wb") as file,
        tqdm(total=len(corpus), desc="tokens", disable=None if progress else True) as bar,
    ):
        _write_header(file, "int32", (0,))
        for first in range(0, len(corpus), CHUNK_PASSAGES):
            texts = lm.texts(corpus[first : first + CHUNK_PASSAGES])
            lengths += [len(ids) - 1 for ids in texts]
            file.write(np.concatenate([ids[1:] for ids in texts]).astype(np.int32).data)
            bar.update(len(texts))
        _write_header(file, "int32", (sum(lengths),))
    fsync(store / VALUES)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    write_whole(store / OFFSETS, lambda file: np.save(file, offsets))
    return offsets


def _finished_tokens(store: Path, passages: int) -> np.ndarray | None:
    """The offsets, if a build that was killed has written all tokens; None if they are to be
    written, as they are not there or cannot be read."""
    if not (store / OFFSETS).is_file():  # it is written last
        return None
    try:
        offsets = np.array(mapped(store / OFFSETS, np.int64, (passages + 1,)))
        if offsets[0] == 0 and (offsets[1:] >= offsets[:-1]).all():
            mapped(store / VALUES, np.int32, (int(offsets[-1]),))
            return offsets
    except InputError:
        pass
    return None


def check_room(store: Path, pairs: int, dimension: int, progress: bool) -> None:
    """Print the size of the keys, which take nearly all the space; refuse if they do not fit."""
    written = (store / KEYS).stat().st_size if (store / KEYS).is_file() else 0
    size = pairs * dimension * np.dtype(np.float16).itemsize
    if progress:
        tqdm.write(
            f"{pairs:,} pairs: {size / 1e6:,.0f} MB of keys, {4 * pairs / 1e6:,.0f} MB of values",
            file=sys.stderr,
        )
    if size - written > (free := shutil.disk_usage(store).free):
        raise InputError(
            f"{pairs:,} keys take {size / 1e9:.1f} GB, and the disk of {store.parent.parent} has "
            f"{free / 1e9:.1f} GB left; make room or choose another folder."
        )


def write_keys(store: Path, offsets: np.ndarray, lm: LanguageModel, progress: bool) -> None:
    """Append the keys of each chunk of passages, going on after the last that is on the disk."""
    values = mapped(store / VALUES, np.int32, (int(offsets[-1]),))
    passages, row = len(offsets) - 1, lm.dimension * np.dtype(np.float16).itemsize
    done = _passages_done(store, offsets, lm.dimension)
    with (
        (store / KEYS).open("r+b" if done else "w+b") as file,
        tqdm(
            total=passages,
            initial=done,
            desc="datastore",
            unit="passage",
            disable=None if progress else True,
        ) as bar,
    ):
        _write_header(file, "float16", (len(values), lm.dimension))
        file.truncate(file.tell() + int(offsets[done]) * row)
        file.seek(0, os.SEEK_END)
        for first in range(done, passages, CHUNK_PASSAGES):
            last = min(first + CHUNK_PASSAGES, passages)
            # A text is the start token and the values, without the last, which needs no key.
            texts = [
                [lm.start, *values[offsets[p] : offsets[p + 1] - 1].tolist()]
                for p in range(first, last)
            ]
            for key in lm.keys(texts):
                half = key.numpy().astype(np.float16)
                if not np.isfinite(half).all():
                    raise InputError(
                        f"the language model {lm.name!r} gave a key that is not finite in float16, "
                        "which a datastore cannot hold; use another language model."
                    )
                file.write(half.data)
            file.flush()
            fsync(store / KEYS)
            write_json(store / PROGRESS, {"passages": last})
            bar.update(last - first)


class _Progress(Struct):
    """What PROGRESS says."""

    passages: manifests.Count


def _passages_done(store: Path, offsets: np.ndarray, dimension: int) -> int:
    """How many passages' keys are on the disk, by a killed build's note; 0 if the note is damaged
    or the file of keys is shorter, for then they are written anew."""
    passages = len(offsets) - 1
    try:
        noted = manifests.read(store / PROGRESS)
        manifests.check(noted, _Progress)
        done = noted["passages"]
        if done > passages or (done % CHUNK_PASSAGES and done < passages):
            return 0
        header = io.BytesIO()
        _write_header(header, "float16", (int(offsets[-1]), dimension))
        size = len(header.getvalue()) + 2 * dimension * int(offsets[done])
        return done if (store / KEYS).stat().st_size >= size else 0
    except (ValueError, OSError):
        return 0
