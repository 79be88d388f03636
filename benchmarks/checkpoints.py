"""Which checkpoints load and answer: `python benchmarks/checkpoints.py` prints the table.

Every layout as a small random checkpoint, saved and loaded again. Readers answer 50 MiniWiki
questions by all methods that they can serve; encoders build an index and search it for the same
questions. The weights are random, so the table says that a layout works and nothing about quality.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the tests' checkpoints

from ragbook import (
    Corpus,
    QuestionSet,
    build_index,
    compare,
    load_corpus,
    load_encoder,
    load_questions,
    load_reader,
    methods,
)
from ragbook.retrieval import BM25Retriever, DenseRetriever
from tests.checkpoints import CAUSAL, SEQ2SEQ, write_checkpoint
from tests.models.test_loading import PUBLISHED
from tests.models.tiny_encoders import write_plain

QUESTIONS, K, MAX_LENGTH = 50, 2, 4
ENCODERS = ("BertModel", "DistilBertModel", "RobertaModel", "MPNetModel")


def main() -> None:
    """Print both tables."""
    asked = QuestionSet("some", "dev", load_questions("miniwiki", "dev")[:QUESTIONS])
    gold = {question.gold_passage for question in asked}
    corpus = Corpus("some", [p for p in load_corpus("miniwiki") if p.id in gold])
    retriever = BM25Retriever(corpus)
    print("| reader | class | methods | answers | different | nats an answer, rag-token |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for name in (*SEQ2SEQ, *PUBLISHED, *CAUSAL):
        with tempfile.TemporaryDirectory() as place:
            if name in PUBLISHED:
                PUBLISHED[name](Path(place))
            else:
                write_checkpoint(Path(place), name)
            served = [one for one in methods.NAMES if one not in methods.left_out(place)]
            made = methods.load(served, retriever, True, place, max_length=MAX_LENGTH)
            kind = type(load_reader(place)).__name__
            found = compare(made, asked, k=K, progress=False)
        texts = [line["methods"][m]["text"] for line in found.predictions for m in served]
        nats = found.results["methods"]["rag-token"]["answer_nll"]
        counts = f"{len(served)} | {len(texts)} | {len(set(texts))}"
        print(f"| {name} | {kind} | {counts} | {nats:.2f} |", flush=True)
    print("\n| encoder | pooling | dimension | recall@5 (%) |\n| --- | --- | ---: | ---: |")
    for layout in ENCODERS:
        for pooling in ("mean", "cls", "last"):
            with tempfile.TemporaryDirectory() as place:
                folder = write_plain(Path(place) / "encoder", layout)
                encoder = load_encoder(folder, pooling)
                index = build_index(corpus, Path(place) / "index", encoder, progress=False)
                hits = [
                    question.gold_passage in one.ids
                    for question, one in zip(
                        asked, DenseRetriever(index, encoder).retrieve(list(asked), 5), strict=True
                    )
                ]
            share = 100 * sum(hits) / len(hits)
            print(f"| {layout} | {pooling} | {encoder.dimension} | {share:.0f} |", flush=True)


if __name__ == "__main__":
    main()
