"""A Sphinx extension that leaves out of a page what it does not use.

MathJax (1.2 MB) goes to the pages that hold a formula, and of the theme's 2,000 icons (1.5 MB) stay
those that some page shows: so the first page weighs less than a megabyte.
"""

import re
from pathlib import Path
from typing import Any

# An icon in the theme's script: name:[width,height,[other names],"code point",path or paths].
ICON = re.compile(
    r"""(?:"(?P<quoted>[\w-]+)"|(?P<name>[A-Za-z]\w*)):"""
    r"""\[\d+,\d+,\[(?P<others>[^\]]*)\],"[0-9a-f]+",(?:"[^"]*"|\[[^\]]*\])\],?"""
)


def without_formulas(
    _app: Any, _page: str, _template: str, context: dict[str, Any], _doctree: Any
) -> None:
    """Drop MathJax from a page without a formula."""
    if 'class="math' not in context.get("body", ""):
        context["script_files"] = [
            script
            for script in context.get("script_files", [])
            if "mathjax" not in f"{script.filename} {script.attributes.get('body', '')}".lower()
        ]


def pruned(script: str, used: set[str]) -> str:
    """The icons' script with those that `used` names, by their own name or another."""

    def kept(icon: re.Match[str]) -> str:
        names = {icon["quoted"] or icon["name"], *re.findall(r'"([\w-]+)"', icon["others"])}
        return icon[0] if names & used else ""

    return ICON.sub(kept, script)


def prune(app: Any, error: Exception | None) -> None:
    """Rewrite the icons' script of the finished site."""
    if error is not None or app.builder.format != "html":
        return
    out = Path(app.outdir)
    icons = out / "_static" / "scripts" / "fontawesome.js"
    users = [*out.rglob("*.html"), *(p for p in (out / "_static").rglob("*.js") if p != icons)]
    used = {
        name
        for path in users
        if "mathjax" not in path.parts
        for name in re.findall(r"\bfa-([\w-]+)", path.read_text(encoding="utf-8"))
    }
    icons.write_text(pruned(icons.read_text(encoding="utf-8"), used), encoding="utf-8")


def setup(app: Any) -> dict[str, Any]:
    """Register the extension, after those that add scripts."""
    app.connect("html-page-context", without_formulas, priority=900)
    app.connect("build-finished", prune)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
