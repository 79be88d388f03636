"""A Sphinx extension that takes thebe's scripts out of every page.

Jupyter Book always loads sphinx-thebe, which would run cells on a remote server. This site has no
such server, and the scripts, put in twice, end in an error on the browser's console.
"""

from typing import Any


def remove(
    _app: Any,
    _page: str,
    _template: str,
    context: dict[str, Any],
    _doctree: Any,
) -> None:
    """Keep the page's scripts that have nothing to do with thebe."""
    context["script_files"] = [
        script
        for script in context.get("script_files", [])
        if "thebe"
        not in f"{script.filename} {script.attributes.get('body', '')}".lower()
    ]


def setup(app: Any) -> dict[str, Any]:
    """Register the extension, after those that add scripts."""
    app.connect("html-page-context", remove, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
