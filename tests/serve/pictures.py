"""The pictures of the book's page about `ragbook serve`, taken from the page itself.

`ragbook serve` in one terminal, then `python -m tests.serve.pictures http://127.0.0.1:8080/` makes
book/_static/ask-*.png anew, with 256 colours: of a wide window, and as ask-*-narrow.png of a phone,
which shows these instead (`book/_tools/narrow_figures.py`). A phone's have fewer cards, and no
seconds.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlencode

from PIL import Image

from tests.book.chromium import Chromium, Page, chromium

FOLDER = Path(__file__).resolve().parents[2] / "book" / "_static"
QUESTION = "Which blind king died fighting against the English in 1346?"
PASSAGE, SAID, OTHERWISE = "battle-of-crecy-1", "John of Bohemia", "Louis of Flanders"
DONE = "document.querySelector('[role=status]')?.textContent.startsWith('All have answered')"
BEHIND = ("knn-lm", "rag-token", "realm")
WIDE, PHONE = 1000, 400
PHONES_CARDS = ("knn-lm", "realm", "fid")
WITHOUT_WEIGHTS = "document.querySelectorAll('.explorer-method > div').forEach((e) => e.remove())"
WITHOUT_SECONDS = """
    document.querySelectorAll('.explorer-sure').forEach((line) => {
      line.textContent = line.textContent.replace(/, [0-9.]+ s$/, '');
    })
"""


def picture(page: Page, name: str, first: str, last: str, beside: int = 12) -> None:
    """A part of the page, from the top of one element to the bottom of another."""
    narrow = page.run("innerWidth") < WIDE / 2
    if narrow:
        page.run(WITHOUT_SECONDS)
        name += "-narrow"
    whole = FOLDER / f"{name}.png"
    page.picture(whole)
    top, bottom, scale = page.run(
        f"[document.querySelector({first!r}).getBoundingClientRect().top + scrollY,"
        f" document.querySelector({last!r}).getBoundingClientRect().bottom + scrollY,"
        " devicePixelRatio]"
    )
    with Image.open(whole) as taken:
        above, below = max(0, int(scale * (top - beside))), int(scale * (bottom + beside))
        part = taken.crop((0, above, taken.width, below))
        part.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(whole, optimize=True)


def opened(browser: Chromium, width: int, address: str) -> Page:
    """The page in a window of this width, when all methods have answered."""
    page = browser.page(width, 900)
    if width == PHONE:
        page.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=900, deviceScaleFactor=2, mobile=True,
        )  # fmt: skip
    page.open(address)
    page.until(DONE, 300)
    return page


def keep(page: Page, names: Sequence[str]) -> None:
    """Remove the cards of the other methods."""
    others = "".join(f":not([data-method={name}])" for name in names)
    page.run(f"document.querySelectorAll('.explorer-method{others}').forEach((e) => e.remove())")


def take(browser: Chromium, width: int, address: str) -> None:
    """Ask, look behind the answers, and let a passage say something else."""
    phone = width == PHONE
    page = opened(browser, width, f"{address}#{urlencode({'q': QUESTION, 'answer': SAID})}")
    page.run("document.querySelector('[role=status]').remove()")
    if phone:
        keep(page, PHONES_CARDS)
    picture(page, "ask-answers", "#explorer-question" if phone else "h1", ".explorer-methods")
    if phone:
        page = opened(browser, width, f"{address}#{urlencode({'q': QUESTION})}")
    for name in ("knn-lm", "rag-token"):
        page.run(
            f"document.querySelector('[data-method={name}] details').open = true;"
            f"document.querySelector('[data-method={name}]').scrollIntoView()"
        )
    keep(page, BEHIND)
    page.run("document.querySelector('[data-method=realm] details').open = true")
    if phone:
        page.run(WITHOUT_WEIGHTS)
    picture(page, "ask-behind", ".explorer-methods", ".explorer-methods", 1)
    page = opened(browser, width, f"{address}#{urlencode({'q': QUESTION})}")
    page.click(f"[data-key='edit {PASSAGE}']")
    field = "document.querySelector('textarea.explorer-edit')"
    page.until(f"{field} !== null")
    page.run(f"{field}.value = {field}.value.replace({SAID!r}, {OTHERWISE!r})")
    page.click(f"[data-key='apply {PASSAGE}']")
    page.until(f"document.querySelector('h4').textContent.includes('edited') && {DONE}", 300)
    page.run(WITHOUT_WEIGHTS)
    if phone:
        keep(page, PHONES_CARDS)
    picture(page, "ask-edited", "#explorer-question", "#explorer-passage-0")


def main(address: str, *widths: str) -> None:
    """The pictures of both widths, or of those given."""
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
        chromium(Path(profile)) as browser,
    ):
        for width in map(int, widths or (WIDE, PHONE)):
            take(browser, width, address)


if __name__ == "__main__":
    main(*sys.argv[1:])
