"""A comparison in the forms that other people's programs read.

* ``squad``: for each method the input of SQuAD's evaluation script, one JSON object
  ``{id: answer}`` (Rajpurkar et al. 2016).
* ``kilt``: for each method the input of KILT's evaluation scripts, JSON lines with the answer and,
  as its provenance, the pages that it relied on, the heaviest first (Petroni et al. 2021).
* ``csv``: a row for each question and method.
* ``tidy-csv`` and ``tidy-parquet``: a row for each method and metric, `Comparison.frame`.

Answers are written exactly as they were given. A program for spreadsheets takes a cell that begins
with ``=``, ``+``, ``-`` or ``@`` for a formula, so a CSV file of answers is to be imported there as
text; `formulas` counts such cells.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ragbook.corpus.gold import document_of
from ragbook.errors import InputError
from ragbook.evaluation.comparison import Comparison
from ragbook.evaluation.lines import Prediction, gold_rank, question_ids
from ragbook.files import whole_file, write_text

BY_METHOD = ("squad", "kilt")
"""The forms that have a file for each method, in a folder."""
FORMS = (*BY_METHOD, "csv", "tidy-csv", "tidy-parquet")

_COLUMNS = (
    "id",
    "question",
    "answers",
    "method",
    "text",
    "log_prob",
    "em",
    "f1",
    "contains",
    "error",
    "best_passage",
    "retrieved",
    "gold_rank",
)


def squad(comparison: Comparison, method: str) -> dict[str, str]:
    """A method's answers by the questions' ids.

    Raises InputError if two questions have one id.
    """
    return {
        question_id: line["methods"][method]["text"]
        for question_id, line in _by_id(comparison.predictions)
    }


def kilt(comparison: Comparison, method: str) -> Iterator[dict[str, Any]]:
    """A method's answers as KILT's predictions: one ``output`` each, whose ``provenance`` names
    every page once. A page is the document that a passage was cut from, or else the passage itself
    (:func:`ragbook.corpus.gold.document_of`).

    Raises InputError if two questions have one id.
    """
    for question_id, line in _by_id(comparison.predictions):
        entry = line["methods"][method]
        heaviest = sorted(entry["evidence"], key=lambda each: -each["weight"])
        pages = (document_of(e["passage_id"]) or e["passage_id"] for e in heaviest)
        yield {
            "id": question_id,
            "input": line["question"],
            "output": [
                {
                    "answer": entry["text"],
                    "provenance": [{"wikipedia_id": page} for page in dict.fromkeys(pages)],
                }
            ],
        }


def rows(comparison: Comparison) -> Iterator[dict[str, Any]]:
    """One row for each question and method, with the columns id, question, answers, method, text,
    log_prob, em, f1, contains, error, best_passage (the heaviest of the evidence), retrieved and
    gold_rank. ``answers`` and ``retrieved`` are lists as JSON; what is not known is None."""
    ids = question_ids(comparison.predictions)
    for question_id, line in zip(ids, comparison.predictions, strict=True):
        retrieved = [each["passage_id"] for each in line.get("retrieved", ())]
        for name, entry in line["methods"].items():
            best = max(entry["evidence"], key=lambda each: each["weight"], default=None)
            yield {
                "id": question_id,
                "question": line["question"],
                "answers": json.dumps(line["answers"], ensure_ascii=False),
                "method": name,
                **{
                    key: entry.get(key)
                    for key in ("text", "log_prob", "em", "f1", "contains", "error")
                },
                "best_passage": None if best is None else best["passage_id"],
                "retrieved": json.dumps(retrieved, ensure_ascii=False),
                "gold_rank": gold_rank(line),
            }


def formulas(comparison: Comparison) -> int:
    """How many cells of the CSV file a program for spreadsheets would take for formulas, and would
    run."""
    return sum(
        isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r"))
        for row in rows(comparison)
        for cell in row.values()
    )


def write(
    comparison: Comparison,
    form: str,
    out: Path,
    methods: Sequence[str] | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Write a comparison in one of `FORMS`.

    Parameters
    ----------
    out: the file; for ``squad`` and ``kilt`` the folder of the methods' files, named METHOD.json or
        METHOD.jsonl. Folders are created if they do not exist.
    methods: only these (default: all).
    overwrite: whether files that exist are replaced.

    Returns
    -------
    The files written, each of which appears whole or not at all.

    Raises
    ------
    InputError: there is no such form or method, a file exists, two questions have one id, or two
        methods' names make one file's name.
    """
    if form not in FORMS:
        raise InputError(f"There is no form {form!r}; choose from {', '.join(FORMS)}.")
    if methods is not None:
        comparison = comparison.only(methods)
    files = _files(comparison, form, out)
    for path in files.values():
        if path.exists() and not overwrite:
            raise InputError(f"{path} exists; choose another place or give --overwrite.")
        path.parent.mkdir(parents=True, exist_ok=True)
    if form == "squad":
        texts = {name: json.dumps(squad(comparison, name), ensure_ascii=False) for name in files}
    elif form == "kilt":
        texts = {name: _json_lines(kilt(comparison, name)) for name in files}
    elif form == "csv":
        texts = {"": _csv(rows(comparison))}
    elif form == "tidy-csv":
        texts = {"": comparison.frame().to_csv(index=False, lineterminator="\r\n")}
    else:
        with whole_file(out) as unfinished:
            comparison.frame().to_parquet(unfinished, engine="pyarrow", index=False)
        return [out]
    for name, path in files.items():
        write_text(path, texts[name])
    return list(files.values())


def _files(comparison: Comparison, form: str, out: Path) -> dict[str, Path]:
    """The file of each method; of the forms with one file that file, for the method ''."""
    if form not in BY_METHOD:
        if out.is_dir():
            raise InputError(f"{out} is a folder; name the file that {form} is to be written to.")
        return {"": out}
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; {form} needs a folder, for a file of each method.")
    suffix = ".json" if form == "squad" else ".jsonl"
    # A method of your own may have any name.
    named = {
        name: re.sub(r"[^\w.-]+", "_", name) + suffix for name in comparison.results["methods"]
    }
    if len({name.casefold() for name in named.values()}) < len(named):
        raise InputError(
            "Two methods' names make one file's name; choose the methods with --methods, one after "
            "the other."
        )
    return {name: out / file for name, file in named.items()}


def _by_id(predictions: Sequence[Prediction]) -> list[tuple[str, Prediction]]:
    ids = question_ids(predictions)
    if len(set(ids)) < len(ids):
        twice = next(one for one in ids if ids.count(one) > 1)
        raise InputError(
            f"Two questions have the id {twice!r}, so their answers cannot be told apart by it; "
            "give the questions ids of their own, or write another form."
        )
    return list(zip(ids, predictions, strict=True))


def _json_lines(objects: Iterator[dict[str, Any]]) -> str:
    return "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in objects)


def _csv(table: Iterator[dict[str, Any]]) -> str:
    """RFC 4180: CRLF after each row, quotes where a cell needs them; line ends in a cell stay as
    they are."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(_COLUMNS)
    writer.writerows([row[column] for column in _COLUMNS] for row in table)
    return text.getvalue()
