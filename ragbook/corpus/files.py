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

_GZIP_MAGIC = b"\x1f\x8b"  # no UTF-8 text begins with these two bytes


def read_lines(path: Path) -> Iterator[str]:
    """The file's lines with their line ends, split at line feeds only.

    The first two bytes tell whether the file is gzip. Raises InputError for a file that is missing,
    a folder, damaged or not UTF-8.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the file itself.")
    try:
        with open(path, "rb") as raw:
            # GzipFile yields lines slowly without a buffer.
            zipped = raw.peek(2)[:2] == _GZIP_MAGIC
            stream = io.BufferedReader(gzip.GzipFile(fileobj=raw)) if zipped else raw  # type: ignore[arg-type]
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


def read_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield (line where the row begins, its columns) of a tab-separated file with CSV quoting;
    blank lines are skipped. Raises InputError if quotes do not close or are followed by text."""
    reader = csv.reader(read_lines(path), delimiter="\t", strict=True)
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise InputError(
                f"{path}, line {line}: the row's quotes are broken ({error}); a column that "
                'begins with a quote must end with one and double each quote inside: "".'
            ) from None
        if row:
            yield line, row


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
    try:
        return json.loads("".join(read_lines(path)))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {error.lineno}: not valid JSON ({error.msg}).") from None
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
