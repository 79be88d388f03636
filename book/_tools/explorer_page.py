"""A Sphinx extension that writes the explorer's files beside the book's page of that name.

It opens with the question of the first page."""

import gzip
import json
from pathlib import Path
from typing import Any

import one_question

from ragbook import explorer
from ragbook.corpus import load_corpus, load_questions


def write(app: Any, error: Exception | None) -> None:
    """Make the folder ``explorer`` of the site from the stored comparison."""
    if error is not None or app.builder.format != "html":
        return
    results = Path(app.srcdir) / "results"
    with gzip.open(
        results / "predictions.jsonl.gz", "rt", encoding="utf-8"
    ) as lines:
        predictions = [json.loads(line) for line in lines]
    asked = json.loads((results / "results.json").read_text(encoding="utf-8"))[
        "questions"
    ]
    typical = one_question.chosen(predictions)
    explorer.write(
        Path(app.outdir) / "explorer",
        predictions,
        load_corpus(asked["name"]),
        load_questions(asked["name"], asked["split"]),
        first=typical and typical[0]["question"],
    )


def setup(app: Any) -> dict[str, Any]:
    """Register the extension."""
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
