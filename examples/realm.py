"""REALM (Guu et al. 2020): the answer is a span of a passage, summed over the passages.

    python examples/realm.py [INDEX]

INDEX is a folder that `ragbook index build` wrote. Without it the index of MiniWiki is built as
`build/index`, once, which takes about a minute; after that a run takes seconds.
"""

import sys

from ragbook import (
    DenseRetriever,
    PassageIndex,
    Question,
    Realm,
    build_index,
    load_corpus,
    load_encoder,
    load_span_reader,
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

    # p(y | x) is the sum over passages z of p(z | x) * p(y | z, x), where y is a span of z.
    method = Realm(load_span_reader(method="realm"), retriever)

    for answer in method.answer(QUESTIONS, k=5):
        print(f"{answer.question} {answer.text} (log p = {answer.log_prob:.2f})")
        for evidence in answer.evidence:
            print(f"    {evidence.weight:.3f}  {evidence.passage_id}")


if __name__ == "__main__":
    main()
