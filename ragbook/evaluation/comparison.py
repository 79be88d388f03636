"""The result of a comparison: what is stored, and how it is shown."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragbook.errors import InputError
from ragbook.evaluation import stored, tables
from ragbook.evaluation.lines import gold_passages, is_scored, scored_number
from ragbook.evaluation.sheets import Sheet
from ragbook.files import replace_together, write_text
from ragbook.index.working import locked

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

_NO_METRICS = (
    "ci95",
    "device",
    "precision",
    "errors",
    "unread",
    "leave_one_out_n",
    "length_penalty",
    "answer_nll_finite_n",
)


OWN_FILES = (
    "predictions.jsonl",
    "setup.json",
    "table.md",
    "table.tex",
    "errors.md",
    "agreement.md",
    "side_by_side.png",
    "errors.png",
    "explorer/explorer.*",
    "explorer/answers.js",
    "explorer/questions.js",
    "explorer/answers-[0-9]*.js",
    "explorer/documents/*.html",
)
"""Patterns of the names of a comparison's files beside ``results.json``."""


@dataclass(frozen=True, repr=False)
class Comparison:
    """The result of :func:`ragbook.compare`.

    `results` is the content of ``results.json``, `predictions` the lines of
    ``predictions.jsonl``: one dictionary a question. `setup` is the content of ``setup.json``, by
    which other methods can be added later: ``cut``, the passages that were longer than what models
    see, and ``conditions`` (:func:`ragbook.evaluation.identity.conditions`), which the command line
    adds; it is empty for a comparison of an earlier version.
    """

    results: dict[str, Any]
    predictions: list[dict[str, Any]]
    setup: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        questions = self.results["questions"]
        return (
            f"Comparison({', '.join(self.results['methods'])}: {questions['n']} questions of "
            f"{questions['name']})"
        )

    def _repr_html_(self) -> str:
        return tables.html(self.results)  # without seconds, so that it is the same every time

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Comparison:
        """The comparison that `save` or ``ragbook compare --out`` wrote into a folder, also one of
        an earlier version; its ``predictions.jsonl`` may be compressed, as ``.jsonl.gz``.

        Raises InputError if a file is missing or damaged, or the two are not of one comparison."""
        return cls(*stored.load(Path(folder)))

    def only(self, methods: Sequence[str]) -> Comparison:
        """The comparison of some of its methods, in the order given. Nothing is counted anew: the
        intervals and tests are those of the whole.

        Raises InputError for a method that was not compared."""
        for name in methods:
            if name not in self.results["methods"]:
                raise InputError(
                    f"{name} is not among the methods compared; choose from "
                    f"{', '.join(self.results['methods'])}."
                )

        def both(pairs: list[dict[str, Any]]) -> list[dict[str, Any]]:
            return [pair for pair in pairs if {pair["a"], pair["b"]} <= set(methods)]

        kept = {name: self.results["methods"][name] for name in methods}
        beside = {
            key: both(self.results[key]) for key in ("paired", "agreement") if key in self.results
        }
        lines = [
            {**line, "methods": {name: line["methods"][name] for name in methods}}
            for line in self.predictions
        ]
        return Comparison({**self.results, "methods": kept, **beside}, lines, self.setup)

    def frame(self) -> pd.DataFrame:
        """One row for each method and metric, with the columns method, metric, value, low, high
        (the 95% interval), n (the number of questions that the value is counted on), questions and
        split (their names), k and seed. Missing where a metric is not defined, has no interval or
        is not counted on questions."""
        import pandas as pd

        said = self.results["questions"]
        run = (said["name"], said["split"], self.results["k"], self.results["seed"])
        rows = []
        for method, scores in self.results["methods"].items():
            for metric, value in scores.items():
                if metric not in _NO_METRICS:
                    low, high = scores["ci95"].get(metric) or (None, None)
                    n = self._counted_on(metric, scores)
                    rows.append((method, metric, value, low, high, n, *run))
        numbers = {"value": float, "low": float, "high": float, "n": "Int64"}
        columns = ["method", "metric", *numbers, "questions", "split", "k", "seed"]
        return pd.DataFrame(rows, columns=columns).astype(numbers)

    def _counted_on(self, metric: str, scores: dict[str, Any]) -> int | None:
        """The number of questions that a method's value of a metric is counted on."""
        if metric in ("em", "f1", "contains", "answer_nll"):
            return scored_number(self.results)
        if metric == "answer_nll_finite":
            return scores["answer_nll_finite_n"]
        if metric in ("seconds_per_question", "answered", "truncated"):
            return self.results["questions"]["n"]
        if scores[metric] is None or not self.predictions:
            return None
        if metric == "recall_at_k":
            return sum(is_scored(line) or bool(gold_passages(line)) for line in self.predictions)
        if metric in ("evidence_accuracy", "leave_one_out_accuracy"):
            measured = self.predictions
            if metric == "leave_one_out_accuracy":
                measured = measured[: scores.get("leave_one_out_n", len(measured))]
            return sum(bool(gold_passages(line)) for line in measured)
        return None

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
        before there was one, and where no answer is known."""
        return tables.errors(self.results)

    def agreement(self, numbered: bool = False) -> Sheet | None:
        """The table of how often every two methods give the same answer; None for one method, and
        for a comparison that was stored before this was counted. With `numbered`, its columns are
        narrow, for the terminal."""
        return tables.agreement(self.results, numbered)

    def save(self, out: str | os.PathLike[str]) -> None:
        """Write ``results.json``, ``predictions.jsonl``, ``setup.json``, ``table.md``,
        ``table.tex``, ``errors.md`` and ``agreement.md`` into the folder `out`, which is created if
        it does not exist.

        The files of an earlier comparison there, its figures and explorer included, are replaced
        together: at no time do files of two comparisons stand beside each other, and while there is
        a ``results.json`` all others are there. Raises InputError if `out` cannot be created or
        written to."""
        out = Path(out)
        with written_together(out) as finished:
            self.write(finished)

    def write(self, folder: Path) -> None:
        """Write the same files into a folder that holds no others of their names."""
        lines = (json.dumps(line, ensure_ascii=False, allow_nan=False) for line in self.predictions)
        texts = {
            "results.json": json.dumps(self.results, indent=2, allow_nan=False) + "\n",
            "predictions.jsonl": "".join(f"{line}\n" for line in lines),
            "table.md": self.markdown(),
            "table.tex": self.latex(),
        }
        if self.setup:
            texts["setup.json"] = json.dumps(self.setup, indent=2, sort_keys=True) + "\n"
        if (errors := self.errors()) is not None:
            texts["errors.md"] = errors.markdown()
        if (agreement := self.agreement()) is not None:
            texts["agreement.md"] = agreement.markdown()
        for name, text in texts.items():
            write_text(folder / name, text)


@contextmanager
def written_together(out: Path, finished: Path | None = None) -> Iterator[Path]:
    """A new folder for the files of a comparison. When the block ends without an error, they
    replace those of an earlier comparison in `out`; see `ragbook.files.replace_together`.

    Parameters
    ----------
    out: created if it does not exist.
    finished: where the files are written, on the disk of `out`; by default in a hidden folder of
        it, which is then removed.

    Raises
    ------
    InputError: the files cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        if finished is not None:
            yield from _moved(out, finished)
            return
        failed: OSError | None = None
        with locked(out / ".comparison.saving"):
            try:
                yield from _moved(out, out / ".comparison.saving" / "finished")
            except OSError as error:
                failed = error
        if failed is not None:
            raise failed
    except OSError as error:
        raise InputError(
            f"The results cannot be written to {out}: {error.strerror or error}; give a folder "
            "that can be created or written to."
        ) from error


def _moved(out: Path, finished: Path) -> Iterator[Path]:
    shutil.rmtree(finished, ignore_errors=True)  # what a killed process has left
    finished.mkdir()
    yield finished
    replace_together(finished, out, OWN_FILES, "results.json")
