"""Reads files line by line, plain or compressed; every error names the file and the line.

The readers of passages and questions use these functions. All stream except :func:`read_json`; none
changes a character of the text (except that a byte order mark at the very start is dropped).
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import re
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import IO, Any

import msgspec

from ragbook.errors import InputError

FIELD = 1 << 24
"""The most characters of a column: some bound must end a quote that is never closed."""

STANDARD_INPUT = "-"
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
"""What is left out of a file's name where its format and its own name are told."""

_COMPRESSIONS = {  # no UTF-8 text of more than some letters begins with these bytes
    re.compile(rb"\x1f\x8b"): lambda raw: gzip.GzipFile(fileobj=raw),
    re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)"): bz2.BZ2File,
    re.compile(rb"\xfd7zXZ\0"): lzma.LZMAFile,
    re.compile(rb"\x28\xb5\x2f\xfd"): lambda raw: _zstandard(raw),
}
_NO_TEXT = {
    b"BZh": "is compressed with bzip2",
    b"\x1f\x8b": "is compressed with gzip",
    b"\xfd7zXZ\0": "is compressed with xz",
    b"\x28\xb5\x2f\xfd": "is compressed with zstandard",
    b"7z\xbc\xaf\x27\x1c": "is a 7z archive",
    b"PK\x03\x04": "is a zip archive",
    b"PAR1": "is a Parquet file",
    b"ARROW1": "is an Arrow file",
    b"%PDF": "is a PDF file",
    b"\xff\xfe": "is in UTF-16",
    b"\xfe\xff": "is in UTF-16",
}
"""What a file is that begins with these bytes where text is expected; what is decompressed is not
decompressed again."""


def _zstandard(raw: IO[bytes]) -> Any:
    import pyarrow as pa

    return pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd")


def located(name: str | Path) -> Path:
    """The path of a file; that of a temporary copy for `-`, standard input."""
    return standard_input() if str(name) == STANDARD_INPUT else Path(name)


