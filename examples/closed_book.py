"""Closed-book: the reader answers from its weights alone, without any passage.

    python examples/closed_book.py

It is the baseline of every method that retrieves: the difference to it is what passages add.
"""

from ragbook import ClosedBook, Question, load_reader

QUESTIONS = [
    Question("In what English county did HMS Beagle lie as a coastguard ship?", ("Essex",)),
    Question("Which blind king died fighting against the English in 1346?", ("John of Bohemia",)),
    Question("Which of Akira Kurosawa's brothers worked in silent cinema?", ("Heigo",)),
]


def main() -> None:
    """Build the method from its reader, ask three questions, print the answers."""
    method = ClosedBook(load_reader(), beams=2, max_length=16)

    for answer in method.answer(QUESTIONS):
        print(f"{answer.question} {answer.text} (log p = {answer.log_prob:.2f})")
        assert not answer.evidence  # nothing was retrieved


if __name__ == "__main__":
    main()
