"""The result of a comparison: what is stored, and how it is shown."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragbook.errors import InputError
from ragbook.evaluation import tables
from ragbook.evaluation.sheets import Sheet
from ragbook.files import write_text

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

_NO_METRICS = ("ci95", "device", "precision", "errors", "leave_one_out_n", "length_penalty")


@dataclass(frozen=True, repr=False)
class Comparison:
    """The result of :func:`ragbook.compare`.

    `results` is the content of ``results.json``, `predictions` the lines of
    ``predictions.jsonl``: one dictionary a question.
    """

    results: dict[str, Any]
    predictions: list[dict[str, Any]]

    def __repr__(self) -> str:
        questions = self.results["questions"]
        return (
            f"Comparison({', '.join(self.results['methods'])}: {questions['n']} questions of "
            f"{questions['name']})"
        )

    def _repr_html_(self) -> str:
        return tables.html(self.results)  # without seconds, so that it is the same every time

    def frame(self) -> pd.DataFrame:
        """One row for each method and metric, with the columns method, metric, value, low, high
        (the 95% interval). NaN where a metric is not defined or has no interval."""
        import pandas as pd

        rows = []
        for method, scores in self.results["methods"].items():
            for metric, value in scores.items():
                if metric not in _NO_METRICS:
                    low, high = scores["ci95"].get(metric, (None, None))
                    rows.append((method, metric, value, low, high))
        numbers = {"value": float, "low": float, "high": float}
        return pd.DataFrame(rows, columns=["method", "metric", *numbers]).astype(numbers)

    def markdown(self, timing: bool = True) -> str:
        """The table as Markdown, with intervals and significance marks."""
        return tables.markdown(self.results, timing)

    def latex(self, timing: bool = True) -> str:
        """The table as LaTeX (booktabs), with intervals and significance marks."""
        return tables.latex(self.results, timing)

    def table(self, timing: bool = True) -> Table:
        """The table for the terminal."""
        return tables.terminal(self.results, timing)

    def errors(self) -> Sheet | None:
        """The table of what went wrong (see :mod:`ragbook.evaluation.errors`), which a notebook
        shows as HTML and which has the other forms too; None for a comparison that was stored
        before there was one."""
        return tables.errors(self.results)

    def save(self, out: str | os.PathLike[str]) -> None:
        """Write ``results.json``, ``predictions.jsonl``, ``table.md``, ``table.tex`` and
        ``errors.md`` into the folder `out`, which is created if it does not exist; each file
        appears whole or not at all. Raises InputError if `out` cannot be created or written to."""
        out = Path(out)
        lines = (json.dumps(line, ensure_ascii=False, allow_nan=False) for line in self.predictions)
        texts = {
            "results.json": json.dumps(self.results, indent=2, allow_nan=False) + "\n",
            "predictions.jsonl": "".join(f"{line}\n" for line in lines),
            "table.md": self.markdown(),
            "table.tex": self.latex(),
        }
        if (errors := self.errors()) is not None:
            texts["errors.md"] = errors.markdown()
        try:
            out.mkdir(parents=True, exist_ok=True)
            for name, text in texts.items():
                write_text(out / name, text)
        except OSError as error:
            raise InputError(
                f"The results cannot be written to {out}: {error.strerror or error}; give a folder "
                "that can be created or written to."
            ) from error
