"""The line under each output: what is stored is said to be, with its command and date."""

import ast
import json
import re
from pathlib import Path
from types import SimpleNamespace

import jupytext
import origins
import pytest

BOOK = Path(__file__).resolve().parents[2] / "book"
CHAPTERS = sorted(BOOK.glob("[0-9]*.py"))
MADE = [
    {
        "files": {"table.json": {"date": "2026-11-02", "sha256": "0"}},
        "steps": ["make it build/out/table", "cp build/out/table/a.json book/results/table.json"],
    },
    {
        "files": {
            "old.json": {"date": "2026-10-31", "sha256": "0"},
            "old-too.json": {"date": "2026-10-30", "sha256": "0"},
        },
        "steps": ["first", "write build/out/old-too", "write build/out/old"],
        "measured_on": "other questions",
    },
]


def code(source, *tags, said="3\n"):
    outputs = [{"output_type": "stream", "name": "stdout", "text": [said]}] if said else []
    metadata = {"tags": list(tags)}
    return {"cell_type": "code", "source": [source], "metadata": metadata, "outputs": outputs}


def added(tmp_path, *cells):
    """The chapter's cells after the extension, those that it added as text."""
    (tmp_path / "results").mkdir(exist_ok=True)
    (tmp_path / "results" / "made.json").write_text(json.dumps(MADE))
    source = [json.dumps({"cells": list(cells)})]
    origins.add(SimpleNamespace(srcdir=tmp_path), "chapter", source)
    return [
        "".join(cell["source"]) if cell["cell_type"] == "markdown" else cell
        for cell in json.loads(source[0])["cells"]
    ]


def test_what_is_stored_names_its_command_and_date(tmp_path):
    cell = code("print(found)", "hide-input", "stored-table")
    shown = added(tmp_path, cell)
    assert shown[0] == cell
    assert shown[1:] == [
        ":::{div} origin\nStored: made by `make it build/out/table` on 2 November 2026.\n:::"
    ]


def test_an_old_measurement_says_on_what_and_each_file_has_its_command(tmp_path):
    _, text = added(tmp_path, code("found", "stored-old-too", "stored-table"))
    assert "made by 2 commands from 30 October 2026 to 2 November 2026</summary>" in text
    assert "* `write build/out/old-too` on 30 October 2026 (measured on other questions)\n" in text
    assert "* `make it build/out/table` on 2 November 2026\n" in text
    _, text = added(tmp_path, code("found", "stored-old"))
    assert "`write build/out/old` on 31 October 2026" in text


def test_files_of_one_making_are_named_once(tmp_path):
    MADE[0]["files"]["more.json"] = {"date": "2026-11-02", "sha256": "0"}
    _, text = added(tmp_path, code("found", "stored-table", "stored-more"))
    del MADE[0]["files"]["more.json"]
    assert text.count("make it") == 1


def test_other_outputs_were_computed_on_the_page(tmp_path):
    picture = code("draw()", said="")
    picture["outputs"] = [{"output_type": "execute_result", "data": {"image/png": "x"}}]
    for cell in (code("print(1 + 2)"), picture):
        assert added(tmp_path, cell)[1] == ":::{div} origin\nComputed on this page.\n:::"


@pytest.mark.parametrize(
    "cell",
    [
        code("x = 3", said=""),
        code("print(3)", "hide-output"),
        code("print(3)", "remove-cell"),
        code("print(inspect.getsource(f).split('x')[-1])"),
        code("import inspect\nMarkdown(inspect.getsource(f))"),
        code("print(source(rag.f), '\\n')\nprint()\nprint(source(g))"),
        code("check(mine)", said="Not written yet.\n"),
    ],
)
def test_nothing_is_said_of_source_code_hidden_cells_and_silence(tmp_path, cell):
    assert added(tmp_path, cell) == [cell]


def test_source_code_with_a_result_beside_it_is_an_output(tmp_path):
    for source in (
        "print(inspect.getsource(f))\nprint(f(3))",
        "print(getsource(f), f(3))",
        "print('x')",
    ):
        assert len(added(tmp_path, code(source))) == 2


def test_pages_that_are_no_notebooks_stay_as_they_are(tmp_path):
    source = ["# A page\n"]
    origins.add(SimpleNamespace(srcdir=tmp_path), "page", source)
    assert source == ["# A page\n"]


def luminance(colour):
    parts = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return sum(w * part for w, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize(
    ("selector", "page"), [(r"\n\.origin", "#ffffff"), ('dark"\\] .origin', "#14181e")]
)
def test_the_line_can_be_read_in_both_themes(selector, page):
    """WCAG 2.2's contrast for small text, on the theme's two backgrounds."""
    style = (BOOK / "_static" / "book.css").read_text(encoding="utf-8")
    (colour,) = re.findall(rf"{selector} {{[^}}]*\bcolor: (#\w{{6}})", style)
    low, high = sorted((luminance(colour), luminance(page)))
    assert (high + 0.05) / (low + 0.05) >= 4.5


# --- the chapters' tags ---------------------------------------------------------------------------


def code_cells(path):
    return [cell for cell in jupytext.read(path).cells if cell.cell_type == "code"]


def reads(node, functions):
    """Whether a statement reads a file of `results/`, itself or by a function that does."""
    for each in ast.walk(node):
        if isinstance(each, ast.Constant) and isinstance(each.value, str):
            if re.match(r"results/(?!explorer)", each.value):
                return True
        elif isinstance(each, ast.Name) and each.id in functions:
            return True
    return False


def shows_stored(source, functions):
    """Whether a cell shows what it has itself read from `results/`; how often that equals what was
    computed here is computed here."""
    tree, known = ast.parse(source), set()
    for statement in tree.body:
        value = getattr(statement, "value", None)
        if isinstance(statement, ast.FunctionDef) or (
            isinstance(value, ast.ListComp) and isinstance(value.elt, ast.Compare)
        ):
            continue
        used = {n.id for n in ast.walk(statement) if isinstance(n, ast.Name)}
        if reads(statement, functions) or used & known:
            known |= {
                name.id
                for name in ast.walk(statement)
                if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)
            }
    return any(
        reads(part, functions) or {n.id for n in ast.walk(part) if isinstance(n, ast.Name)} & known
        for part in origins.shown(tree)
    )


def readers(cells):
    """The functions of a chapter that read a file of `results/`."""
    return {
        node.name
        for cell in cells
        for node in ast.walk(ast.parse(cell.source))
        if isinstance(node, ast.FunctionDef) and reads(node, set())
    }


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("found = stored('x')\nrows = found['a']\nprint(rows)", True),
        ("figure(stored('x'))", True),
        ("found = json.loads(Path('results/x.json').read_text())\nprint(1)", False),
        ("for row in stored('x'):\n    print(row)", True),
        ("before = stored('x')\nsame = [a == b for a, b in zip(now, before)]\nprint(same)", False),
        ("explorer = Path('results/explorer')\nexplorer", False),
    ],
)
def test_how_it_is_seen_that_a_cell_shows_what_it_read(source, expected):
    assert shows_stored(source, {"stored"}) == expected


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_tags_name_stored_files(path):
    known = origins.records(BOOK / "results" / "made.json")
    for cell in code_cells(path):
        assert set(origins.stored(cell.metadata.get("tags", []))) <= known.keys(), cell.source


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_cell_that_shows_what_it_reads_is_tagged(path):
    cells = code_cells(path)
    functions = readers(cells)
    for cell in cells:
        if shows_stored(cell.source, functions):
            assert origins.stored(cell.metadata.get("tags", [])), cell.source
