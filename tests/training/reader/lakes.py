"""A few passages about lakes and hills that do not exist, and questions about them."""

from ragbook.corpus import Corpus, Passage, Question
from ragbook.training.reader.examples import GoldExamples

SHOWN = (
    Passage("a", "Velm", "Ilsa Brenkov charted Velm in 1873. Ilsa Brenkov drew it too."),
    Passage("b", "Orm", "Orm was charted by Tor Halst."),
    Passage("c", "Lake Ist", "The lake was first seen by Ilsa Brenkov."),
)
ASKED = [
    Question("Who charted Velm?", ("Ilsa Brenkov",), "a"),
    Question("When was Velm charted?", ("1873",), "a"),
]


def few_examples() -> GoldExamples:
    """Examples from these passages and nine others."""
    others = [Passage(str(i), f"Hill {i}", f"Hill {i} was climbed in 19{i:02}.") for i in range(9)]
    return GoldExamples(Corpus("lakes", [*SHOWN, *others]), ASKED)
