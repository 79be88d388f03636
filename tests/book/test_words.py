"""What is written by hand about the comparison: no number and no order that a new table could
leave behind."""

import re
from pathlib import Path

import jupytext
import pytest

ROOT = Path(__file__).resolve().parents[2]
CHAPTER = ROOT / "book" / "07-side-by-side.py"
ALIKE = ("RAG-Sequence", "RAG-Token", "FiD", "in-context retrieval")
ORDER = re.compile(
    r"\b(ahead|behind|best|worst|quickest|slowest|smallest|largest|hardly|nearly|half of|"
    r"three times|\w+ times in \w+|gains?|overlap)\b",
    re.I,
)
WON = re.compile(
    r"(?:REALM|FiD|RAG-\w+|RAGs?|kNN-LM|closed-book reader)\b[^.:]* (?:is|are) (?:ahead|behind)"
)
GIVEN = re.compile(r"95 %|100 %|\bat 50\b|float32")  # intervals, all questions, a coin, a format


def cells(kind):
    return [cell for cell in jupytext.read(CHAPTER).cells if cell.cell_type == kind]


def test_a_caption_says_what_is_plotted_and_not_who_wins():
    captions = [
        cell.metadata["mystnb"]["figure"]["caption"]
        for cell in cells("code")
        if "figure" in cell.metadata.get("mystnb", {})
    ]
    assert len(captions) > 10
    for caption in captions:
        assert not ORDER.search(caption), caption
        assert not re.search(r"\d", GIVEN.sub("", caption)), caption


def test_prose_states_no_measured_number_and_no_winner():
    """A share, a difference or an order is printed by a cell; exercises have made-up ones."""
    for cell in cells("markdown"):
        text, *_ = cell.source.split("## Exercises")
        assert not re.search(r"\d ?(?:%|points)", GIVEN.sub("", text)), text
        assert not WON.search(text), text


PENALTY = "differ only in how they combine the passages (and in a length penalty tuned for each)"


@pytest.mark.parametrize(
    ("name", "claim"),
    [
        ("README.md", PENALTY),
        ("book/index.md", PENALTY),
        ("book/manual.md", PENALTY),
        (
            "book/07-side-by-side.py",
            "a length penalty of 0, they differ only in how they combine the passages",
        ),
    ],
)
def test_what_differs_in_one_thing_alone(name, claim):
    """True of the methods that share all of the reader, with the same weights, and of no other."""
    text = (ROOT / name).read_text(encoding="utf-8").replace("\n#", "\n")
    text = " ".join(text.split())
    places = [match.start() for match in re.finditer(re.escape(claim), text)]
    assert len(places) == 1
    before = text[: places[0]]
    around = before[max(before.rfind(";", 0, -1), before.rfind(". ", 0, -1), 0) - 120 :]
    assert [method for method in ALIKE if method not in around] == []
    assert re.search("same weights", before, re.I)


@pytest.mark.parametrize("name", ["README.md", "book/index.md"])
def test_the_first_picture_is_of_both_tables(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert "results/landing.png" in text
    assert "side_by_side.png" not in text
