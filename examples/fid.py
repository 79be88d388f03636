"""Fusion-in-Decoder (Izacard and Grave 2021): the decoder reads all passages at once.

    python examples/fid.py [INDEX]

INDEX is a folder that `ragbook index build` wrote. Without it the index of MiniWiki is built as
`build/index`, once, which takes about a minute; after that a run takes seconds.
"""

import sys

from ragbook import (
    DenseRetriever,
    FiD,
    PassageIndex,
    Question,
    build_index,
    load_corpus,
    load_encoder,
    load_reader,
)

QUESTIONS = [
    Question("In what English county did HMS Beagle lie as a coastguard ship?", ("Essex",)),
    Question("Which blind king died fighting against the English in 1346?", ("John of Bohemia",)),
    Question("Which of Akira Kurosawa's brothers worked in silent cinema?", ("Heigo",)),
]


def main() -> None:
    """Build the method from its parts, ask three questions, print answers and evidence."""
    encoder = load_encoder()
    if len(sys.argv) > 1:
        index = PassageIndex.open(sys.argv[1])
    else:
        index = build_index(load_corpus("miniwiki"), "build/index", encoder)
    retriever = DenseRetriever(index, encoder)

    # Each passage is encoded by itself; the decoder attends to the states of all of them together.
    # With `verbatim` an answer is a run of words of a passage; without it the reader writes freely.
    method = FiD(load_reader(method="fid"), retriever, verbatim=True)

    for answer in method.answer(QUESTIONS, k=5):
        print(f"{answer.question} {answer.text} (log p = {answer.log_prob:.2f})")
        for evidence in answer.evidence:
            print(f"    {evidence.weight:.3f}  {evidence.passage_id}")


if __name__ == "__main__":
    main()
