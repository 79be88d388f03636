"""Wikimedia's XML dumps, page by page: `pages-articles.xml.bz2`, or the same as plain XML or gzip.

The standard library's parser reads the file while it is decompressed, and every page is dropped
after it was yielded, so that memory does not grow with the dump. The layout of the lines does not
matter; a page's own id differs from those of its revisions and contributors by its parent element.
"""

from __future__ import annotations

import bz2
import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from xml.etree.ElementTree import Element, ParseError, iterparse

from ragbook.corpus.ids import Ids, is_number
from ragbook.corpus.nesting import check_work
from ragbook.corpus.types import Passage
from ragbook.corpus.wikis import REDIRECT
from ragbook.corpus.wikitext import FILES_AND_CATEGORIES, is_disambiguation, parse, plain_text
from ragbook.errors import InputError

_ARTICLES = "0"  # the namespace
_MEDIA, _FILE, _CATEGORY = "-2", "6", "14"
_OPENERS = {b"BZh": bz2.open, b"\x1f\x8b": gzip.open}


@dataclass(frozen=True, slots=True)
class Page:
    """An article as the dump has it.

    Attributes
    ----------
    id: the page's id, which stays the same when the page is renamed.
    revision: id of the revision, the newest if the dump has several.
    wikitext: wikitext of that revision.
    without: this wiki's lower-case names of the namespaces whose links are not text.
    """

    id: str
    revision: str
    title: str
    wikitext: str
    without: frozenset[str]


def is_dump(path: Path) -> bool:
    """Whether a file's name says that it is a MediaWiki dump.

    Raises
    ------
    InputError: it is compressed with 7z, which is not supported.
    """
    name = path.name.lower()
    if name.endswith(".xml.7z"):
        raise InputError(
            f"{path} is compressed with 7z; take the dump's .xml.bz2, or unpack it to .xml."
        )
    return name.endswith((".xml", ".xml.bz2", ".xml.gz"))


def read_pages(path: Path) -> Iterator[Page]:
    """The articles of a dump in its order: pages of the main namespace that are wikitext and not
    redirects. Disambiguation pages are included, as only their wikitext shows that they are some.

    Raises
    ------
    InputError: the file is missing, not a dump, damaged, cut short, or has a page twice.
    """
    seen = Ids()
    without = FILES_AND_CATEGORIES
    # The parser is ahead of the events: a page may already hold revisions that are not complete.
    current, newest = Element("page"), None
    try:
        with _opened(path) as file:
            events = iterparse(file, events=("start", "end"))
            root = next(events)[1]
            if _tag(root) != "mediawiki":
                raise InputError(
                    f"{path} is not a MediaWiki dump, as its XML begins with <{root.tag}>; name "
                    "another file."
                )
            for event, element in events:
                tag = _tag(element)
                if event == "start" and tag == "page":
                    current, newest = element, None
                elif event == "end" and tag == "siteinfo":
                    without = FILES_AND_CATEGORIES | _names(element)
                elif event == "end" and tag == "revision":
                    newest = _newer(current, newest, element)
                elif event == "end" and tag == "page":
                    page = _page(path, element, newest, without)
                    root.clear()
                    if page is None:
                        continue
                    if not seen.add(page.id):
                        raise InputError(f"{path} has the page {page.id} ({page.title!r}) twice.")
                    yield page
    except ParseError as error:
        raise InputError(f"{path} is not well-formed XML, or is cut short: {error}.") from None
    except FileNotFoundError:
        raise InputError(f"There is no file {path}; check its name.") from None
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read to its end: {reason}.") from error


def article(page: Page) -> Passage | None:
    """The whole text of a page as one passage with the page's id; None for a disambiguation page
    and for one without any running text.

    Raises
    ------
    BrokenMarkup: its markup is too broken to be read in bounded time.
    """
    check_work(page.wikitext)
    code = parse(page.wikitext)
    if is_disambiguation(page.title, code):
        return None
    text = plain_text(code, page.without)
    return Passage(page.id, page.title, text) if text else None


def _opened(path: Path) -> IO[bytes]:
    """The open file, decompressed while it is read; its first bytes tell the compression."""
    with open(path, "rb") as raw:
        magic = raw.read(3)
    for beginning, opener in _OPENERS.items():
        if magic.startswith(beginning):
            return opener(path, "rb")  # both read all streams of a multistream file
    return open(path, "rb")


def _tag(element: Element) -> str:
    """The tag without its XML namespace, which contains the schema's version."""
    return element.tag.rpartition("}")[2]


def _child(element: Element, tag: str) -> Element | None:
    return next((child for child in element if _tag(child) == tag), None)


def _value(element: Element, tag: str) -> str:
    child = _child(element, tag)
    return "" if child is None else child.text or ""


def _names(siteinfo: Element) -> frozenset[str]:
    """This wiki's lower-case names of the namespaces for media, files and categories."""
    return frozenset(
        (space.text or "").lower()
        for space in siteinfo.iter()
        if _tag(space) == "namespace" and space.get("key") in (_MEDIA, _FILE, _CATEGORY)
    )


def _newer(page: Element, one: Element | None, other: Element) -> Element:
    """The newer of two revisions; the other is removed from the page, as histories are large."""
    if one is None:
        return other
    newer, older = one, other
    if _value(one, "timestamp") <= _value(other, "timestamp"):
        newer, older = other, one
    page.remove(older)
    return newer


def _page(
    path: Path, element: Element, newest: Element | None, without: frozenset[str]
) -> Page | None:
    """The page if it is an article, else None."""
    if _value(element, "ns") not in ("", _ARTICLES) or _child(element, "redirect") is not None:
        return None
    if newest is None or _value(newest, "model") not in ("", "wikitext"):
        return None
    text = _value(newest, "text")
    if REDIRECT.match(text):
        return None  # dumps of other programs do not have the redirect element
    title, number = _value(element, "title").strip(), _value(element, "id").strip()
    if not title or not is_number(number):
        raise InputError(f"{path} has a page without title or id (title {title!r}, id {number!r}).")
    return Page(number, _value(newest, "id"), title, text, without)
