"""A chapter's figures as slides: `python book/_tools/slides.py book/05-rag.ipynb rag.html`.

Writes one HTML file that needs no other file and no network: a slide for the title, then one for
each figure, below the heading of its section and above its caption. Figures are those stored in the
executed notebook and the diagrams of its text. Scroll, or press the arrow keys; printing gives one
page per slide.
"""

import base64
import re
import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path

import nbformat

IMAGE = re.compile(r"!\[([^\]]*)\]\((diagrams/[\w.-]+\.svg)\)")
HEADING = re.compile(r"^(#{1,2}) (.+)$", re.M)
ROLE = re.compile(r"\{\w+\}`([^`<]*?)(?: <[^>`]*>)?`")

PAGE = """<!doctype html>
<html lang="en" data-theme="light"><head><meta charset="utf-8"><title>{title}</title><style>
html {{ scroll-snap-type: y mandatory; font: 1.4rem/1.4 system-ui, sans-serif; }}
body {{ margin: 0; }}
section {{ box-sizing: border-box; height: 100vh; padding: 3vh 6vw; scroll-snap-align: start;
  display: flex; flex-direction: column; justify-content: center; break-after: page; }}
figure {{ margin: 0; min-height: 0; flex: 1; display: flex; flex-direction: column; }}
figure > :first-child {{ flex: 1; min-height: 0; width: 100%; object-fit: contain; }}
figcaption {{ font-size: 1.1rem; margin-top: 2vh; }}
</style></head><body>
{slides}
</body></html>
"""
KEYS = """<script>
addEventListener("keydown", (event) => {
  const step = {ArrowRight: 1, ArrowDown: 1, PageDown: 1, ArrowLeft: -1, ArrowUp: -1, PageUp: -1};
  if (!(event.key in step)) return;
  event.preventDefault();
  scrollBy({top: step[event.key] * innerHeight});
});
</script>"""


def figures(notebook: Path) -> Iterator[tuple[str, str, str]]:
    """The figures of an executed notebook in their order: the heading of the section, the picture
    as HTML, and the caption as plain text."""
    heading = ""
    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type == "markdown":
            for part in re.split(r"(?m)(?=^#{1,2} |!\[)", cell.source):
                if found := HEADING.match(part):
                    heading = found[2]
                elif found := IMAGE.match(part):
                    svg = (notebook.parent / found[2]).read_text("utf-8")
                    yield heading, svg[svg.index("<svg") :], found[1]
            continue
        about = cell.metadata.get("mystnb", {}).get("figure", {})
        for output in cell.get("outputs", []):
            if png := output.get("data", {}).get("image/png"):
                data = base64.b64encode(base64.b64decode(png)).decode()
                alt = escape(about.get("alt", heading), quote=True)
                image = f'<img alt="{alt}" src="data:image/png;base64,{data}">'
                yield heading, image, ROLE.sub(r"\1", about.get("caption", ""))


def page(notebook: Path) -> str:
    """The slides of a chapter as one HTML page.

    Raises:
        ValueError: the notebook has no figure, so it was not executed or has none to show.
    """
    first = nbformat.read(notebook, as_version=4).cells[0].source
    found = HEADING.search(first)
    title = escape(found[2] if found else notebook.stem)
    slides = [f"<section><h1>{title}</h1></section>"]
    for heading, picture, caption in figures(notebook):
        slides.append(
            f"<section><h2>{escape(heading)}</h2><figure>{picture}"
            f"<figcaption>{escape(caption)}</figcaption></figure></section>"
        )
    if len(slides) == 1:
        raise ValueError(f"{notebook} has no figure; execute it first")
    return PAGE.format(title=title, slides="\n".join([*slides, KEYS]))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python book/_tools/slides.py NOTEBOOK.ipynb OUT.html")
    Path(sys.argv[2]).write_text(page(Path(sys.argv[1])), encoding="utf-8")
