"""How much work a page's broken markup makes for the parser of wikitext.

mwparserfromhell reads on to the end of the page for every tag, link, template, table or comment
that is opened and not closed, and then takes it for text. A page with 10,000 `<b>` would so take
half a minute, and one of 1 MB hours. All other markup takes time in proportion to its length.
"""

from __future__ import annotations

import re
from functools import lru_cache

WORK = 20_000_000
"""The most characters that may be read again in one page, some seconds of work; a page of 100 KB
comes to it with 200 tags that are opened at its beginning and never closed."""

_ALONE = frozenset(("br", "dd", "dt", "hr", "img", "li", "link", "meta", "td", "th", "tr", "wbr"))
"""Tags that need no end."""

_RAW = frozenset(
    ("categorytree", "ce", "chem", "gallery", "graph", "hiero", "imagemap", "inputbox", "math",
     "nowiki", "pre", "score", "section", "source", "syntaxhighlight", "templatedata", "timeline")
)  # fmt: skip
"""Tags whose content is not markup."""

_MARK = re.compile(
    r"(?P<comment><!--)|<(?P<end>/?)(?P<tag>[a-z][a-z0-9]*)[^<>]*(?P<whole>>?)"
    r"|(?P<open>\{\{|\[\[|\[(?=(?:[a-z]+:)?//)|^[ :]*\{\|)|(?P<close>\}\}|\]\]?|^[ \t]*\|\}(?!\}))",
    re.IGNORECASE | re.MULTILINE,
)
_CLOSES = {"}}": "{{", "]]": "[[", "]": "[", "|}": "{|"}


class BrokenMarkup(ValueError):
    """A page's markup is too broken to be read in bounded time."""


def check_work(wikitext: str) -> None:
    """Raise BrokenMarkup if parsing would read more than `WORK` characters again."""
    if reread(wikitext) > WORK:
        raise BrokenMarkup("too much of its markup is opened and never closed")


def reread(wikitext: str) -> int:
    """About how many characters the parser reads for markup that is not closed in its place: from
    each such opening to the end of the page, of a link's line, or of the tag around it.

    The time this takes is proportional to the text's length.
    """
    end, work, at = len(wikitext), 0, 0
    opened: list[tuple[str, int]] = []  # what, and where it began
    now: dict[str, int] = {}  # how many of each are open
    never: set[str] = set()  # what is closed nowhere from here on
    while mark := _MARK.search(wikitext, at):
        first, at = mark.span()
        tag = (mark["tag"] or "").lower()
        raw = "-->" if mark["comment"] else f"</{tag}" if tag in _RAW and not mark["end"] else ""
        if raw and not mark[0].endswith("/>"):
            found = None if raw in never else _ending(raw).search(wikitext, at)
            if found is None:
                never.add(raw)
                work += end - first
            else:
                at = found.end()
        elif tag and not mark["whole"]:
            work += end - first
        elif tag in _ALONE or mark[0].endswith("/>"):
            pass
        elif (tag and not mark["end"]) or mark["open"]:
            kind = tag or mark["open"].strip(" :")
            opened.append((kind, first))
            now[kind] = now.get(kind, 0) + 1
        elif now.get(kind := tag or _CLOSES[mark["close"].strip()]):
            while (last := opened.pop())[0] != kind:
                now[last[0]] -= 1
                inner = tag and last[0].isalnum()  # the parser gives up a tag at another's end
                work += (first if inner else _given_up(wikitext, last, end)) - last[1]
            now[kind] -= 1
    return work + sum(_given_up(wikitext, last, end) - last[1] for last in opened)


def _given_up(wikitext: str, opened: tuple[str, int], end: int) -> int:
    """Where the parser finds that something was not closed: an address ends with its line."""
    if opened[0] != "[":
        return end
    line = wikitext.find("\n", opened[1])
    return end if line < 0 else line


@lru_cache(maxsize=64)
def _ending(raw: str) -> re.Pattern[str]:
    return re.compile(re.escape(raw), re.IGNORECASE)
