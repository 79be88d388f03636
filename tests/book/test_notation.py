"""The pages of symbols and terms, and what each method's chapter asks its reader to remember."""

import re
from pathlib import Path

import jupytext
import pytest

BOOK = Path(__file__).resolve().parents[2] / "book"
METHODS = sorted(BOOK.glob("0[3-8]-*.py"))


def prose(path):
    """A chapter's Markdown."""
    cells = jupytext.read(path).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def formulas(text):
    return re.findall(r"\$\$(.+?)\$\$|\$([^$\n]+)\$", text, re.S)


def test_every_equation_that_the_notation_names_is_in_the_chapter_it_names():
    rows = re.findall(r"^\|.*\|$", (BOOK / "notation.md").read_text(encoding="utf-8"), re.M)
    named = 0
    for row in rows:
        chapters = re.findall(r"\{doc\}`[^`<]*<(\d\d[\w-]+)>`", row)
        for label in re.findall(r"\{eq\}`([\w-]+)`", row):
            places = [p.stem for p in BOOK.glob("[0-9]*.py") if f"$$ ({label})" in prose(p)]
            assert len(places) == 1, label
            named += places[0] in chapters
    assert named > 20


def test_a_symbol_has_one_meaning():
    """N is the corpus's size and no set; T is no length and no temperature; passages end with z_k;
    vectors are e."""
    for path in BOOK.glob("[0-9]*.py"):
        for pair in formulas(prose(path)):
            formula = " ".join(pair)
            other = r"\\in N\b|z_n\b|z_N\b|H_n\b|t=1\}\^T|q\^\\top|\bT\b"
            assert not re.search(other, formula), formula


def test_the_glossary_is_in_order_and_every_term_has_a_sentence():
    text = (BOOK / "glossary.md").read_text(encoding="utf-8")
    body = text.split("```{glossary}\n")[1].split("\n```")[0]
    entries = [entry.split("\n") for entry in body.split("\n\n")]
    terms = [first for first, *_ in entries]
    assert len(terms) > 40
    assert terms == sorted(terms, key=str.lower)
    assert len({term.lower() for term in terms}) == len(terms)
    for term, *lines in entries:
        assert not term.startswith((" ", ":"))
        assert lines, term
        assert all(line.startswith("  ") for line in lines), term
        assert lines[-1].endswith("."), term
    known = {term.lower() for term in terms}
    for used in re.findall(r"\{term\}`([^`]+)`", text):
        assert used.lower() in known


@pytest.mark.parametrize("path", METHODS, ids=lambda path: path.stem)
def test_what_to_remember_comes_before_the_exercises(path):
    headings = re.findall(r"^## (.+)$", prose(path), re.M)
    assert headings[headings.index("Exercises") - 1] == "What to remember"
    summary = prose(path).split("## What to remember")[1].split("## Exercises")[0]
    plain = re.sub(r"\{doc\}`[^`]*`", "", summary)
    assert 3 <= len(re.findall(r"[a-z)`](?: \)|\))?\.(?=\s)", plain)) <= 6
    assert not re.search(r"\d ?%|\d points", summary)  # a measured number is printed by a cell
