"""Question files: NQ-open's JSON lines, SQuAD's JSON, DPR's JSON and CSV, plain or gzip."""

import ast
import json
import os
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from ragbook.corpus import miniwiki
from ragbook.corpus.files import (
    bare_name,
    checked_text,
    format_suffix,
    read_json,
    read_lines,
    read_objects,
    read_rows,
    text_field,
)
from ragbook.corpus.types import Question, QuestionSet
from ragbook.errors import InputError

_FORMATS = (
    'NQ-open JSON lines (.jsonl; "question", "answer"), SQuAD or DPR JSON (.json), '
    "or DPR CSV (.csv, .tsv; question, tab, ['answer', ...]), each also as .gz"
)

_Reader = Callable[[Path], Iterator[Question | None]]  # None stands for an unanswerable question


def load_questions(name_or_path: str | os.PathLike[str], split: str | None = None) -> QuestionSet:
    """The questions of a bundled set or of a file.

    The bundled sets are ``"miniwiki"`` and ``"miniwiki-2012"``, with the answers of the earlier
    edition; `split` is train, dev or test, the default. A file has only one split: `split` only
    names it in the results, and is "all" by default. Questions that a SQuAD file marks as
    unanswerable are left out and counted in ``skipped``. A question keeps the "id" that it has in
    JSON; ids are unique.

    Raises InputError if there is no such set, the format is unknown, an entry is malformed, or
    no question is left.
    """
    if name_or_path in miniwiki.NAMES:
        return miniwiki.questions(split or "test", miniwiki.NAMES[str(name_or_path)])
    path = Path(name_or_path)
    if not os.path.exists(path):
        raise InputError(
            f"There is no file {path} and no question set of that name; the bundled questions "
            f"are {' and '.join(map(repr, miniwiki.NAMES))}, and a file can be {_FORMATS}."
        )
    entries = list(_reader(path)(path))
    questions = [question for question in entries if question is not None]
    if not questions:
        raise InputError(f"{path} holds no question with an answer; expected {_FORMATS}.")
    seen: set[str] = set()
    for question in questions:
        if question.id in seen:
            raise InputError(
                f"{path}: the question id {question.id!r} is used a second time; ids "
                "must be unique."
            )
        if question.id is not None:
            seen.add(question.id)
    skipped = len(entries) - len(questions)
    return QuestionSet(bare_name(path), split or "all", questions, skipped)


def _reader(path: Path) -> _Reader:
    """The reader for the file's suffix or, if that does not tell the format, for its beginning."""
    suffix = format_suffix(path)
    if suffix == ".jsonl":
        return _read_jsonl
    if suffix in (".csv", ".tsv"):
        return _read_csv
    first = next(islice((line.strip() for line in read_lines(path) if line.strip()), 1), "")
    if not first:
        raise InputError(f"{path} is empty; expected {_FORMATS}.")
    if _is_question(first):  # JSON lines are often named .json
        return _read_jsonl
    if first[0] in "{[" or suffix == ".json":
        return _read_json
    if "\t[" in first or '\t"[' in first:
        return _read_csv
    raise InputError(f"The format of {path} is not known; expected {_FORMATS}.")


def _is_question(line: str) -> bool:
    """Whether this line of a file is a complete JSON object with a question."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and "question" in value


def _read_jsonl(path: Path) -> Iterator[Question]:
    for line, value in read_objects(path):
        where = f"{path}, line {line}"
        text = text_field(where, value, "question")
        key = "answers" if "answers" in value and "answer" not in value else "answer"
        if key not in value:
            raise InputError(f'{where}: the key "answer" is missing.')
        gold = value.get("gold_passage")
        if gold is not None:
            gold = checked_text(where, '"gold_passage"', gold)
        yield Question(text, _answers(where, value[key]), gold, id=_id(where, value))


def _read_json(path: Path) -> Iterator[Question | None]:
    value = read_json(path)
    if isinstance(value, dict) and isinstance(value.get("data"), list):
        yield from _squad(path, value["data"])
    elif isinstance(value, list):
        yield from _dpr(path, value)
    else:
        raise InputError(
            f'{path} is neither SQuAD JSON (an object with a list "data") nor DPR JSON (a list '
            'of objects with "question" and "answers").'
        )


def _squad(path: Path, data: list[Any]) -> Iterator[Question | None]:
    """SQuAD 1.1 and 2.0. The contexts are whole paragraphs and not passages of a corpus, so that no
    gold passage is known."""
    for a, article in enumerate(data, 1):
        for p, paragraph in enumerate(_list(f"{path}, article {a}", article, "paragraphs"), 1):
            place = f"{path}, article {a}, paragraph {p}"
            for q, qa in enumerate(_list(place, paragraph, "qas"), 1):
                where = f"{place}, question {q}"
                answers = _list(where, qa, "answers")
                text = text_field(where, qa, "question")
                if qa.get("is_impossible") or not answers:
                    yield None
                    continue
                texts = [
                    answer.get("text") if isinstance(answer, dict) else None for answer in answers
                ]
                yield Question(text, _answers(where, texts), id=_id(where, qa))


def _dpr(path: Path, entries: list[Any]) -> Iterator[Question]:
    """DPR's retriever files. The first positive context is the gold passage."""
    for n, entry in enumerate(entries, 1):
        where = f"{path}, entry {n}"
        if not isinstance(entry, dict):
            raise InputError(f"{where}: not a JSON object.")
        text = text_field(where, entry, "question")
        answers = _answers(where, _list(where, entry, "answers"))
        positives = entry.get("positive_ctxs") or [{}]
        if not isinstance(positives, list) or not isinstance(positives[0], dict):
            raise InputError(f'{where}: "positive_ctxs" must be a list of objects.')
        # The key is passage_id in the files for Natural Questions and psg_id in the others.
        gold = positives[0].get("passage_id", positives[0].get("psg_id"))
        if gold is not None and (isinstance(gold, bool) or not isinstance(gold, str | int)):
            raise InputError(f"{where}: the id of the gold passage must be a string or a number.")
        gold = None if gold in (None, "") else checked_text(where, "the gold id", str(gold))
        yield Question(text, answers, gold, id=_id(where, entry))


def _read_csv(path: Path) -> Iterator[Question]:
    for line, row in read_rows(path):
        where = f"{path}, line {line}"
        if len(row) != 2:
            raise InputError(
                f"{where}: the row has {len(row)} columns; expected 2 (question, list of "
                "answers), separated by a tab."
            )
        try:
            answers = ast.literal_eval(row[1])
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            answers = None
        if not isinstance(answers, list):
            raise InputError(f"{where}: the answers must be a list such as ['Paris', 'paris'].")
        yield Question(checked_text(where, "the question", row[0]), _answers(where, answers))


def _id(where: str, value: dict[str, Any]) -> str | None:
    """The question's own id, a string or a whole number; None if it has none."""
    own = value.get("id")
    if isinstance(own, int) and not isinstance(own, bool):
        own = str(own)
    return None if own is None else checked_text(where, '"id"', own)


def _list(where: str, value: Any, key: str) -> list[Any]:
    if not isinstance(value, dict):
        raise InputError(f"{where}: not a JSON object.")
    if not isinstance(value.get(key), list):
        raise InputError(f'{where}: the list "{key}" is missing.')
    return value[key]


def _answers(where: str, answers: Any) -> tuple[str, ...]:
    """The answers in their order, without repetitions."""
    if not isinstance(answers, list) or not answers:
        raise InputError(f"{where}: the answers must be a list of at least one string.")
    return tuple(dict.fromkeys(checked_text(where, "an answer", answer) for answer in answers))
