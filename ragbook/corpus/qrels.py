"""Qrels, relevance judgements in TREC's form or BEIR's, and what they share with run files: columns
separated by white space.

An id with white space cannot stand in such a file. Each white space is written as the percent code
of its UTF-8 bytes (`guide/my%20setup.md#L12`), which other tools take as part of the id, and so is
a percent sign that would be read as the beginning of such a code; all other ids stand as they are.
What is read is turned back.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ragbook.corpus.files import located, read_lines
from ragbook.errors import InputError
from ragbook.files import write_whole

Qrels = dict[str, dict[str, int]]
"""The judged grade of each passage, by query; 0 is not relevant."""


_COLUMN = re.compile(r"[^ \t\n\r\v\f]+")  # what C's isspace, and so trec_eval, splits at
_SPACES = "".join(filter(str.isspace, map(chr, range(0x3001))))
_CODES = {"".join(f"%{byte:02X}" for byte in one.encode()): one for one in (*_SPACES, "%")}
_CODE = re.compile("|".join(_CODES))
_TO_ESCAPE = re.compile(rf"%(?={'|'.join(code[1:] for code in _CODES)})|\s")
_OTHER_ENDINGS = (".bz2", ".xz", ".zst", ".zip")
_GRADE = 10_000
_HEADER = ["query-id", "corpus-id", "score"]


def read_qrels(path: Path | str) -> Qrels:
    """The judgements of a qrels file, plain or compressed, in the file's order: TREC's `query 0
    passage grade`, or BEIR's three columns with the header `query-id corpus-id score`.

    Raises
    ------
    InputError: a line has other columns, a grade is no whole number, a passage is judged twice for
        one query, or there is no line at all; the message names file and line.
    """
    path = Path(path)
    qrels: Qrels = {}
    width = 4
    for number, line in columns(path):
        if line == _HEADER and not qrels:
            width = 3
            continue
        if len(line) != width:
            raise InputError(
                f"{path}, line {number}: {len(line)} columns; a line of a qrels file has {width}, "
                "separated by white space: query, 0, passage, grade (or, below the header "
                "'query-id corpus-id score', three)."
            )
        query, passage, grade = unescaped(line[0]), unescaped(line[-2]), line[-1]
        judged = qrels.setdefault(query, {})
        if passage in judged:
            raise InputError(
                f"{path}, line {number}: the passage {passage!r} is judged a second time for the "
                f"query {query!r}; remove one of the two."
            )
        judged[passage] = _grade(path, number, grade)
    if not qrels:
        raise InputError(f"{path} holds no judgement; a line is: query, 0, passage, grade.")
    return qrels


def _grade(path: Path, number: int, text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,9}", text) or abs(int(text)) > _GRADE:
        raise InputError(
            f"{path}, line {number}: the grade {text!r} is no whole number of at most {_GRADE:,}; "
            "the columns are query, 0, passage, grade."
        )
    return int(text)


def write_qrels(path: Path | str, qrels: Mapping[str, Mapping[str, int]]) -> None:
    """Write judgements in TREC's form, gzip if the file's name ends in .gz; the file is there whole
    or not at all. Ids are written as `escaped` says.

    Raises
    ------
    InputError: an id is empty.
    """
    write_columns(
        Path(path),
        (
            f"{escaped(query)} 0 {escaped(passage)} {grade}\n"
            for query, judged in qrels.items()
            for passage, grade in judged.items()
        ),
    )


def escaped(identifier: str) -> str:
    """An id as it stands in a run or qrels file; see the module.

    Raises
    ------
    InputError: the id is empty, or no text that UTF-8 can write.
    """
    try:
        identifier.encode()
    except UnicodeEncodeError:
        raise InputError(
            f"The id {identifier!r} holds half a surrogate pair, which is not Unicode text; give "
            "it another id."
        ) from None
    if not identifier:
        raise InputError("An empty id cannot stand in a run or qrels file; give each one an id.")
    return _TO_ESCAPE.sub(_code, identifier)


def _code(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode())


def unescaped(column: str) -> str:
    """The id that `escaped` wrote so."""
    if "%" not in column:
        return column
    return _CODE.sub(lambda match: _CODES[match[0]], column)


def columns(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield (line, its columns) of a file whose columns are separated by white space, as trec_eval
    reads it; blank lines are skipped. `-` is standard input."""
    for number, line in enumerate(read_lines(located(path)), 1):
        if found := _COLUMN.findall(line):
            yield number, found


def write_columns(path: Path, lines: Iterable[str]) -> None:
    """Write lines in UTF-8, gzip if the file's name ends in .gz, whole or not at all.

    Raises
    ------
    InputError: the name is that of another compression.
    """
    if path.suffix.lower() in _OTHER_ENDINGS:
        raise InputError(f"{path} would be compressed as {path.suffix}; name it .gz, or plain.")

    def write(file: Any) -> None:
        # Without the time, equal rankings are equal files.
        stream = gzip.GzipFile("", "wb", 6, file, mtime=0) if zipped else file
        for line in lines:
            stream.write(line.encode())
        if zipped:
            stream.close()

    zipped = path.suffix.lower() == ".gz"
    write_whole(path, write)
