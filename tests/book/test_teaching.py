"""The teacher's page: a lecture for every chapter, and a plan in which each has its place."""

import re
from pathlib import Path

BOOK = Path(__file__).resolve().parents[2] / "book"
TEXT = (BOOK / "teaching.md").read_text(encoding="utf-8")
LECTURES = re.findall(r"^## (\d+)\. ([^\n]+)\n(.*?)(?=^## )", TEXT, re.S | re.M)


def test_every_chapter_has_its_lecture():
    chapters = [path.stem for path in sorted(BOOK.glob("[0-9]*.py"))]
    found = [re.findall(r"\*Chapter:\* \{doc\}`([\w-]+)`", text) for _, _, text in LECTURES]
    assert found == [[chapter] for chapter in chapters]
    assert [int(number) for number, _, _ in LECTURES] == [int(c[:2]) for c in chapters]


def test_every_lecture_has_aims_an_order_two_questions_and_an_exercise():
    for number, _, text in LECTURES:
        parts = re.findall(r"^\*(\w+)[.:]\*", text, re.M)
        assert parts == ["Chapter", "Aims", "Show", "Ask", "Exercise"], number
        asked = text.split("*Ask.*")[1].split("*Exercise.*")[0]
        assert len(re.findall(r"\?\s+\*\(.+?\)\*", asked, re.S)) == 2, number
        shown = text.split("*Show.*")[1].split("*Ask.*")[0]
        steps = [int(step) for step in re.findall(r"\((\d)\)", shown)]
        assert steps == list(range(1, len(steps) + 1)), number
        assert len(steps) > 3, number


def test_the_plan_has_every_lecture_once():
    rows = re.findall(r"^\| (\d) \| ([^|]+) \|", TEXT, re.M)
    assert [int(week) for week, _ in rows] == [1, 2, 3, 4, 5, 6]
    planned = [int(n) for _, lectures in rows for n in re.findall(r"(\d+) [A-Zk]", lectures)]
    assert sorted(planned) == list(range(1, 13))


def test_no_measured_number_is_stated():
    assert not re.search(r"\d ?%|\d points", TEXT)
    assert (BOOK / "_tools" / "slides.py").exists()
    assert "  - file: teaching" in (BOOK / "_toc.yml").read_text(encoding="utf-8")
