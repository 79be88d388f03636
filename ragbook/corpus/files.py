"""Reads text files line by line, plain or gzip; every error names the file and the line.

The readers of passages and questions use these functions. All stream except :func:`read_json`; none
changes a character of the text (except that a byte order mark at the very start is dropped).
"""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ragbook.errors import InputError

FIELD = 1 << 24
"""The most characters of a column: some bound must end a quote that is never closed."""

_GZIP_MAGIC = b"\x1f\x8b"  # no UTF-8 text begins with these two bytes
_NO_TEXT = {
    b"BZh": "is compressed with bzip2",
    b"\xfd7zXZ\0": "is compressed with xz",
    b"\x28\xb5\x2f\xfd": "is compressed with zstandard",
    b"7z\xbc\xaf\x27\x1c": "is a 7z archive",
    b"PK\x03\x04": "is a zip archive",
    b"PAR1": "is a Parquet file",
    b"ARROW1": "is an Arrow file",
    b"\xff\xfe": "is in UTF-16",
    b"\xfe\xff": "is in UTF-16",
}
"""What a file is that begins with these bytes."""


def read_lines(path: Path) -> Iterator[str]:
    """The file's lines with their line ends, split at line feeds only.

    The first two bytes tell whether the file is gzip. Raises InputError for a file that is missing,
    a folder, damaged, of another compression, not UTF-8, or whose lines end in carriage returns
    alone.
    """
    return _decoded(path, by_line=True)


def read_text(path: Path) -> str:
    """The file's whole text, with any line ends; otherwise as :func:`read_lines`."""
    return "".join(_decoded(path, by_line=False))


def _decoded(path: Path, by_line: bool) -> Iterator[str]:
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the file itself.")
    try:
        with open(path, "rb") as raw:
            # GzipFile yields lines slowly without a buffer.
            zipped = raw.peek(2)[:2] == _GZIP_MAGIC
            stream = io.BufferedReader(gzip.GzipFile(fileobj=raw)) if zipped else raw  # type: ignore[arg-type]
            _check_beginning(path, stream.peek(), by_line)
            for number, line in enumerate(stream, 1):
                try:
                    yield line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise InputError(
                        f"{path}, line {number}: byte {line[error.start]:#04x} is not UTF-8; "
                        "convert the file to UTF-8."
                    ) from None
    except FileNotFoundError:
        raise InputError(f"There is no file {path}; check its name.") from None
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read to its end: {reason}.") from error


def _check_beginning(path: Path, beginning: bytes, by_line: bool) -> None:
    for magic, said in _NO_TEXT.items():
        if beginning.startswith(magic):
            raise InputError(
                f"{path} {said}; convert it to text in UTF-8, plain or gzip (a MediaWiki dump is "
                "cut into passages by `ragbook corpus build`)."
            )
    if by_line and b"\n" not in beginning and b"\r" in beginning.strip():
        raise InputError(
            f"{path}, line 1: the lines end in carriage returns alone; convert them to line feeds."
        )


def read_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield (line where the row begins, its columns) of a tab-separated file with CSV quoting;
    blank lines are skipped.

    This is the form of DPR's own files and reader, but a row that may hold others is refused, where
    that reader joins them. Raises InputError if quotes do not close, are followed by text or
    enclose what looks like further rows, or if a column is longer than `FIELD` characters.
    """
    # The limit is one for all of Python, so it is only ever raised.
    csv.field_size_limit(max(FIELD, csv.field_size_limit()))
    reader = csv.reader(read_lines(path), delimiter="\t", strict=True)
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "field larger" in str(error):
                raise InputError(
                    f"{path}, line {line}: a column has more than {FIELD:,} characters, perhaps "
                    "because a quote that begins a column is never closed; close it, or cut the "
                    "text."
                ) from None
            if "new-line character" in str(error):
                raise InputError(
                    f"{path}, line {line}: a carriage return stands within a column without "
                    "quotes; remove it, or enclose the column in quotes."
                ) from None
            raise InputError(
                f"{path}, line {line}: the row's quotes are broken ({error}); a column that "
                'begins with a quote must end with one and double each quote inside: "".'
            ) from None
        if reader.line_num > line and _may_be_several(row):
            raise InputError(
                f"{path}, line {line}: a quote begins a column here and ends one only in line "
                f"{reader.line_num}, so that the rows between would be joined to one; double each "
                'quote inside a column that begins with one (""), or write the file as JSON lines.'
            )
        if row:
            yield line, row


def _may_be_several(row: list[str]) -> bool:
    """Whether a column that spans lines has the tabs of several whole rows: those after it on its
    first line and those before it on its last line."""
    for before, column in enumerate(row):
        lines, after = column.split("\n"), len(row) - 1 - before
        if len(lines) > 1 and lines[0].count("\t") >= after and lines[-1].count("\t") >= before:
            return True
    return False


def read_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line, object) of a JSON-lines file; blank lines are skipped. Raises InputError for a
    line that is not one JSON object."""
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}, line {number}: not valid JSON ({error}).") from None
        if not isinstance(value, dict):
            raise InputError(f"{path}, line {number}: not a JSON object.")
        yield number, value


def read_json(path: Path) -> Any:
    """The value of a JSON file. Raises InputError if it is not one."""
    text = read_text(path)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {error.lineno}: not valid JSON ({error.msg}).") from None
    except ValueError as error:  # a number of more digits than Python reads
        raise InputError(f"{path}: its JSON cannot be read ({error}).") from None
    except RecursionError:
        raise InputError(f"{path}: its JSON is nested too deeply.") from None


def format_suffix(path: Path) -> str:
    """The lower-case suffix that tells the format, without ``.gz``: ``.tsv`` for
    ``psgs_w100.tsv.gz``."""
    bare = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    return bare.suffix.lower()


def bare_name(path: Path) -> str:
    """The file's name without the suffixes of its format: ``nq-dev`` for ``nq-dev.jsonl.gz``."""
    bare = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    return bare.stem


def text_field(where: str, value: dict[str, Any], key: str, may_be_empty: bool = False) -> str:
    """The string at `key` of a JSON object. Raises InputError, beginning with `where`, if it is
    missing, not a string, empty (unless it may be), or holds half a surrogate pair, which is not
    valid Unicode."""
    if key not in value:
        raise InputError(f'{where}: the key "{key}" is missing.')
    return checked_text(where, f'"{key}"', value[key], may_be_empty)


def checked_text(where: str, what: str, text: Any, may_be_empty: bool = False) -> str:
    """`text` itself if it is a proper string; see :func:`text_field`."""
    if not isinstance(text, str):
        raise InputError(f"{where}: {what} must be a string, not {type(text).__name__}.")
    if not may_be_empty and not text.strip():
        raise InputError(f"{where}: {what} is empty.")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(
            f"{where}: {what} holds half a surrogate pair, which is not Unicode text; remove it."
        ) from None
    return text
