"""The slides of a chapter: every figure with its heading and caption, in one file."""

import base64
import re
from pathlib import Path

import nbformat
import pytest
import slides
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

BOOK = Path(__file__).resolve().parents[2] / "book"
PNG = base64.b64encode(b"\x89PNG picture").decode()


def written(folder, *cells):
    path = folder / "01-a.ipynb"
    nbformat.write(new_notebook(cells=list(cells)), path)
    return path


def figure(png=PNG, **about):
    output = new_output("display_data", {"image/png": png, "text/plain": "1"})
    return new_code_cell("1", outputs=[output], metadata={"mystnb": {"figure": about}})


def test_every_figure_has_its_heading_and_its_caption(tmp_path):
    (tmp_path / "diagrams").mkdir()
    (tmp_path / "diagrams" / "fid.svg").write_text("<?xml?>\n<svg><g>drawn</g></svg>")
    path = written(
        tmp_path,
        new_markdown_cell("# A & b\n\n## The idea\n\n![FiD: reads all](diagrams/fid.svg)\n\nText."),
        new_markdown_cell("Text.\n\n## Measured\n\n### In detail"),
        figure(PNG + "\n", caption="Is 1 < 2? See {doc}`the chapter <02-b>`.", alt='A "line"'),
        new_code_cell("print(1)", outputs=[new_output("stream", text="1")]),
    )
    soup = BeautifulSoup(slides.page(path), "html.parser")
    assert soup.title is not None
    assert soup.title.get_text() == "A & b"
    title, *shown = soup.select("section")
    assert title.get_text() == "A & b"
    found = [[s.select("h2")[0].get_text(), s.select("figcaption")[0].get_text()] for s in shown]
    assert found == [
        ["The idea", "FiD: reads all"],
        ["Measured", "Is 1 < 2? See the chapter."],
    ]
    assert shown[0].select("svg g")[0].get_text() == "drawn"
    image = shown[1].select("img")[0]
    assert image["alt"] == 'A "line"'
    assert image["src"] == f"data:image/png;base64,{PNG}"


def test_a_notebook_without_figures_is_refused(tmp_path):
    path = written(tmp_path, new_markdown_cell("# A"), new_code_cell("1"))
    with pytest.raises(ValueError, match="execute it first"):
        slides.page(path)


@pytest.mark.parametrize("path", sorted(BOOK.glob("[0-9]*.ipynb")), ids=lambda path: path.stem)
def test_the_slides_of_a_chapter_are_one_file(path):
    soup = BeautifulSoup(slides.page(path), "html.parser")
    assert len(soup.select("section")) == 1 + len(list(slides.figures(path))) > 1
    sources = [str(tag.get("src") or tag.get("href")) for tag in soup.select("[src], [href]")]
    assert all(source.startswith("data:") for source in sources)
    assert not soup.select("link, iframe, script[src]")
    assert not re.search(r"url\((?!#)|@import", str(soup))
