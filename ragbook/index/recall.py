"""How much an approximate index finds of what an exact one would, measured when it is built.

Nobody's questions are known then. A question is made of a passage instead: some words of it in a
row, as the inverse cloze task makes them (Lee et al. 2019), encoded by the question's tower.
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
"""The recall at which an index looks no further; where none reaches it, it looks as far as the last
of these:"""

EFFORTS = {"nprobe": (1, 2, 4, 8, 16, 32, 64, 128), "efSearch": (16, 32, 64, 128, 256)}
_BLOCK = 65_536


def measured_recall(
    parts: list[Part], vectors: Vectors, passages: Sequence[Passage], encoder: Encoder
) -> dict[str, Any]:
    """Recall@10 of an index on questions made of its own passages, at every effort of `EFFORTS`
    that it has the lists for; and the least effort that reaches `TARGET`, or the greatest.

    Returns
    -------
    `effort` (not for an index that always looks at all it has) and `recall`: `k`, `questions`,
    `candidates` and `at`, the mean share of the exact k that is found, for every effort.
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
    """The efforts to try, rising; of inverted lists no more than there are. None: there is none."""
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
    """The exact k best of vectors on the disk, a block at a time."""
    import faiss

    faiss_metric = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
    kept: list[Found] = []
    for number, block in enumerate(vectors.blocks(0, len(vectors), _BLOCK)):
        scores, rows = faiss.knn(queries, block, min(k, len(block)), metric=faiss_metric)
        found = (-scores if metric == "l2" else scores, rows + number * _BLOCK)
        kept = [best([*kept, found], k)]
    return kept[0]
