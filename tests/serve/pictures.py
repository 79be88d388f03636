"""The pictures of the book's page about `ragbook serve`, taken from the page itself.

`ragbook serve` in one terminal, then `python -m tests.serve.pictures http://127.0.0.1:8080/` makes
book/_static/ask-*.png anew, with 256 colours.
"""

import sys
import tempfile
from pathlib import Path
from urllib.parse import urlencode

from PIL import Image

from tests.book.chromium import Page, chromium

FOLDER = Path(__file__).resolve().parents[2] / "book" / "_static"
QUESTION = "Which blind king died fighting against the English in 1346?"
PASSAGE, SAID, OTHERWISE = "battle-of-crecy-1", "John of Bohemia", "Louis of Flanders"
DONE = "document.querySelector('[role=status]')?.textContent.startsWith('All have answered')"


def picture(page: Page, name: str, first: str, last: str, beside: int = 12) -> None:
    """A part of the page, from the top of one element to the bottom of another."""
    whole = FOLDER / f"{name}.png"
    page.picture(whole)
    top, bottom = page.run(
        f"[document.querySelector({first!r}).getBoundingClientRect().top + scrollY,"
        f" document.querySelector({last!r}).getBoundingClientRect().bottom + scrollY]"
    )
    with Image.open(whole) as taken:
        part = taken.crop((0, max(0, int(top) - beside), taken.width, int(bottom) + beside))
        part.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(whole, optimize=True)


def main(address: str) -> None:
    """Ask, look behind the answers, and let a passage say something else."""
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
        chromium(Path(profile)) as browser,
    ):
        page = browser.page(1000, 900)
        page.open(f"{address}#{urlencode({'q': QUESTION, 'answer': SAID})}")
        page.until(DONE, 300)
        page.run("document.querySelector('[role=status]').remove()")
        picture(page, "ask-answers", "h1", ".explorer-methods")
        for name in ("knn-lm", "rag-token"):
            page.run(
                f"document.querySelector('[data-method={name}] details').open = true;"
                f"document.querySelector('[data-method={name}]').scrollIntoView()"
            )
        page.run(
            "document.querySelectorAll('.explorer-method:not([data-method=knn-lm],"
            "[data-method=rag-token],[data-method=realm])').forEach((card) => card.remove());"
            "document.querySelector('[data-method=realm] details').open = true;"
        )
        picture(page, "ask-behind", ".explorer-methods", ".explorer-methods", 1)
        page = browser.page(1000, 900)
        page.open(f"{address}#{urlencode({'q': QUESTION})}")
        page.until(DONE, 300)
        page.click(f"[data-key='edit {PASSAGE}']")
        field = "document.querySelector('textarea.explorer-edit')"
        page.until(f"{field} !== null")
        page.run(f"{field}.value = {field}.value.replace({SAID!r}, {OTHERWISE!r})")
        page.click(f"[data-key='apply {PASSAGE}']")
        page.until(f"document.querySelector('h4').textContent.includes('edited') && {DONE}", 300)
        page.run("document.querySelectorAll('.explorer-method div').forEach((e) => e.remove())")
        picture(page, "ask-edited", "#explorer-question", "#explorer-passage-0")


if __name__ == "__main__":
    main(sys.argv[1])
