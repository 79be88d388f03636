"""The chapters: each has its text form, was executed top to bottom, and shows no error."""

from pathlib import Path

import jupytext
import nbformat
import pytest
from jupytext.compare import compare_notebooks

BOOK = Path(__file__).resolve().parents[2] / "book"
NOTEBOOKS = sorted(BOOK.glob("*.ipynb"))
SOLUTIONS = sorted(BOOK.glob("solutions/*.ipynb"))


def test_there_are_chapters():
    assert len(NOTEBOOKS) == 12
    assert [p.stem for p in NOTEBOOKS] == [p.stem for p in sorted(BOOK.glob("[0-9]*.py"))]


@pytest.mark.parametrize("path", NOTEBOOKS + SOLUTIONS, ids=lambda p: p.stem)
def test_text_and_notebook_say_the_same(path):
    text, notebook = jupytext.read(path.with_suffix(".py")), jupytext.read(path)
    compare_notebooks(text, notebook, fmt="py:percent")


def test_every_solution_has_a_chapter_and_both_forms():
    texts = sorted(BOOK.glob("solutions/[0-9]*.py"))
    assert [p.stem for p in SOLUTIONS] == [p.stem for p in texts]
    assert {p.stem for p in SOLUTIONS} <= {p.stem for p in NOTEBOOKS}


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda p: p.stem)
def test_every_solution_is_right(path):
    said = "".join(
        output.text
        for cell in nbformat.read(path, as_version=4).cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.output_type == "stream"
    )
    assert "Right." in said
    assert "Not right" not in said
    assert "Not written" not in said


@pytest.mark.parametrize("path", NOTEBOOKS + SOLUTIONS, ids=lambda p: p.stem)
def test_every_cell_was_executed_in_order(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [c for c in notebook.cells if c.cell_type == "code" and c.source.strip()]
    assert [c.execution_count for c in code] == list(range(1, len(code) + 1))
    outputs = [o for c in code for o in c.outputs]
    assert outputs
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_picture_carries_its_numbers(path):
    """nbval does not compare pixels: every picture needs the plotted numbers as its text form."""
    notebook = nbformat.read(path, as_version=4)
    pictures = [
        o
        for c in notebook.cells
        if c.cell_type == "code"
        for o in c.outputs
        if "image/png" in o.get("data", {})
    ]
    assert pictures
    for picture in pictures:
        text = picture.data["text/plain"]
        assert any(character.isdigit() for character in text)
        assert "0x" not in text
