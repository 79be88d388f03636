"""A Sphinx extension that shows a figure's narrow drawing on a phone.

Where `NAME-narrow.png` lies beside a page's figure `NAME.png`, a screen of at most 40 rem shows it.
"""

import re
import shutil
from pathlib import Path
from typing import Any

IMAGE = re.compile(
    r'<img [^>]*src="(?P<folder>[^"]*_images/)(?P<name>[^"/]+)\.png"[^>]*>'
)


def with_narrow(body: str, narrow: set[str]) -> str:
    """The page with a choice of two pictures wherever an image's name is in `narrow`."""

    def choice(image: re.Match[str]) -> str:
        if image["name"] not in narrow:
            return image[0]
        source = f"{image['folder']}{image['name']}-narrow.png"
        return (
            f'<picture><source media="(max-width: 40rem)" srcset="{source}">'
            f"{image[0]}</picture>"
        )

    return IMAGE.sub(choice, body)


def drawn(app: Any) -> dict[str, Path]:
    """By its figure's name, each narrow drawing of a figure of the site."""
    narrow = {}
    for source in app.env.images:
        path = Path(app.srcdir) / source
        beside = path.with_name(f"{path.stem}-narrow.png")
        if path.suffix == ".png" and beside.exists():
            narrow[path.stem] = beside
    return narrow


def choose(
    app: Any, _page: str, _template: str, context: dict[str, Any], _doctree: Any
) -> None:
    """Put the choice into a page."""
    if "body" in context:
        context["body"] = with_narrow(context["body"], set(drawn(app)))


def copy(app: Any, error: Exception | None) -> None:
    """Put the narrow drawings beside the others."""
    if error is None and app.builder.format == "html":
        for path in drawn(app).values():
            shutil.copy(path, Path(app.outdir) / "_images")


def setup(app: Any) -> dict[str, Any]:
    """Register the extension."""
    app.connect("html-page-context", choose)
    app.connect("build-finished", copy)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
