"""The exercises of chapter 12: what agreement says, a vote, and questions in a file."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from ragbook import load_questions
from ragbook.errors import InputError

from . import exercise

ROWS = [
    ("Where does the Elbe rise?", ["the Giant Mountains"], "rivers/elbe.md"),
    ('Who is called "the Great", and why?', ["Otto", "Otto I"], "kings.md"),
    ("Which towns, if any?", ["Dresden, Magdeburg"], "rivers/elbe.md"),
]


@exercise
def bound(answer: Callable[[float], float]) -> None:
    """Gives 1 + a: both right where they agree, one of them where they differ."""
    for share in (0.0, 0.25, 0.8, 1.0):
        found = answer(share)
        assert not math.isclose(found, 2 * share) or share == 1, (
            "where two answers differ, one of them can still be right"
        )
        assert math.isclose(found, 1 + share), (
            f"with a = {share} both can be right on {share:.0%} of the questions, and one of the "
            f"two on the others: the sum is at most {1 + share:.0%}"
        )


@exercise
def majority(
    answer: Callable[[Sequence[Sequence[str]]], Sequence[str | None]],
) -> None:
    """Finds the answers that more than half of the methods give, after normalisation."""
    given = [
        ["The Elbe", "Rhine", "elbe."],
        ["23 metres", "23 m", "23", "24"],
        ["Oslo", "Bergen", "Oslo", "Bergen"],
        ["Rome", "Paris", "Paris", "paris", "Rome"],
    ]
    found = list(answer(given))
    assert len(found) == 4, "there is an answer, or None, for each question"
    assert found[0] is not None, (
        'the first and the last method agree: normalise, and "The Elbe" and "elbe." are the same'
    )
    assert found[2] is None, (
        "two of four methods are not more than half of them"
    )
    assert found == ["The Elbe", None, None, "Paris"], (
        "the first question has a majority for the first wording, The Elbe, and the last one for "
        f"Paris; the others have none; you returned {found}"
    )


@exercise
def csv(
    answer: Callable[[Path, Sequence[tuple[str, Sequence[str], str]]], None],
) -> None:
    """Writes a file from which `load_questions` reads the same questions, answers and gold ids."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "questions.csv"
        answer(path, ROWS)
        assert path.exists(), "there is no file at the path that it was given"
        try:
            read = list(load_questions(path))
        except InputError as error:
            raise AssertionError(
                f"load_questions cannot read the file: {error}"
            ) from error
    assert [q.text for q in read] == [row[0] for row in ROWS], (
        "the questions are not the same; does a comma or a quotation mark end one too early?"
    )
    assert [list(q.answers) for q in read] == [row[1] for row in ROWS], (
        "the answers are not the same: write each list as JSON, "
        'e.g. ["Otto", "Otto I"], in the column `answer`'
    )
    assert [q.gold_passage for q in read] == [row[2] for row in ROWS], (
        "the gold ids are not the same: they are in the column `gold`"
    )
