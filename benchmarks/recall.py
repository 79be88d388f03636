"""Recall of the retrievers on MiniWiki: the table in its data card.

`python benchmarks/recall.py [SPLIT]` prints recall@1, @5 and @20 of BM25, the dense retriever and
their hybrid on the split's questions (by default test), with half the width of the 95 % interval
by the normal approximation.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

from ragbook.corpus import miniwiki
from ragbook.evaluation import recall_at_k
from ragbook.index import build_index
from ragbook.models import load_encoder
from ragbook.retrieval import BM25Retriever, DenseRetriever, HybridRetriever, Retriever


def main(split: str = "test") -> None:
    """Print one line for each retriever."""
    corpus, questions, encoder = miniwiki.corpus(), miniwiki.questions(split), load_encoder()
    index = build_index(corpus, Path("build/index"), encoder, progress=False)
    bm25, dense = BM25Retriever(corpus), DenseRetriever(index, encoder)
    retrievers: tuple[Retriever, ...] = (bm25, dense, HybridRetriever(dense, bm25))
    for retriever in retrievers:
        found = retriever.retrieve(questions, 20)
        cells = []
        for k in (1, 5, 20):
            share = recall_at_k(questions, found, k)
            half = 1.96 * math.sqrt(share * (1 - share) / len(questions))
            cells.append(f"@{k} {100 * share:.1f} ± {100 * half:.1f}")
        print(f"{retriever.name:<8} n = {len(questions)}  {'   '.join(cells)}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
