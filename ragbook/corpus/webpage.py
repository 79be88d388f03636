"""The readable text of an HTML page, without its navigation.

selectolax parses as browsers do; what is text and what is not is decided here, by the page's own
elements. Compared with trafilatura on pages of documentation, a blog, tables and lists, and a page
without a body: trafilatura keeps the navigation of short pages, and breaks a line at each link.
"""

from __future__ import annotations

import codecs
import re
from typing import TYPE_CHECKING

from ragbook.corpus.readable import Readable, Unreadable

if TYPE_CHECKING:
    from selectolax.lexbor import LexborHTMLParser, LexborNode

DEEPEST = 10_000
"""Elements inside each other; on more the parser's time grows with the square of their number."""

_MAIN = ("main", "[role=main]", "article")
_NEVER = frozenset(
    (
        "audio", "button", "canvas", "datalist", "dialog", "embed", "iframe", "input", "noscript",
        "object", "script", "select", "style", "svg", "template", "textarea", "title", "video",
    )
)  # fmt: skip
_AROUND = frozenset(("aside", "footer", "header", "nav"))
_ROLES = frozenset(("banner", "complementary", "contentinfo", "navigation", "search"))
_CLASSES = frozenset(
    (
        "anchor-link", "breadcrumb", "breadcrumbs", "comments", "cookie-banner", "footer",
        "headerlink", "menu", "nav", "navbar", "navigation", "newsletter", "pagination",
        "prev-next", "related", "share", "sharing", "sidebar", "skip-link", "sphinxsidebar", "toc",
    )
)  # fmt: skip
"""Classes and ids of what surrounds the text."""
_BLOCKS = frozenset(
    (
        "address", "article", "aside", "blockquote", "body", "caption", "center", "dd", "details",
        "div", "dl", "dt", "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3",
        "h4", "h5", "h6", "header", "hr", "legend", "li", "main", "nav", "ol", "p", "pre",
        "section", "summary", "table", "tbody", "tfoot", "thead", "tr", "ul",
    )
)  # fmt: skip
_NESTED = re.compile(
    r"<(/?)(?:address|article|aside|blockquote|center|details|dialog|dir|div|dl|fieldset|figure|"
    r"footer|form|header|hgroup|listing|main|menu|nav|ol|pre|search|section|summary|ul)\b",
    re.I,
)
_CHARSET = re.compile(rb"""<meta\b[^>]{0,1000}?\bcharset\s*=\s*["']?\s*([\w.:-]+)""", re.I)
_XML = re.compile(rb"""<\?xml\b[^>]{0,200}?\bencoding\s*=\s*["']([\w.:-]+)""")
_TEXT_CODECS = re.compile(
    r"utf-8|ascii|iso8859-\d+|cp\d+|koi8-\w|mac-\w+|shift_jis\w*|euc_\w+|iso2022_\w+|gb2312|gbk|"
    r"gb18030|big5\w*|johab|hz|tis-620|ptcp154"
)


def decode_page(data: bytes) -> str:
    """The text of a page's bytes, by its byte order mark, the charset that it declares, or UTF-8.

    Raises
    ------
    Unreadable: the charset is not known, or the bytes are not of it.
    """
    for mark, name in ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"),
                       (codecs.BOM_UTF16_BE, "utf-16-be")):  # fmt: skip
        if data.startswith(mark):
            return _decoded(data[len(mark) :], name)
    beginning = data[:4096]
    declared = _XML.match(beginning) or _CHARSET.search(beginning)
    if declared is None:
        return _decoded(data, "utf-8")
    name = declared[1].decode("ascii", "replace").lower()
    try:
        known = codecs.lookup(name).name
    except LookupError:
        known = ""
    if known.startswith("utf-16"):  # what says so in ASCII is not UTF-16
        known = "utf-8"
    if known in ("ascii", "iso8859-1"):
        known = "cp1252"  # as browsers read it
    if not _TEXT_CODECS.fullmatch(known):
        raise Unreadable(f"its charset {name[:40]!r} is not known; convert it to UTF-8")
    return _decoded(data, known)


