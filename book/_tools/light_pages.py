"""A Sphinx extension that leaves out of a page what it does not use.

MathJax (1.2 MB) goes to the pages that hold a formula, the search's index to the page that
searches, and of the theme's 2,000 icons (1.5 MB) stay those that some page shows: so the first page
weighs less than a megabyte.
"""

import re
from pathlib import Path
from typing import Any

# An icon in the theme's script: name:[width,height,[other names],"code point",path or paths].
ICON = re.compile(
    r"""(?:"(?P<quoted>[\w-]+)"|(?P<name>[A-Za-z]\w*)):"""
    r"""\[\d+,\d+,\[(?P<others>[^\]]*)\],"[0-9a-f]+",(?:"[^"]*"|\[[^\]]*\])\],?"""
)

# The same icon in the theme's style sheet, by all its names.
GLYPH = re.compile(r"(?:\.fa-[\w-]+:before,?)+\{content:[^}]*\}")
# The brands' icons as a font; the script draws them without it.
BRANDS = re.compile(r"@font-face\{[^}]*fa-brands-400[^}]*\}")
SEARCHING = re.compile(
    r'\s*<script src="[^"]*(?:_static/searchtools|_static/language_data|searchindex)\.js"></script>'
)


def without_formulas(
    _app: Any,
    _page: str,
    _template: str,
    context: dict[str, Any],
    _doctree: Any,
) -> None:
    """Drop MathJax from a page without a formula."""
    if 'class="math' not in context.get("body", ""):
        context["script_files"] = [
            script
            for script in context.get("script_files", [])
            if "mathjax"
            not in f"{script.filename} {script.attributes.get('body', '')}".lower()
        ]


def pruned(text: str, used: set[str]) -> str:
    """The icons' script or style sheet with those that `used` names, by one name or another."""

    def kept(icon: re.Match[str]) -> str:
        names = {
            icon["quoted"] or icon["name"],
            *re.findall(r'"([\w-]+)"', icon["others"]),
        }
        return icon[0] if names & used else ""

    def shown(glyph: re.Match[str]) -> str:
        return (
            glyph[0]
            if set(re.findall(r"\.fa-([\w-]+):", glyph[0])) & used
            else ""
        )

    return BRANDS.sub("", GLYPH.sub(shown, ICON.sub(kept, text)))


def prune(app: Any, error: Exception | None) -> None:
    """Rewrite the icons and the pages of the finished site."""
    if error is not None or app.builder.format != "html":
        return
    out = Path(app.outdir)
    pages = list(out.rglob("*.html"))
    icons = out / "_static" / "scripts" / "fontawesome.js"
    users = [
        *pages,
        *(p for p in (out / "_static").rglob("*.js") if p != icons),
    ]
    used = {
        name
        for path in users
        if "mathjax" not in path.parts
        for name in re.findall(
            r"\bfa-([\w-]+)", path.read_text(encoding="utf-8")
        )
    }
    for path in (icons, out / "_static" / "styles" / "pydata-sphinx-theme.css"):
        path.write_text(
            pruned(path.read_text(encoding="utf-8"), used), encoding="utf-8"
        )
    for path in pages:
        if path.name != "search.html":
            text = path.read_text(encoding="utf-8")
            path.write_text(SEARCHING.sub("", text), encoding="utf-8")


def setup(app: Any) -> dict[str, Any]:
    """Register the extension, after those that add scripts."""
    app.connect("html-page-context", without_formulas, priority=900)
    app.connect("build-finished", prune)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
