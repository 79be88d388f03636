"""The readable text of a Markdown file: CommonMark with tables, without its markup."""

from __future__ import annotations

import html
import re
from functools import cache
from typing import TYPE_CHECKING, Any

from ragbook.corpus.readable import Readable

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

INLINE = 20_000
"""The most characters of a paragraph whose markup is looked at: no author writes a longer one, and
on some such the parser takes long."""

_FRONT = {"---": re.compile(r"title[ \t]*:[ \t]+(.+)"), "+++": re.compile(r"title[ \t]*=(.+)")}
_FENCE = re.compile(r"[ >]*(`{3,}(?=[^`]*$)|~{3,})")
_DEFINITION = re.compile(r" {0,3}\[(?!\^)((?:[^\[\]\\]|\\.){1,999})\]:[ \t]+\S.*")
_ITS_TITLE = re.compile(r"""[ \t]+(?:"[^"]*"|'[^']*'|\([^()]*\))[ \t]*""")
_FOOTNOTE = re.compile(r"\[\^[^\]\s]+\]:?")
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
_HIDDEN = [
    (re.compile(opening, re.I), re.compile(closing, re.I))
    for opening, closing in (
        ("<!--", "-->"),
        (r"<script\b", "</script>"),
        (r"<style\b", "</style>"),
    )
]


def read_markdown(text: str) -> Readable:
    """The readable text of Markdown; its places are line numbers.

    The front matter, targets of links, images, comments and tags are left out, code is kept. The
    title is the front matter's, or the first heading.
    """
    lines = text.split("\n")
    title = _take_front_matter(lines)
    references = _take_definitions(lines)
    out = Readable(title)
    row: list[str] | None = None  # cells of the table's row that is being read
    row_place, first_row = 0, False
    tokens = _parser().parse("\n".join(lines))
    for number, token in enumerate(tokens):
        place = token.map[0] + 1 if token.map else 1
        if token.type == "table_open":
            first_row = True
        elif token.type == "tr_open":
            row, row_place = [], place
        elif token.type == "tr_close" and row is not None:
            out.add(row_place, " | ".join(filter(None, row)), block=first_row)
            row, first_row = None, False
        elif token.type == "inline":
            found = _inline(token, references)
            if row is not None:
                row.append(" ".join(text for _, text in found))
                continue
            before = tokens[number - 1]
            if before.type == "heading_open":
                heading = " ".join(text for _, text in found)
                out.title = out.title or heading
                out.add(place, heading, level=int(before.tag[1]))
                continue
            _add_lines(out, found)
        elif token.type in ("fence", "code_block"):
            first = place + (token.type == "fence")
            _add_lines(out, list(enumerate(token.content.split("\n"), first)))
        elif token.type == "html_block":
            lines = map(html.unescape, _without_tags(token.content).split("\n"))
            _add_lines(out, list(enumerate(lines, place)))
    return out


@cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    # Definitions of links are taken out before, as the parser's time for many of them grows with
    # the square of their number; paragraphs are parsed one by one in `_inline`.
    return MarkdownIt("commonmark").enable("table").disable(["reference", "inline"])


def _take_front_matter(lines: list[str]) -> str:
    """Blank the lines of the front matter, in YAML or TOML; returns the title in it, or nothing."""
    mark = lines[0].rstrip()
    if mark not in _FRONT:
        return ""
    ends = (n for n, line in enumerate(lines) if n and line.rstrip() in (mark, "..."))
    end = next(ends, None)
    if end is None or not any(re.match(r"[\w-]+[ \t]*[:=]", line) for line in lines[1:end]):
        return ""  # two rulers, not front matter
    found = (_FRONT[mark].match(line) for line in lines[1:end])
    title = next((match[1].strip() for match in found if match), "")
    lines[: end + 1] = [""] * (end + 1)
    if len(title) > 1 and title[0] == title[-1] and title[0] in "\"'":
        return title[1:-1]
    return title


def _take_definitions(lines: list[str]) -> dict[str, Any]:
    """Blank the lines that say where links lead, outside of code; returns them for the parser."""
    from markdown_it.common.utils import normalizeReference

    found: dict[str, Any] = {}
    fence, blank, before = "", True, False  # what the line before was: blank, a definition
    for number, line in enumerate(lines):
        if mark := _FENCE.match(line):
            if not fence:
                fence = mark[1]
            elif mark[1].startswith(fence) and not line[mark.end() :].strip():
                fence = ""
        match = None if fence or not blank else _DEFINITION.fullmatch(line)
        if match:
            found.setdefault(normalizeReference(match[1]), {"href": "", "title": ""})
            lines[number] = ""
        elif before and _ITS_TITLE.fullmatch(line):
            lines[number] = ""
        blank, before = not lines[number].strip() or line.startswith("#"), match is not None
    return found


def _inline(token: Token, references: dict[str, Any]) -> list[tuple[int, str]]:
    """(line number, text) of each line of a paragraph, heading or cell, without its markup."""
    place = token.map[0] + 1 if token.map else 1
    source = token.content.split("\n")
    if len(token.content) > INLINE:
        return list(enumerate(source, place))
    children: list[Token] = []
    parser = _parser()
    parser.inline.parse(token.content, parser, {"references": references}, children)
    texts = [""]
    for child in children:
        if child.type in ("softbreak", "hardbreak"):
            texts.append("")
        elif child.type == "html_inline":
            texts[-1] += " " if child.content.lower().startswith("<br") else ""
        elif child.type == "text":
            texts[-1] += _FOOTNOTE.sub("", child.content)
        elif child.type != "image":
            texts[-1] += child.content
    if len(texts) == len(source):
        return list(enumerate(texts, place))
    # A line end within a link, a tag or code is none of the text: look where the lines begin.
    found, at = [], 0
    for text in texts:
        word = next(iter(text.split()), "")
        at = next((n for n in range(at, len(source)) if word in source[n]), at)
        found.append((place + at, text))
        at = min(at + 1, len(source) - 1)
    return found


def _add_lines(out: Readable, lines: list[tuple[int, str]]) -> None:
    """Add the lines of one block."""
    first = True
    for place, text in lines:
        if text.strip():
            out.add(place, text, block=first)
            first = False


def _without_tags(markup: str) -> str:
    """HTML without tags, comments, scripts and styles, with the same line ends."""
    for opening, closing in _HIDDEN:
        kept, at = [], 0
        while begin := opening.search(markup, at):
            end = closing.search(markup, begin.end())
            if end is None:  # never closed: what follows is kept
                break
            kept += [markup[at : begin.start()], _line_ends(markup[begin.start() : end.end()])]
            at = end.end()
        markup = "".join([*kept, markup[at:]])
    return _TAG.sub(lambda tag: _line_ends(tag[0]), markup).replace("<!--", "")


def _line_ends(text: str) -> str:
    return "\n" * text.count("\n")
