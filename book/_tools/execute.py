"""Execute the book's chapters from their text form and store the outputs beside it.

Usage: python book/_tools/execute.py [CHAPTER.py ...]        (no argument: every chapter, and the
solutions of their exercises)

Reads ``NN-name.py`` (jupytext's percent format), runs it in a fresh kernel and writes
``NN-name.ipynb``; the text itself is never touched. The result depends on nothing but the code: no
timestamps, no kernel version, cell ids made from the cells' sources. Executing twice gives the same
bytes. A cell that raises ends the run with exit code 1 and leaves the stored notebook as it was.
How long each chapter took is kept in ``results/times.json``, from which the site states it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path

import jupytext
import nbformat
from kernel_env import KERNEL_ENV
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

BOOK = Path(__file__).resolve().parents[1]
TIMES = BOOK / "results" / "times.json"
KERNELSPEC = {
    "display_name": "Python 3 (ipykernel)",
    "language": "python",
    "name": "python3",
}


def chapters() -> list[Path]:
    """The text forms of all chapters, in the book's order, then those of the solutions."""
    return sorted(BOOK.glob("[0-9]*.py")) + sorted(
        BOOK.glob("solutions/[0-9]*.py")
    )


def execute(text: Path, timeout: int = 300) -> Path:
    """Run one chapter and write its notebook.

    Args:
        text: the chapter's ``.py`` in percent format; its folder is the kernel's working directory.
        timeout: seconds that one cell may take.

    Returns:
        The path of the notebook written, beside ``text``.

    Raises:
        CellExecutionError: a cell raised; nothing was written.
    """
    notebook = jupytext.read(text)
    notebook.metadata["kernelspec"] = dict(KERNELSPEC)
    _name_cells(notebook)
    _sort_filter(notebook)
    NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,  # else how the output is cut into pieces is a matter of timing
        resources={"metadata": {"path": str(text.parent)}},
    ).execute()
    notebook.metadata.pop(
        "language_info", None
    )  # holds the interpreter's version
    target = text.with_suffix(".ipynb")
    partial = target.with_suffix(".ipynb.partial")
    partial.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
    partial.replace(target)
    return target


def record(chapter: str, seconds: float, path: Path = TIMES) -> None:
    """Keep a chapter's time, in whole seconds, beside the others'."""
    times = (
        json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    )
    times[chapter] = round(seconds)
    partial = path.with_suffix(".partial")
    partial.write_text(
        json.dumps(dict(sorted(times.items())), indent=1) + "\n",
        encoding="utf-8",
    )
    partial.replace(path)


def _name_cells(notebook: nbformat.NotebookNode) -> None:
    """Give each cell an id made from its source, in place of jupytext's random one."""
    seen: Counter[str] = Counter()
    for cell in notebook.cells:
        digest = hashlib.sha256(
            f"{cell.cell_type}\n{cell.source}".encode()
        ).hexdigest()[:12]
        seen[digest] += 1
        cell.id = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"


def _sort_filter(notebook: nbformat.NotebookNode) -> None:
    """Put the kinds of metadata that jupytext found in an order that does not change."""
    settings = notebook.metadata.get("jupytext", {})
    kinds = settings.get("cell_metadata_filter", "-all").split(",")
    settings["cell_metadata_filter"] = ",".join(
        [*sorted(kind for kind in kinds if kind != "-all"), "-all"]
    )


def main(arguments: list[str] | None = None) -> int:
    """Execute the chapters named on the command line, or all; returns the exit code."""
    parser = argparse.ArgumentParser(
        description="Execute chapters of the book in place."
    )
    parser.add_argument(
        "chapter",
        nargs="*",
        type=Path,
        help="NN-name.py (default: every chapter)",
    )
    os.environ.update(KERNEL_ENV)
    for text in parser.parse_args(arguments).chapter or chapters():
        start = time.perf_counter()
        try:
            target = execute(text)
        except CellExecutionError as error:
            print(f"{text}: a cell failed\n{error}", file=sys.stderr)
            return 1
        seconds = time.perf_counter() - start
        if text.resolve().parent == BOOK:
            record(text.stem, seconds)
        print(f"{target.name}: {seconds:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
