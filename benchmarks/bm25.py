"""BM25 compared with bm25s alone, from the same inverted lists.

`python benchmarks/bm25.py [PASSAGES ...]` (by default 1806 30000) takes MiniWiki's passages, or as
many as are asked for, of which those beyond MiniWiki's are its sentences in another order, and
MiniWiki's test questions. bm25s tokenises the questions and retrieves (its own `retrieve`, without
passages or threads); `BM25Retriever` does the same and also gives the passages. Then it compares
what a process does before its first question: build the lists, or read those that are kept.
"""

from __future__ import annotations

import random
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from rounds import heading, in_turn, show

from ragbook.corpus import Corpus, Passage, miniwiki
from ragbook.retrieval import BM25Retriever
from ragbook.retrieval.inverted import build, kept, terms

QUESTIONS, K, ROUNDS = 200, 5, 7


def corpus_of(count: int) -> Corpus:
    """MiniWiki, cut or made longer by passages of as many of its sentences."""
    passages = list(miniwiki.corpus())[:count]
    sentences = [s for p in passages for s in p.text.split(". ")]
    rng = random.Random(0)
    for number in range(len(passages), count):
        text = ". ".join(rng.sample(sentences, 5))
        passages.append(Passage(f"drawn-{number}", passages[number % 1000].title, text))
    return Corpus(f"{count}", passages)


def main(counts: list[int]) -> None:
    """Print the comparisons."""
    questions = list(miniwiki.questions("test").head(QUESTIONS))
    for count in counts:
        corpus = corpus_of(count)
        with TemporaryDirectory() as folder:
            retriever = BM25Retriever(corpus, Path(folder))
            (path,) = Path(folder).glob("*.safetensors")
            library, found = retriever._bm25, {}

            def alone(library=library, found=found) -> None:
                asked = terms([question.text for question in questions])
                found["bm25s"] = library.retrieve(asked, k=K, show_progress=False).scores

            def ours(retriever=retriever, found=found) -> None:
                found["ragbook"] = [one.scores for one in retriever.retrieve(questions, K)]

            alone(), ours()  # once before the time is measured
            heading(f"{len(questions)} questions, {len(corpus):,} passages, k = {K}", "bm25s")
            show(in_turn({"bm25s": alone, "ragbook": ours}, ROUNDS), "bm25s", 1000, "ms")
            apart = np.abs(np.array(found["ragbook"]) - found["bm25s"]).max()
            print(f"  scores at most {apart:.1e} apart")
            begin = {
                "lists built": partial(build, corpus),
                "lists read": partial(kept, corpus, path),
            }
            heading(f"before the first question, {len(corpus):,} passages", "lists built")
            show(in_turn(begin, ROUNDS if count < 100_000 else 5), "lists built")


if __name__ == "__main__":
    main([*map(int, sys.argv[1:])] or [1806, 30_000])
