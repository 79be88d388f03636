"""The text of a PDF file, page by page, through pypdf."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ragbook.corpus.readable import Unreadable
from ragbook.errors import InputError

MOST_PAGES = 100_000
INSTALL = "pip install 'ragbook[pdf]'"


class MissingPypdf(InputError):
    """The package that reads PDF files is not installed."""


def read_pdf(path: Path, faults: list[str]) -> tuple[str, Iterator[tuple[int, str]]]:
    """The title of a PDF file, empty if it names none, and (number from 1, text) of its pages, read
    one at a time. What is wrong with a page is added to `faults` when it is reached.

    Raises
    ------
    MissingPypdf: pypdf is not installed.
    Unreadable: the file is broken or encrypted.
    """
    try:
        import pypdf
    except ModuleNotFoundError:
        raise MissingPypdf(
            f"Reading {path} needs the package pypdf; install it with `{INSTALL}`."
        ) from None
    with _silent():
        try:
            reader = pypdf.PdfReader(path)
            if reader.is_encrypted and not reader.decrypt(""):
                raise Unreadable("it is encrypted; save it without a password")
            count = len(reader.pages)
            title = _text((reader.metadata or {}).get("/Title"))
        except Unreadable:
            raise
        except Exception as error:  # pypdf raises errors of many kinds for broken files
            if type(error).__name__ == "DependencyError":
                raise Unreadable("it is encrypted; save it without a password") from None
            raise Unreadable(f"it is no whole PDF file ({_said(error)})") from None
    if count > MOST_PAGES:
        raise Unreadable(f"it has {count:,} pages, more than {MOST_PAGES:,}")

    def pages() -> Iterator[tuple[int, str]]:
        for number in range(count):
            try:
                with _silent():
                    text = _text(reader.pages[number].extract_text())
            except Exception as error:
                faults.append(f"page {number + 1} cannot be read ({_said(error)})")
                continue
            yield number + 1, text

    return title, pages()


def _text(value: object) -> str:
    """A value as text in valid Unicode without NUL; broken files have halves of surrogate pairs."""
    text = "" if value is None else str(value)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "")


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


@contextmanager
def _silent() -> Iterator[None]:
    """Without pypdf's many remarks about what it repairs."""
    logger = logging.getLogger("pypdf")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)
