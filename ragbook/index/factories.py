"""Makes a Faiss index from its factory string, or chooses one that fits into a given memory."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ragbook.errors import InputError

EXACT = "Flat"
"""The exact index, which is the default."""

FEWEST_PER_CENTROID = 39
"""The fewest training vectors for each centroid; with fewer Faiss warns about k-means."""

_SCAN = 200_000  # passages up to which comparing a question with all of them is quick enough
_LINKS = 2 * 32 * 4 + 20  # bytes of HNSW32's graph for a vector: its links, level and offset
_LIST = 24  # bytes of an empty inverted list
_WALK = 160  # candidates when a vector is linked; with Faiss's 40 large graphs miss neighbours
_TRIAL = 256  # vectors of the index that tries a factory string
_OPQ_ROUNDS = 4  # Faiss's 50 take minutes, and after the first few the codes change little
_UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


@dataclass(frozen=True)
class Choice:
    """A kind of index that fits.

    Attributes
    ----------
    factory: Faiss's factory string.
    memory: size of the index in bytes; a search is fast while all of it is in memory.
    reasons: one line for every kind that was considered, the chosen one last.
    """

    factory: str
    memory: int
    reasons: tuple[str, ...]


def parse_bytes(text: str) -> int:
    """Bytes from a size as people write it: `8GB` is 8 * 10^9, `8GiB` 8 * 2^30.

    Raises
    ------
    InputError: the text is not a size.
    """
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]+)?)\s*([kmgt]?)(i?)b?", text.strip().lower())
    if match is None or float(match[1]) == 0 or (match[3] and not match[2]):
        raise InputError(f"{text!r} is not a size; write one as 8GB, 500MB or 16GiB.")
    return int(float(match[1]) * (1024 if match[3] else 1000) ** _UNITS[match[2]])


def choose_factory(passages: int, dimension: int, budget: int) -> Choice:
    """The index with the highest recall that fits into `budget` bytes.

    The kinds are tried in this order: the exact one, if it is also fast enough; HNSW, a graph over
    the full vectors; inverted lists with a byte for each number; inverted lists with product codes
    of fewer and fewer bytes, after a learned rotation (OPQ).

    Parameters
    ----------
    passages, dimension: number of vectors, and of numbers in each.
    budget: memory in bytes. The texts, and the full vectors by which candidates are ranked again,
        stay on the disk and do not count.

    Raises
    ------
    InputError: nothing fits, or what would fit cannot be trained from so few passages.
    """
    flat = passages * 4 * dimension
    weighed = []
    if passages <= _SCAN:
        weighed.append((EXACT, flat, "exact: all vectors, float32"))
    weighed.append(("HNSW32", flat + passages * _LINKS, "a graph over all vectors, float32"))
    cells = inverted_lists(passages)
    if cells:
        fixed = cells * (4 * dimension + _LIST)
        size = fixed + passages * (dimension + 8)
        weighed.append(
            (f"IVF{cells},SQ8", size, f"{cells:,} lists, a byte for each of {dimension} numbers")
        )
        for part in (2, 4, 8, 16, 32):
            code = dimension // part
            if dimension % part == 0 and passages >= FEWEST_PER_CENTROID * 256:
                size = fixed + 4 * dimension * (dimension + 256) + passages * (code + 8)
                what = f"{cells:,} lists, codes of {code} bytes"
                weighed.append((f"OPQ{code},IVF{cells},PQ{code}np", size, what))
    reasons = []
    for factory, size, what in weighed:
        fits = size <= budget
        reasons.append(
            f"{factory}: {what}, {size / passages:,.0f} bytes a passage, {_readable(size)} "
            f"{'fits into' if fits else 'is more than'} {_readable(budget)}"
        )
        if fits:
            return Choice(factory, size, tuple(reasons))
    raise InputError(
        f"{passages:,} passages of {dimension} dimensions do not fit into {_readable(budget)}; the "
        f"smallest index of them, {weighed[-1][0]}, takes {_readable(weighed[-1][1])}."
    )


def _readable(size: int) -> str:
    for power, unit in ((3, "GB"), (2, "MB"), (1, "kB")):
        if size >= 1000**power:
            return f"{size / 1000**power:,.1f} {unit}"
    return f"{size} bytes"


def inverted_lists(vectors: int) -> int:
    """A good number of inverted lists for so many vectors: a power of two, about four times the
    square root of their number, as Faiss's authors advise, with enough vectors to train each; 0 if
    there are too few vectors."""
    most = min(int(4 * vectors**0.5), vectors // FEWEST_PER_CENTROID)
    return 1 << most.bit_length() - 1 if most >= 16 else 0


@contextmanager
def faiss_errors(what: str, to_do: str) -> Iterator[None]:
    """Turn Faiss's errors into InputError: `what` went wrong, Faiss's reason, and what to do."""
    try:
        yield
    except (RuntimeError, MemoryError, IndexError, OverflowError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = " ".join(str(error).rpartition(": ")[2].split()) or type(error).__name__
        raise InputError(f"{what} ({reason}); {to_do}.") from None


@contextmanager
def silent(descriptor: int) -> Iterator[None]:
    """Silence what Faiss, which is C++, prints on standard output (1) or error (2)."""
    libc = ctypes.CDLL(None)
    libc.fflush(None)
    kept = os.dup(descriptor)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), descriptor)
        yield
        libc.fflush(None)
    finally:
        os.dup2(kept, descriptor)
        os.close(kept)


_EXAMPLES = "name one like Flat, HNSW32, IVF1024,SQ8 or OPQ48,IVF1024,PQ48"


def try_factory(factory: str, dimension: int, metric: str, passages: int) -> None:
    """Train and fill a small index of this kind, with a single inverted list and drawn vectors, so
    that a kind that cannot be trained is refused before the encoding.

    Raises
    ------
    InputError: as `make_index`, or Faiss cannot train it on so many passages.
    """
    import faiss

    make_index(factory, dimension, metric, passages)
    small = make_index(re.sub(r"IVF\d+", "IVF1", factory), dimension, metric, passages)
    if isinstance(small, faiss.IndexPreTransform):
        chain: Any = small.chain
        for number in range(chain.size()):
            transform = faiss.downcast_VectorTransform(chain.at(number))
            if isinstance(transform, faiss.OPQMatrix):
                transform.niter = transform.niter_pq_0 = 1
    count = min(passages, max(_TRIAL, _codes(small)))
    vectors = np.random.default_rng(0).standard_normal((count, dimension), dtype=np.float32)
    with (
        silent(2),
        faiss_errors(
            f"Faiss cannot train {factory!r} on {passages:,} passages of {dimension} dimensions",
            "choose another kind of index, such as Flat or HNSW32, or give more passages",
        ),
    ):
        small.train(vectors)
        small.add(vectors)


def make_index(factory: str, dimension: int, metric: str, passages: int) -> Any:
    """The empty, untrained Faiss index of a factory string.

    Product codes are trained with `np`, without sorting: otherwise Faiss would also sort them for a
    search by Hamming distance, which takes ten times as long and is not used here.

    Parameters
    ----------
    metric: `inner_product` or `l2`.
    passages: how many will be indexed, which are also those to train on.

    Raises
    ------
    InputError: Faiss knows no such index, it cannot be used here, or it needs more passages.
    """
    import faiss

    if re.search(r"(?<!\d)0+(?!\d)|\d{8}|HNSW(1(?!\d)|\d{4})", factory):
        # Faiss takes these, and then divides by 0 or fills the memory.
        raise InputError(f"{factory!r} has a number that is too small or too large; {_EXAMPLES}.")
    plain = re.sub(r"(?<!O)(PQ\d+(?:x\d+)?)(?=,|$)", r"\1np", factory)
    faiss_metric = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
    with faiss_errors(f"Faiss makes no index {factory!r} of {dimension} dimensions", _EXAMPLES):
        index: Any = faiss.index_factory(dimension, plain, faiss_metric)
    name = type(index).__name__
    if hasattr(index, "hnsw"):
        index.hnsw.efConstruction = _WALK
    if "NSG" in factory or "NNDescent" in factory:
        raise InputError(
            f"{factory!r} is a graph that ragbook does not build; choose HNSW32, the graph it does."
        )
    if any(word in name for word in ("Refine", "IDMap", "IVFPQR", "Binary")):
        raise InputError(
            f"{factory!r} is a {name}, which ragbook does not build; leave that part out, as "
            "candidates are ranked again by their full vectors in any case."
        )
    needed = _fewest(index)
    if passages < needed:
        raise InputError(
            f"{factory!r} needs {needed:,} passages to train on, and there are {passages:,}; "
            "choose fewer lists or shorter codes, or the exact index (Flat)."
        )
    if name == "IndexPreTransform":
        transform = faiss.downcast_VectorTransform(index.chain.at(0))
        if isinstance(transform, faiss.OPQMatrix):
            transform.niter, transform.niter_pq_0 = _OPQ_ROUNDS, 10
    return index


def inverted_file(index: Any) -> Any:
    """The inverted file inside an index, or None if there is none."""
    import faiss

    return faiss.try_extract_index_ivf(index)


def _lists(index: Any) -> int:
    """How many inverted lists an index has."""
    inverted = inverted_file(index)
    return 0 if inverted is None else inverted.nlist


def _codes(index: Any) -> int:
    """How many learned values a byte of a product code has; 0 for other codes."""
    import faiss

    inner: Any = faiss.downcast_index(inverted_file(index) or index)
    if isinstance(inner, faiss.IndexHNSW):
        inner = faiss.downcast_index(inner.storage)
    return inner.pq.ksub if hasattr(inner, "pq") else 0


def _fewest(index: Any) -> int:
    """The fewest passages that an index can be trained on."""
    return FEWEST_PER_CENTROID * max(_lists(index), _codes(index))


def training_size(index: Any, passages: int) -> int:
    """How many passages an index is trained on: 64 for each list and 256 for each value of a code,
    or all if there are fewer."""
    return min(passages, max(64 * _lists(index), 256 * _codes(index), 65_536))
