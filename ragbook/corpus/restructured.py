"""The readable text of a reStructuredText file, without its markup.

The lines are read one by one, as docutils, which reads all of the language, does not know Sphinx's
directives, stops at errors and does not say well in which line a thing stands.
"""

from __future__ import annotations

import re

from ragbook.corpus.readable import Readable

_RULE = re.compile(r"([!-/:-@\[-`{-~])\1*")  # a line of one punctuation mark
_GRID = re.compile(r"\+(?:[-=]+\+)+|=+(?:[ \t]+=+)+|-+(?:[ \t]+-+)+")  # a table's lines
_EXPLICIT = re.compile(r"\.\.(?:[ \t]+|$)")
_DIRECTIVE = re.compile(r"(?:\|[^|]+\|[ \t]+)?([\w:.+-]+?)[ \t]*::(?:[ \t]+(.*)|$)")
_TARGET = re.compile(r"_(?:`[^`]*`|[^:\\]|\\.)*:(?:[ \t]|$)|__(?:[ \t]|$)")
_FOOTNOTE = re.compile(r"\[(?:[#*]?[\w.-]*)\][ \t]+")
_OPTION = re.compile(r"[ \t]*:[\w-]+:(?:[ \t]|$)")

SILENT = frozenset(
    (
        "contents", "currentmodule", "default-role", "highlight", "image", "include", "index",
        "literalinclude", "meta", "module", "py:currentmodule", "py:module", "raw",
        "sectionauthor", "tabularcolumns", "toctree",
    )
)  # fmt: skip
"""Directives without any readable text."""
WITHOUT_ARGUMENT = frozenset(
    (
        "class", "code", "code-block", "container", "cssclass", "figure", "highlights",
        "ipython", "math", "only", "parsed-literal", "plot", "prompt", "rst-class", "sourcecode",
        "testcode", "testoutput",
    )
)  # fmt: skip
"""Directives whose argument is a language, a file or a style, but not text."""
_CODE = frozenset(
    ("code", "code-block", "sourcecode", "math", "prompt", "testcode", "testoutput", "ipython")
)

_LONG = 2_000  # characters of an argument that is not the beginning of a paragraph

_INLINE = [
    (re.compile(r"``(?=\S)((?:[^`]|`(?!`)){1,500}?)``"), r"\1"),
    (re.compile(r":[\w:+.-]+:`(?:[^`<\\]|\\.){0,500}?`"), None),  # a role, without a target
    (re.compile(r":[\w:+.-]+:`([^`<]{1,500}?)\s*<[^`<>]{0,500}>`"), r"\1"),
    (re.compile(r"`([^`<]{1,500}?)\s*<[^`<>]{1,500}>`__?"), r"\1"),
    (re.compile(r"`([^`]{1,500})`(?:__?|:[\w:+.-]+:)?"), r"\1"),
    (re.compile(r"(?<![\w*])\*\*(?=\S)([^*]{1,500}?)(?<=\S)\*\*(?!\w)"), r"\1"),
    (re.compile(r"(?<![\w*])\*(?=\S)([^*]{1,500}?)(?<=\S)\*(?![\w*])"), r"\1"),
    (re.compile(r"(?<![\w|])\|(?=\S)([^|\n]{1,80}?)(?<=\S)\|(?:__?)?(?![\w|])"), r"\1"),
    (re.compile(r"\s?\[(?:#?[\w.-]*|\*)\]_(?!\w)"), ""),  # a footnote's mark
    (re.compile(r"(?<![\w`])([A-Za-z0-9](?:[\w.+-]{0,80}[A-Za-z0-9])?)__?(?![\w`])"), r"\1"),
    (re.compile(r"\\([^\w\s])"), r"\1"),
    (re.compile(r"\\(?=\s)"), ""),
]
"""Inline markup and what remains of it. Lengths are bounded, so that the time is linear."""
_ANY = re.compile("|".join(f"(?P<n{n}>{p.pattern})" for n, (p, _) in enumerate(_INLINE)))


def read_restructured(text: str) -> Readable:
    """The readable text of reStructuredText; its places are line numbers.

    Comments, targets of links, images, options of directives and such directives as `toctree` are
    left out; roles and links become their text; code is kept. The title is that of the first
    section.
    """
    return _Reader(text.split("\n")).read()


