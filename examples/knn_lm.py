"""kNN-LM (Khandelwal et al. 2020): a language model whose next word is also looked up.

    python examples/knn_lm.py [INDEX]

INDEX is a folder that `ragbook index build` wrote. Without it the index of MiniWiki is built as
`build/index`, once, which takes about a minute; after that a run takes seconds.
"""

import sys

from ragbook import (
    DenseRetriever,
    KnnLM,
    PassageIndex,
    Question,
    build_index,
    load_corpus,
    load_encoder,
    load_language_model,
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

    # The retrieved passages are the datastore: every context in them with the token after it. At
    # each step p(token) = lam * p_kNN(token) + (1 - lam) * p_LM(token); the temperature divides
    # the squared distances. Both values were tuned on MiniWiki's dev questions.
    method = KnnLM(load_language_model(), retriever, lam=0.6, temperature=10.0, verbatim=True)

    for answer in method.answer(QUESTIONS, k=5):
        print(f"{answer.question} {answer.text} (log p = {answer.log_prob:.2f})")
        for evidence in answer.evidence:
            print(f"    {evidence.weight:.3f}  {evidence.passage_id}")


if __name__ == "__main__":
    main()
