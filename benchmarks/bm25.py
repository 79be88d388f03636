"""BM25 compared with bm25s alone, from the same inverted lists.

`python benchmarks/bm25.py [PASSAGES ...]` (by default 1806 30000) takes MiniWiki's passages, or as
many as are asked for, of which those beyond MiniWiki's are its sentences in another order, and
MiniWiki's test questions. bm25s tokenises the questions and retrieves (its own `retrieve`, without
passages or threads); `BM25Retriever` does the same and also gives the passages. Then it compares
what a process does before its first question: build the lists, or read those that are kept.
`--store FILE` keeps the comparisons with bm25s as sections `bm25-PASSAGES`.
"""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from rounds import Difference, compare, keep, options

from ragbook.corpus import Corpus, Passage, miniwiki
from ragbook.retrieval import BM25Retriever
from ragbook.retrieval.inverted import build, kept, terms

QUESTIONS, K = 200, 5


def corpus_of(count: int) -> Corpus:
    """MiniWiki, cut or made longer by passages of as many of its sentences."""
    passages = list(miniwiki.corpus())[:count]
    sentences = [s for p in passages for s in p.text.split(". ")]
    rng = random.Random(0)
    for number in range(len(passages), count):
        text = ". ".join(rng.sample(sentences, 5))
        passages.append(Passage(f"drawn-{number}", passages[number % 1000].title, text))
    return Corpus(f"{count}", passages)


def main() -> None:
    """Print the comparisons, and store them if asked."""
    store, arguments = options()
    counts = [*map(int, arguments)] or [1806, 30_000]
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

            def apart(found=found) -> Difference:
                gap = np.abs(np.array(found["ragbook"]) - found["bm25s"]).max()
                return "greatest difference of the scores", gap, 1e-4

            what = f"{len(questions)} questions, {len(corpus):,} passages, k = {K}"
            sides = {"bm25s": alone, "ragbook": ours}
            keep(store, f"bm25-{count}", compare(what, sides, ["bm25s"], apart))
            begin = {
                "lists built": partial(build, corpus),
                "lists read": partial(kept, corpus, path),
            }
            compare(f"before the first question, {len(corpus):,} passages", begin)


if __name__ == "__main__":
    main()