@lru_cache(maxsize=1)
def standard_input() -> Path:
    """A file with what stands on standard input, which is gone when this process ends: a format is
    found by looking at a file's beginning before it is read."""
    if sys.stdin is None or sys.stdin.isatty():
        raise InputError("Standard input is a terminal; give it a file, as in `< passages.jsonl`.")
    folder = tempfile.TemporaryDirectory(prefix="ragbook-")
    _KEPT.append(folder)
    path = Path(folder.name) / "standard-input"
    with open(path, "wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    return path


_KEPT: list[tempfile.TemporaryDirectory[str]] = []


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """A file's bytes, decompressed if they are gzip, bzip2, xz or zstandard, as the first bytes
    tell. Raises InputError for a file that is missing, a folder, damaged, or not whole."""
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the file itself.")
    try:
        with open(path, "rb") as raw:
            beginning = raw.peek(16)[:16]
            stream: Any = raw
            for magic, unpack in _COMPRESSIONS.items():
                if magic.match(beginning):  # a buffer, as lines come slowly without one
                    stream = io.BufferedReader(unpack(raw), 1 << 17)
            yield stream
    except FileNotFoundError:
        raise InputError(f"There is no file {path}; check its name.") from None
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read to its end: {reason}.") from error


def beginning(path: Path, size: int = 16) -> bytes:
    """The first bytes of a file, decompressed."""
    with opened(path) as stream:
        return stream.read(size)


def read_lines(path: Path) -> Iterator[str]:
    """The file's lines with their line ends, split at line feeds only.

    Raises InputError for a file that is missing, a folder, damaged, no text, not UTF-8, or whose
    lines end in carriage returns alone.
    """
    return _decoded(path, by_line=True)


def first_line(path: Path) -> str:
    """The first line that is not blank, without white space around it; "" if there is none."""
    return next(islice((line.strip() for line in read_lines(path) if line.strip()), 1), "")


def read_text(path: Path) -> str:
    """The file's whole text, with any line ends; otherwise as :func:`read_lines`."""
    return "".join(_decoded(path, by_line=False))


def _decoded(path: Path, by_line: bool) -> Iterator[str]:
    with opened(path) as stream:
        _check_beginning(path, stream.peek(), by_line)  # type: ignore[attr-defined]
        for number, line in enumerate(stream, 1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise InputError(
                    f"{path}, line {number}: byte {line[error.start]:#04x} is not UTF-8; "
                    "convert the file to UTF-8."
                ) from None


def _check_beginning(path: Path, beginning: bytes, by_line: bool) -> None:
    for magic, said in _NO_TEXT.items():
        if beginning.startswith(magic):
            raise InputError(
                f"{path} {said}; convert it to text in UTF-8, plain or compressed (a MediaWiki "
                "dump is cut into passages by `ragbook corpus build`)."
            )
    if by_line and b"\n" not in beginning and b"\r" in beginning.strip():
        raise InputError(
            f"{path}, line 1: the lines end in carriage returns alone; convert them to line feeds."
        )


def read_rows(path: Path, separator: str = "\t") -> Iterator[tuple[int, list[str]]]:
    """Yield (line where the row begins, its columns) of a file with CSV quoting, by default
    tab-separated; blank lines are skipped.

    This is the form of DPR's own files and reader, but a row that may hold others is refused, where
    that reader joins them. Raises InputError if quotes do not close, are followed by text or
    enclose what looks like further rows, or if a column is longer than `FIELD` characters.
    """
    # The limit is one for all of Python, so it is only ever raised.
    csv.field_size_limit(max(FIELD, csv.field_size_limit()))
    reader = csv.reader(read_lines(path), delimiter=separator, strict=True)
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
        if reader.line_num > line and _may_be_several(row, separator):
            raise InputError(
                f"{path}, line {line}: a quote begins a column here and ends one only in line "
                f"{reader.line_num}, so that the rows between would be joined to one; double each "
                'quote inside a column that begins with one (""), or write the file as JSON lines.'
            )
        if row:
            yield line, row


def _may_be_several(row: list[str], separator: str) -> bool:
    """Whether a column that spans lines has the separators of several whole rows: those after it on
    its first line and those before it on its last line. Commas stand in any text, so there each
    line must have just as many as a row, and what would be a row's first column no white space."""
    for before, column in enumerate(row):
        lines, after = column.split("\n"), len(row) - 1 - before
        if len(lines) == 1:
            continue
        first, *between, last = [line.count(separator) for line in lines]
        if separator == "\t":
            if first >= after and last >= before:
                return True
        elif (first, last) == (after, before) and set(between) <= {len(row) - 1}:
            begins = [line.partition(separator)[0] for line in lines[1:]]
            if all(re.fullmatch(r"\S+", own) for own in begins):
                return True
    return False


def read_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line, object) of a JSON-lines file; blank lines are skipped. Raises InputError for a
    line that is not one JSON object."""
    decode = msgspec.json.Decoder().decode
    for number, line in enumerate(read_lines(path), 1):
        if line.isspace():
            continue
        try:
            value = decode(line)
        except (msgspec.MsgspecError, RecursionError):
            try:  # what msgspec refuses may be what Python's own reader takes, or explains better
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
    """The lower-case suffix that tells the format, without that of a compression: ``.tsv`` for
    ``psgs_w100.tsv.gz``."""
    bare = path.with_suffix("") if path.suffix.lower() in COMPRESSED else path
    return bare.suffix.lower()


def bare_name(path: Path) -> str:
    """The file's name without the suffixes of its format: ``nq-dev`` for ``nq-dev.jsonl.gz``."""
    bare = path.with_suffix("") if path.suffix.lower() in COMPRESSED else path
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
    if not may_be_empty and (not text or text.isspace()):
        raise InputError(f"{where}: {what} is empty.")
    try:
        if not text.isascii():
            text.encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(
            f"{where}: {what} holds half a surrogate pair, which is not Unicode text; remove it."
        ) from None
    return text