def _decoded(data: bytes, charset: str) -> str:
    try:
        return data.decode(charset)
    except UnicodeDecodeError as error:
        if charset == "cp1252":  # it has five bytes that stand for nothing
            return data.decode("latin-1")
        raise Unreadable(
            f"byte {data[error.start]:#04x} at position {error.start:,} is not {charset.upper()}; "
            "convert it to UTF-8"
        ) from None


def read_page(text: str) -> Readable:
    """The readable text of HTML; its places are the numbers of its blocks, such as paragraphs, list
    items, rows of tables and headings.

    Of a page that marks its main part, this is read; of another, all but what surrounds the text,
    such as navigation and footer; if that leaves nothing, everything. The title is the page's, or
    its first heading of the first level.

    Raises
    ------
    Unreadable: its elements are nested too deeply.
    """
    from selectolax.lexbor import LexborHTMLParser

    depth = 0
    for match in _NESTED.finditer(text):
        depth = max(0, depth - 1) if match[1] else depth + 1
        if depth > DEEPEST:
            raise Unreadable("its elements are nested too deeply")
    page = LexborHTMLParser(text.replace("\0", ""))
    title = page.css_first("head > title") or page.css_first("h1")
    name = "" if title is None else " ".join(title.text().replace("¶", "").split())
    for root, bare in _roots(page):
        out = _Blocks(Readable(name)).read(root, bare)
        if out.text:
            return out
    return Readable(name)


def _roots(page: LexborHTMLParser) -> list[tuple[LexborNode, bool]]:
    """Which elements to read until one has text, and whether without what surrounds the text."""
    found: list[tuple[LexborNode, bool]] = []
    for selector in _MAIN:
        parts = page.css(selector)
        if len(parts) == 1:
            found.append((parts[0], True))
            break
    body = page.body or page.root
    return found if body is None else [*found, (body, True), (body, False)]


class _Blocks:
    """Puts the text of elements together to blocks."""

    def __init__(self, out: Readable) -> None:
        self.out = out
        self.count = 0
        self.parts: list[str] = []
        self.level = 0

    def read(self, root: LexborNode, bare: bool) -> Readable:
        """Read an element, without what surrounds the text if it is to be `bare`."""
        whole = root.tag not in ("body", "html")  # its own header and notes are part of it
        depth_of_pre = 0
        stack: list[tuple[LexborNode, bool]] = [(root, False)]
        while stack:
            node, done = stack.pop()
            tag = node.tag or ""
            if done:
                depth_of_pre -= tag == "pre"
                self._end(tag)
                continue
            if not done and node is not root and node.next is not None:
                stack.append((node.next, False))
            if node.is_text_node:
                raw = node.text_content or ""
                self.parts.append(raw if depth_of_pre else re.sub(r"\s+", " ", raw))
                continue
            if not node.is_element_node or (
                node is not root and (tag in _NEVER or (bare and _surrounds(node, tag, whole)))
            ):
                continue
            if tag == "br":
                self.parts.append("\n")
            self._begin(tag)
            depth_of_pre += tag == "pre"
            stack.append((node, True))
            if node.child is not None:
                stack.append((node.child, False))
        self._flush()
        return self.out

    def _begin(self, tag: str) -> None:
        if tag in _BLOCKS:
            self._flush()
            self.level = int(tag[1]) if len(tag) == 2 and tag[1].isdigit() else 0
        elif tag in ("td", "th") and any(part.strip() for part in self.parts):
            self.parts.append(" | ")

    def _end(self, tag: str) -> None:
        if tag in _BLOCKS:
            self._flush()

    def _flush(self) -> None:
        text = "".join(self.parts).strip()
        self.parts = []
        if text:
            self.count += 1
            self.out.add(self.count, text, level=self.level)
        self.level = 0


def _surrounds(node: LexborNode, tag: str, whole: bool) -> bool:
    """Whether an element is none of the text but navigation, a footer or the like."""
    if tag == "nav" or (tag in _AROUND and not whole and (tag != "header" or not node.css("h1"))):
        return True
    attributes = node.attributes
    if "hidden" in attributes or (attributes.get("role") or "").lower() in _ROLES:
        return True
    names = f"{attributes.get('class') or ''} {attributes.get('id') or ''}".lower().split()
    return not _CLASSES.isdisjoint(names)
