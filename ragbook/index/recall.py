"""The recall of an approximate index compared with an exact one, measured when it is built.

Real questions are not known at that time. Instead, a question is made from a passage: a run of its
words, as in the inverse cloze task (Lee et al. 2019), encoded by the question tower.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ragbook.corpus import Passage
from ragbook.index.encoding import Vectors
from ragbook.index.factories import inverted_file
from ragbook.index.parts import CANDIDATES, Found, Part, best, effort_name

if TYPE_CHECKING:
    from ragbook.models import Encoder

QUESTIONS, WORDS, K = 200, 12, 10
TARGET = 0.95
"""The recall that is enough: the least of the EFFORTS that reaches it is chosen, or the greatest if
none does."""

EFFORTS = {"nprobe": (1, 2, 4, 8, 16, 32, 64, 128), "efSearch": (16, 32, 64, 128, 256)}
_BLOCK = 65_536


def measured_recall(
    parts: list[Part], vectors: Vectors, passages: Sequence[Passage], encoder: Encoder
) -> dict[str, Any]:
    """Recall@10 of an index on questions made from its own passages, with rising `EFFORTS` until
    one reaches `TARGET`.

    Returns
    -------
    A dictionary with `effort`, the last one tried (left out if a search always goes through the
    whole index), and `recall`: `k`, `questions`, `candidates` and `at`, the mean share of the exact
    k best that is found, for every effort tried.
    """
    rng = np.random.default_rng(0)
    chosen = rng.choice(len(passages), min(QUESTIONS, len(passages)), replace=False)
    questions = []
    for position in chosen.tolist():
        words = passages[position].text.split()
        first = int(rng.integers(0, max(1, len(words) - WORDS + 1)))
        questions.append(" ".join(words[first : first + WORDS]))
    queries = np.ascontiguousarray(encoder.encode_queries(questions), dtype=np.float32)
    k = min(K, len(passages))
    _, expected = search_exactly(vectors, queries, k, parts[0].metric)
    at: dict[str, float] = {}
    for effort in _efforts(parts[0]):
        for part in parts:
            part.look_into(effort)
        _, found = best([part.search(queries, k) for part in parts], k)
        share = at["all" if effort is None else str(effort)] = share_found(found, expected)
        if share >= TARGET or effort is None:
            break
    recall = {"k": k, "questions": len(questions), "candidates": CANDIDATES, "at": at}
    return {"recall": recall} | ({} if effort is None else {"effort": effort})


def _efforts(part: Part) -> list[int | None]:
    """The efforts to try, rising, none greater than the number of inverted lists; [None] for an
    index without such a setting."""
    name = effort_name(part.index)
    if name is None:
        return [None]
    most = inverted_file(part.index).nlist if name == "nprobe" else max(EFFORTS[name])
    return [effort for effort in EFFORTS[name] if effort <= most]


def share_found(found: np.ndarray, expected: np.ndarray) -> float:
    """The mean share of the expected positions [B, k] that are among those found [B, k]."""
    shares = [np.isin(e, f).mean() for f, e in zip(found, expected, strict=True)]
    return round(float(np.mean(shares)), 4)


def search_exactly(vectors: Vectors, queries: np.ndarray, k: int, metric: str) -> Found:
    """The exact k best of vectors on the disk, which are read a block at a time."""
    import faiss

    faiss_metric = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
    kept: list[Found] = []
    for number, block in enumerate(vectors.blocks(0, len(vectors), _BLOCK)):
        scores, rows = faiss.knn(queries, block, min(k, len(block)), metric=faiss_metric)
        found = (-scores if metric == "l2" else scores, rows + number * _BLOCK)
        kept = [best([*kept, found], k)]
    return kept[0]