class _Reader:
    def __init__(self, lines: list[str]) -> None:
        self.lines = [line.expandtabs() for line in lines]
        self.out = Readable()
        self.styles: list[tuple[bool, str]] = []  # (overlined, mark) of the levels of sections

    def read(self) -> Readable:
        at = 0
        while at < len(self.lines):
            at = self._element(at)
        return self.out

    def _element(self, at: int) -> int:
        """Read what begins in a line; returns the line after it."""
        line = self.lines[at]
        if not line.strip():
            return at + 1
        if (after := self._section(at)) is not None:
            return after
        stripped = line.strip()
        if _EXPLICIT.match(stripped):
            return self._explicit(at)
        if (_RULE.fullmatch(stripped) and len(stripped) > 3) or _GRID.fullmatch(stripped):
            return at + 1
        if re.match(r"__[ \t]+\S", line):  # where an anonymous link leads
            return at + 1
        return self._paragraph(at)

    def _section(self, at: int) -> int | None:
        """Read a section's title, with the line under it and perhaps one above; None if it is
        none."""
        line = self.lines[at].rstrip()
        if self._is_rule(at) and at + 2 < len(self.lines):
            title, under = self.lines[at + 1].strip(), self.lines[at + 2].rstrip()
            if title and under == line and len(title) <= len(line):
                self._heading(at + 1, title, (True, line[0]))
                return at + 3
        if not line[:1].isspace() and at + 1 < len(self.lines) and self._is_rule(at + 1):
            under = self.lines[at + 1].rstrip()
            after = at + 2 >= len(self.lines) or self.lines[at + 2].rstrip() != under
            if after and not _RULE.fullmatch(line) and len(under) >= min(4, len(line)):
                self._heading(at, line, (False, under[0]))
                return at + 2
        return None

    def _is_rule(self, at: int) -> bool:
        line = self.lines[at].rstrip()
        return bool(line) and _RULE.fullmatch(line) is not None and line != "::"

    def _heading(self, at: int, title: str, style: tuple[bool, str]) -> None:
        if style not in self.styles:
            self.styles.append(style)
        name = _plain(title)
        self.out.title = self.out.title or name
        self.out.add(at + 1, name, level=self.styles.index(style) + 1)

    def _explicit(self, at: int) -> int:
        """Read a directive, target, footnote or comment."""
        line = self.lines[at]
        indent = len(line) - len(line.lstrip())
        body = line.strip()[2:].strip()
        end = self._indented(at + 1, indent)
        if match := _DIRECTIVE.match(body):
            name, argument = match[1].lower(), match[2] or ""
            if name in SILENT or body.startswith("|"):  # or a substitution's text
                return end
            options = at + 1 < end and _OPTION.match(self.lines[at + 1])
            if argument and name not in WITHOUT_ARGUMENT:
                if not options and len(argument) < _LONG:
                    return self._again(at, indent, argument)
                self.out.add(at + 1, _plain(argument))
            at += 1
            while at < end and _OPTION.match(self.lines[at]):
                at += 1
            if name in _CODE:
                return self._literal(at, end)
            return at  # what it contains is read as any text
        if (match := _FOOTNOTE.match(body)) and len(body) < _LONG:
            return self._again(at, indent, body[match.end() :])
        if _TARGET.match(body):
            return at + 1
        return end if body or end > at + 1 else at + 1  # a comment

    def _again(self, at: int, indent: int, text: str) -> int:
        """Let a line be read once more, as the beginning of a paragraph of this text."""
        self.lines[at] = " " * (indent + 3) + text
        return at

    def _indented(self, at: int, indent: int) -> int:
        """The line after those, from `at` on, that are blank or indented deeper."""
        end = at
        while at < len(self.lines):
            line = self.lines[at]
            if line.strip():
                if len(line) - len(line.lstrip()) <= indent:
                    break
                end = at + 1
            at += 1
        return end

    def _literal(self, at: int, end: int) -> int:
        """Add lines as they are, as one block."""
        first = True
        for number in range(at, end):
            if self.lines[number].strip():
                self.out.add(number + 1, self.lines[number], block=first)
                first = False
        return max(at, end)

    def _paragraph(self, at: int) -> int:
        """Read lines up to a blank one, and the literal block after two colons."""
        end = at
        while end < len(self.lines) and self.lines[end].strip():
            end += 1
        first = self.lines[at]
        lines = [_without_bullet(line) for line in self.lines[at:end]]
        literal = lines[-1].rstrip().endswith("::")
        if literal:
            last = lines[-1].rstrip()
            lines[-1] = "" if last == "::" else last[:-1]
        for number, text in enumerate(_plain("\n".join(lines)).split("\n"), at + 1):
            own = number == at + 1 or lines[number - at - 1] != self.lines[number - 1]
            self.out.add(number, text, block=own)
        if not literal:
            return end
        return self._literal(end, self._indented(end, len(first) - len(first.lstrip())))


_BULLET = re.compile(r"[ ]*(?:[-*+•][ ]+|\(?(?:\d+|#|[A-Za-z])[.)][ ]+|\|[ ]+(?!.*\|[ ]*$))")


def _without_bullet(line: str) -> str:
    """A line without a list item's bullet or number, a table's bars or a field's colons."""
    if line.lstrip().startswith("|") and line.rstrip().endswith("|") and line.count("|") > 1:
        return " | ".join(filter(None, (cell.strip() for cell in line.strip(" |").split("|"))))
    if _GRID.fullmatch(line.strip()):
        return ""
    match = _BULLET.match(line)
    return line[match.end() :] if match else line


def _plain(text: str) -> str:
    """Text without inline markup, with the same line ends."""
    return _ANY.sub(_remaining, text)


def _remaining(match: re.Match[str]) -> str:
    pattern, kept = _INLINE[int((match.lastgroup or "")[1:])]
    own = pattern.match(match.string, match.start())
    assert own is not None  # it has just matched there
    found = _role_text(own[0]) if kept is None else own.expand(kept)
    return found + "\n" * (own[0].count("\n") - found.count("\n"))


def _role_text(role: str) -> str:
    """What a role such as ``:func:`~package.module.function``` shows."""
    name = role[role.index("`") + 1 : -1].lstrip("!")
    return name.rpartition(".")[2] if name.startswith("~") else name
