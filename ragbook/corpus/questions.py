"""Questions of one's own: a file of any layout of :mod:`ragbook.corpus.question_layouts`, in any
form of :mod:`ragbook.corpus.tables`, or one question a line."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from ragbook.corpus import miniwiki
from ragbook.corpus.files import (
    bare_name,
    checked_text,
    first_line,
    format_suffix,
    located,
    read_lines,
)
from ragbook.corpus.qrels import read_qrels
from ragbook.corpus.question_layouts import (
    COLUMNS,
    KNOWN,
    LAYOUTS,
    Asked,
    columns_of,
    plain,
)
from ragbook.corpus.readers import beir_file
from ragbook.corpus.tables import (
    FORMS,
    Row,
    Table,
    form_of,
    hub_table,
    is_saved,
    listed,
    open_tables,
    shards,
)
from ragbook.corpus.types import Question, QuestionSet
from ragbook.errors import InputError

FORMATS: dict[str, tuple[str | None, str | None]] = {
    "nq-open": ("jsonl", "plain"),
    "dpr": (None, "plain"),
    "squad": ("json", None),
    "mrqa": ("jsonl", "mrqa"),
    "triviaqa": (None, None),
    "webquestions": (None, None),
    "hotpotqa": (None, "hotpotqa"),
    "2wikimultihopqa": (None, "hotpotqa"),
    "musique": (None, "musique"),
    "popqa": (None, "popqa"),
    "flashrag": (None, "plain"),
    "kilt": (None, "kilt"),
    "beir": (None, "beir"),
    "csv": ("csv", None),
    "tsv": ("tsv", None),
    "jsonl": ("jsonl", None),
    "json": ("json", None),
    "parquet": ("parquet", None),
    "arrow": ("arrow", None),
    "lines": (None, None),
}
"""The formats that can be named: for each the form of its table, and its layout; None where the
content says it."""

_EXPECTED = (
    "JSON lines (NQ-open, FlashRAG, KILT, MRQA, MuSiQue, BEIR's queries), JSON (SQuAD, DPR, "
    "TriviaQA, WebQuestions, HotpotQA, 2WikiMultihopQA), CSV, TSV or Parquet with a column "
    '"question", or a text file with one question a line'
)
Told = Callable[[str], None]
_USUAL = "questions with their answers"
_USUAL_NAMES = frozenset((None, "question", "answer", "answers", "gold_passage", "id"))
"""The layout that needs no word: NQ-open's and DPR's, and what this book adds to it."""


def load_questions(
    name_or_path: str | os.PathLike[str],
    split: str | None = None,
    format: str | None = None,
    columns: Mapping[str, str] | None = None,
    told: Told | None = None,
) -> QuestionSet:
    """The questions of a bundled set, of a file, of ``hf:NAME``, or of standard input, ``-``.

    The bundled sets are ``"miniwiki"`` and ``"miniwiki-2012"``, with the answers of the earlier
    edition; `split` is train, dev or test, the default. Of a folder in BEIR's layout `split` says
    whose judgements name the gold passages, by default test. Any other file has only one split:
    `split` only names it in the results, and is "all" by default. Questions that a file marks as
    unanswerable are left out and counted in ``skipped``; those without answers are kept. A question
    keeps the id that it has in its file; ids are unique.

    Parameters
    ----------
    format: one of `FORMATS`; by default what the content says.
    columns: the file's own names of the columns "question", "answers", "gold" and "id".
    told: called with one sentence that says how the questions were read, if that needs a word.

    Raises
    ------
    InputError: there is no such set, the format is unknown, an entry is malformed, or no question
        is left.
    """
    if name_or_path in miniwiki.NAMES:
        return miniwiki.questions(split or "test", miniwiki.NAMES[str(name_or_path)])
    if format is not None and format not in FORMATS:
        raise InputError(
            f"There is no format {format!r} of questions; choose from {', '.join(FORMATS)}."
        )
    columns = columns or {}
    if unknown := columns.keys() - COLUMNS.keys():
        raise InputError(
            f"A question has no column {min(unknown)!r}; name those for {', '.join(COLUMNS)}."
        )
    if str(name_or_path).startswith("hf:"):
        name, (said, asked) = (
            str(name_or_path),
            _rows([hub_table(str(name_or_path))], None, columns),
        )
        judged = None
    else:
        path = located(Path(name_or_path))
        if not os.path.exists(path):
            raise InputError(
                f"There is no file {path} and no question set of that name; the bundled questions "
                f"are {' and '.join(map(repr, miniwiki.NAMES))}, and a file can be {_EXPECTED}."
            )
        name = path.resolve().name if path.is_dir() else bare_name(path)
        path = (beir_file(path, "queries") or path) if path.is_dir() else path
        judged = _judgements(path, split) if format in (None, "beir") else None
        said, asked = _asked(path, format, columns)
    entries = list(asked)
    questions = [question for question in entries if question is not None]
    if judged is not None:
        questions = [
            replace(
                question, gold_passage=judged[question.id][0], also_gold=judged[question.id][1:]
            )
            for question in questions
            if question.id in judged
        ]
        said += "; gold passages from its qrels"
    if not questions:
        raise InputError(f"{name_or_path} holds no question; expected {_EXPECTED}.")
    seen: set[str] = set()
    for question in questions:
        if question.id in seen:
            raise InputError(
                f"{name_or_path}: the question id {question.id!r} is used a second time; ids "
                "must be unique."
            )
        if question.id is not None:
            seen.add(question.id)
    if told is not None and not said.endswith(_USUAL):
        told(f"{name_or_path}: {said}")
    skipped = sum(entry is None for entry in entries)
    return QuestionSet(name, split or "all", questions, skipped)


def _asked(path: Path, format: str | None, columns: Mapping[str, str]) -> tuple[str, Asked]:
    """How a file is read, and its questions."""
    form, layout = (None, None) if format is None else FORMATS[format]
    if path.is_dir():
        if not is_saved(path) and not shards(path):
            raise InputError(f"{path} is a folder; give the file itself.")
    elif format == "lines":
        return "one question a line", _lines(path)
    elif form is None:
        form = form_of(path)
        if form is None:
            if not first_line(path):
                raise InputError(f"{path} is empty; expected {_EXPECTED}.")
            if format is None and format_suffix(path) in (".txt", ""):
                return "one question a line", _lines(path)
            raise InputError(
                f"The format of {path} is not known; expected {_EXPECTED}; name it with "
                "--questions-format."
            )
    known = KNOWN | {own.lower() for own in columns.values()}
    return _rows(open_tables(path, form, known), layout, columns)


def _rows(tables: list[Table], layout: str | None, columns: Mapping[str, str]) -> tuple[str, Asked]:
    """How tables are read, by the first row of the first, and their questions."""
    table = tables[0]
    number, first = table.first()
    if layout is None and not columns:
        layout = next((name for name, one in LAYOUTS.items() if one.takes(first)), None)
    form = FORMS[table.form]
    if layout in LAYOUTS:
        one = LAYOUTS[layout]
        said = _USUAL if layout == "squad" else one.said
        return f"{form}, {said}", _of_layout(tables, one.questions)
    if table.numbered and not columns:
        return f"{form}, {_USUAL if len(first) == 2 else 'questions alone'}", (_headless(tables))
    for part, own in columns.items():
        if first and own not in first:
            raise InputError(
                f"{table.where(number)}: there is no column {own!r} for the {part}; there are "
                f"{', '.join(map(repr, first))}."
            )
    names = columns_of(first, columns)
    usual = table.form in ("json", "jsonl") and set(names.values()) <= _USUAL_NAMES
    if first and names["question"] is None:
        raise InputError(
            f'{table.where(number)}: the key "question" is missing; expected {_EXPECTED}, or name '
            "the columns, as in --columns question=query,answers=label."
        )
    said = ", ".join(f"{part} from {own!r}" for part, own in names.items() if own is not None)
    said = _USUAL if usual else said
    return f"{form}, {said}", _of_layout(tables, plain(names, table.form in ("csv", "tsv")))


def _of_layout(tables: list[Table], questions: Callable[[str, Row], Asked]) -> Asked:
    for table in tables:
        for number, row in table.rows():
            where = table.where(number)
            try:
                yield from questions(where, row)
            except InputError:
                raise
            except (TypeError, KeyError, AttributeError, ValueError, IndexError) as error:
                raise InputError(
                    f"{where}: this is not of the layout that the first {table.unit} has "
                    f"({error!r}); give the file in one layout, or name it with --questions-format."
                ) from None


def _headless(tables: list[Table]) -> Asked:
    """DPR's CSV files, whose rows have a question and a list of answers; or questions alone."""
    for table in tables:
        for number, row in table.rows():
            where = table.where(number)
            question, *rest = row.values()
            if len(rest) > 1:
                raise InputError(
                    f"{where}: no column is called question; name them, as in --columns "
                    "question=query,answers=label, or without a header by their numbers, "
                    "question=1,answers=3."
                )
            answers: list[str] = []
            if rest:
                found = listed(rest[0])
                if not isinstance(found, list):
                    raise InputError(
                        f"{where}: the answers must be a list such as ['Paris', 'paris']."
                    )
                answers = [checked_text(where, "an answer", answer) for answer in found]
            text = checked_text(where, "the question", question)
            yield Question(text, tuple(dict.fromkeys(answers)))


def _lines(path: Path) -> Asked:
    for line in read_lines(path):
        if text := line.strip():
            yield Question(text, ())


def _judgements(path: Path, split: str | None) -> dict[str | None, tuple[str, ...]] | None:
    """What the `qrels` folder beside BEIR's queries says: of each query the ids with a positive
    grade, the highest first. None if there is no such folder.

    Raises
    ------
    InputError: the folder has no file for the split, or a line is malformed.
    """
    folder = path.parent / "qrels"
    if path.is_dir() or bare_name(path) != "queries" or not folder.is_dir():
        return None
    files = {bare_name(one): one for one in sorted(folder.glob("*.tsv*"))}
    name = split or ("test" if "test" in files else next(iter(files), ""))
    if name not in files:
        raise InputError(
            f"{folder} has no judgements of the split {name!r}; there are {', '.join(files)}."
        )
    relevant: dict[str | None, tuple[str, ...]] = {}
    for query, judged in read_qrels(files[name]).items():
        best = sorted(judged, key=judged.__getitem__, reverse=True)  # a stable sort
        if found := tuple(one for one in best if judged[one] > 0):
            relevant[query] = found
    return relevant
