"""A Sphinx extension that says under a chapter's title how long it takes to run.

The seconds are those that `execute.py` measured when it last ran the chapter, kept in
``results/times.json``.
"""

import json
from pathlib import Path
from typing import Any


def stated(seconds: float) -> str:
    """A sentence with the time, rounded up to 10 seconds or to half a minute."""
    if seconds <= 60:
        return f"about {10 * -(-seconds // 10):.0f} seconds"
    minutes = -(-seconds // 30) / 2
    return f"about {minutes:g} {'minute' if minutes == 1 else 'minutes'}"


def add(app: Any, name: str, source: list[str]) -> None:
    """Put the line under the title of a chapter's first cell."""
    times = json.loads(
        (Path(app.srcdir) / "results" / "times.json").read_text(
            encoding="utf-8"
        )
    )
    if name not in times:
        return
    notebook = json.loads(source[0])
    first = notebook["cells"][0]
    title, _, rest = "".join(first["source"]).partition("\n")
    line = (
        f"*Runs in {stated(times[name])} on two CPU cores, without a network; "
        f"{{doc}}`how to run it <run>`.*"
    )
    first["source"] = f"{title}\n\n{line}\n{rest}"
    source[0] = json.dumps(notebook)


def setup(app: Any) -> dict[str, Any]:
    """Register the extension."""
    app.connect("source-read", add)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
