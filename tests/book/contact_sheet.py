"""Pictures of the built site to look through: `python -m tests.book.contact_sheet OUT [PAGE ...]`.

Every page is drawn on a desk (1280 pixels) and on a phone (390), in the light and the dark theme,
and laid out in columns as `OUT/WIDTH-THEME-PAGE-NUMBER.png`. What is cut is listed in
`OUT/cut.txt`. With `--axe axe.min.js`, a file of the npm package `axe-core`, what axe finds is
listed in `OUT/axe.txt`.
"""

import argparse
import base64
import io
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from tests.book.browser import served
from tests.book.chromium import Page, chromium
from tests.book.test_site import SITE, pages

TILE = 3000  # pixels of a page's height in a column of a sheet
COLUMNS = {1280: 2, 390: 6}
SCALE = {1280: 0.55, 390: 0.55}

CUT = """
(() => {
  const text = (e) => e.textContent.trim().replace(/\\s+/g, ' ').slice(0, 70);
  const said = (e) => `${e.tagName.toLowerCase()}.${[...e.classList].join('.')} `
    + `${e.clientWidth} < ${e.scrollWidth}: ${text(e)}`;
  const root = document.documentElement;
  const out = root.scrollWidth > innerWidth ? [`the page ${innerWidth} < ${root.scrollWidth}`] : [];
  for (const e of document.querySelectorAll('article *')) {
    if (e.closest("svg, mjx-container, .math")) continue;
    const style = getComputedStyle(e);
    const inline = style.display === 'inline' || style.clipPath !== 'none';
    if (!inline && style.overflowX !== 'visible' && e.scrollWidth > e.clientWidth + 1)
      out.push(said(e));
  }
  return out;
})()
"""
AXE = """
axe.run(document, {resultTypes: ['violations']}).then((found) => found.violations.flatMap(
  (rule) => rule.nodes.map((node) => `${rule.impact} ${rule.id} ${node.target} `
    + node.html.slice(0, 120).replace(/\\s+/g, ' '))))
"""


def whole(page: Page, width: int) -> Image.Image:
    """The whole page, taken in pieces that Chromium can draw."""
    height = page.run("document.documentElement.scrollHeight")
    picture = Image.new("RGB", (width, height))
    for top in range(0, height, TILE):
        clip = {"x": 0, "y": top, "width": width, "height": min(TILE, height - top), "scale": 1}
        told = page.call(
            "Page.captureScreenshot", captureBeyondViewport=True, format="png", clip=clip
        )
        picture.paste(Image.open(io.BytesIO(base64.b64decode(told["data"]))), (0, top))
    return picture


def sheets(picture: Image.Image) -> list[Image.Image]:
    """The page in columns."""
    width, height = picture.size
    columns, scale = COLUMNS[width], SCALE[width]
    out = []
    for top in range(0, height, TILE * columns):
        sheet = Image.new("RGB", (columns * (width + 20), TILE), "magenta")
        for column in range(columns):
            piece = picture.crop((0, top + column * TILE, width, top + (column + 1) * TILE))
            sheet.paste(piece, (column * (width + 20), 0))
        size = round(sheet.width * scale), round(sheet.height * scale)
        out.append(sheet.resize(size, Image.Resampling.LANCZOS))
    return out


def look(page: Page, width: int, theme: str, axe: str) -> tuple[Any, ...]:
    """An open page's picture, what is cut on it and what axe finds."""
    page.call(
        "Emulation.setDeviceMetricsOverride",
        width=width, height=900, deviceScaleFactor=1, mobile=width < 500,
    )  # fmt: skip
    scheme = [{"name": "prefers-color-scheme", "value": theme}]
    page.call("Emulation.setEmulatedMedia", features=scheme)
    page.run("new Promise((done) => setTimeout(done, 500))")
    assert page.run("document.documentElement.dataset.theme") == theme
    return whole(page, width), page.run(CUT), page.run(f"{axe};\n{AXE}") if axe else []


def main() -> None:
    """Draw the pages that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("pages", nargs="*")
    parser.add_argument("--axe", type=Path)
    options = parser.parse_intermixed_args()
    options.out.mkdir(parents=True, exist_ok=True)
    names = options.pages or [str(path.relative_to(SITE)) for path in pages()]
    axe = options.axe.read_text(encoding="utf-8") if options.axe else ""
    cut, errors = [], []
    with (
        tempfile.TemporaryDirectory() as profile,
        chromium(Path(profile)) as browser,
        served(SITE) as root,
    ):
        page = browser.page()
        for name in names:
            page.open(f"{root}/{name}")
            page.until(
                f"location.pathname === '/{name}' && document.readyState === 'complete'", 300
            )
            page.run("document.fonts.ready.then(() => 1)")
            page.run("Promise.resolve(window.MathJax?.startup?.promise).then(() => 1)")
            for width in COLUMNS:
                for theme in ("light", "dark"):
                    where = f"{width}-{theme}-{Path(name).stem}"
                    picture, cuts, found = look(page, width, theme, axe)
                    for number, sheet in enumerate(sheets(picture), 1):
                        sheet.save(options.out / f"{where}-{number:02}.png")
                    cut += [f"{where}: {one}" for one in cuts]
                    errors += [f"{where}: {one}" for one in found]
            (options.out / "cut.txt").write_text("\n".join(cut), encoding="utf-8")
            (options.out / "axe.txt").write_text("\n".join(errors), encoding="utf-8")


if __name__ == "__main__":
    main()
