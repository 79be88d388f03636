"""The plain text of a Wikipedia article, from its wikitext (parsed by mwparserfromhell).

The running text of the page is kept: paragraphs, list items, the text of links, and of the few
templates that stand for words in a sentence (`_TEMPLATES`). Tables, infoboxes, references,
formulas, galleries, files, categories and headings are removed, and so are the closing sections
that only list other works. No template is fetched or expanded.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Collection
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from ragbook.corpus.wikis import CLOSING, FILES, listed
from ragbook.errors import InputError

if TYPE_CHECKING:
    from mwparserfromhell.wikicode import Wikicode  # pyright: ignore[reportMissingImports]

FILES_AND_CATEGORIES = FILES | {"category"}
"""Names of the namespaces whose links are not text; a wiki has its own names as well."""

_DROPPED_TAGS = listed(
    "ce | chem | gallery | graph | hiero | imagemap | inputbox | mapframe | maplink | math | ref "
    "| references | score | section | source | syntaxhighlight | table | templatedata | "
    "templatestyles | timeline"
)

# Only the template at its end shows that a page is a disambiguation page.
_DISAMBIGUATION = listed(
    "dab | disam | disamb | disambig | disambiguation | disambiguation page | geodis | hndis | "
    "mathdab | numberdis | schooldis | roaddis | shipindex | letter-number combination "
    "disambiguation | aimai | begriffsklärung | bkl | desambiguação | desambiguación | disambigua "
    "| doorverwijspagina | förgrening | homonymie | ujednoznacznienie | неоднозначность"
)
_DISAMBIGUATING = re.compile(
    r"disambig(?:uation)? .*|.* disambig(?:uation)?(?: page)?|.* dis?amb?(?: page)?"
)

_CONNECTORS = {"-": "–", "–": "–", "to": " to ", "and": " and ", "or": " or ", "by": " by "}
_CONNECTORS |= {"x": " × ", "×": " × ", "to(-)": " to ", "+/-": " ± ", "±": " ± "}
_NUMBER = re.compile(r"[-+−]?[\d.,/]+(?:\+\d+/\d+|e[-+]?\d+)?")
_MIXED = re.compile(r"([\d.,]+)\+(\d+/\d+)")  # {{convert|2+1/2|in}} is 2 1/2 inches
_MONTHS = (
    ("January", "February", "March", "April", "May", "June", "July", "August", "September",
     "October", "November", "December")
)  # fmt: skip

_COMMENT = re.compile(
    r"(<(nowiki|pre|math|source|syntaxhighlight)\b[^<>]*(?<!/)>.*?</\2\s*>)"
    r"|<!--.*?(?:-->|\Z)|<includeonly>.*?(?:</includeonly>|\Z)",
    re.DOTALL | re.IGNORECASE,
)
_INTERWIKI = re.compile(r"(?:[a-z]{2,3}|simple)(?:-[a-z]+)*:(?=\S)")

_UNCLOSED_TABLE = re.compile(
    r"^[ :]*\{\|.*?(?:^[^\S\n]*\|\}|\n[^\S\n]*\n|\Z)", re.DOTALL | re.MULTILINE
)
_TABLE_LINE = re.compile(r"^[^\S\n]*\|.*$", re.MULTILINE)
_UNCLOSED_REFERENCE = re.compile(
    r"<ref\b[^<>]*(?<=/)>|<ref\b[^<>]*>.*?(?:</ref>|$)|<ref\b", re.MULTILINE
)
_LEFTOVERS = re.compile(r"\{\{[^\n]*|\}\}|\[\[|\]\]|'{2,}|</?[a-z][^<>]*>|__[A-Z]+__")
_EMPTY_BRACKETS = re.compile(r"\(\s*(?:[;,:]\s*)*\)|\[\s*\]")
_BRACKET_OPENING = re.compile(r"\(\s*(?:[;,]\s*)+")
_BRACKET_CLOSING = re.compile(r"(?<![\s;,])(?:\s*[;,])*\s*\)")
_REPEATED_SEPARATORS = re.compile(r"([;,])(?:\s*[;,])+")
_LITERAL = {ord(mark): 0xE000 + ord(mark) for mark in "<>{}[]|'_"}
_MARKS = {hidden: mark for mark, hidden in _LITERAL.items()}
"""Characters that a page shows as they are (from entities or <nowiki>) are replaced by characters
of the private use area until the remains of broken markup have been removed."""
_NO_CHARACTER = re.compile(r"[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_BEFORE_PUNCTUATION = re.compile(r"\s+([,.;:](?=\s|$))")


def parse(wikitext: str) -> Wikicode:
    """The parsed wikitext without its comments, of which one that is not closed hides the rest of
    the page, and without what only shows where the page is included in another.

    Raises
    ------
    InputError: mwparserfromhell is not installed.
    """
    try:
        import mwparserfromhell  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        raise InputError(
            "Reading a Wikipedia dump needs mwparserfromhell; install it with "
            "`pip install 'ragbook[wikipedia]'`."
        ) from None
    return mwparserfromhell.parse(_COMMENT.sub(r"\1", wikitext))


def is_disambiguation(title: str, code: Wikicode) -> bool:
    """Whether a page only lists the meanings of its title, judged by title and templates."""
    if title.endswith("(disambiguation)"):
        return True
    if "__DISAMBIG__" in code:
        return True
    names = (_name(template) for template in code.filter_templates(recursive=False))
    return any(name in _DISAMBIGUATION or _DISAMBIGUATING.fullmatch(name) for name in names)


def plain_text(code: Wikicode, without: Collection[str] = FILES_AND_CATEGORIES) -> str:
    """The running text of parsed wikitext, its words separated by single spaces.

    Parameters
    ----------
    without: namespaces, in lower case, whose links are left out.
    """
    kept, closing = [], 0  # the level of the closing section that is left out now, or 0
    nodes: list[Any] = code.nodes
    for node in nodes:
        if type(node).__name__ == "Heading":
            if not closing or node.level <= closing:
                heading = " ".join(_text(node.title, without).lower().split())
                closing = node.level if heading in CLOSING else 0
            kept.append("\n\n")
        elif not closing:
            kept.append(_node(node, without))
    text = _UNCLOSED_REFERENCE.sub(" ", "".join(kept))
    text, tables = _UNCLOSED_TABLE.subn("\n", text)
    if tables or "{{" in text:  # elsewhere a line may well begin with |
        text = _TABLE_LINE.sub(" ", text)
    text = " ".join(_LEFTOVERS.sub(" ", text).split())
    # Removed templates leave brackets and commas: "Paris (; ) is".
    text = _REPEATED_SEPARATORS.sub(r"\1", text)
    text = _BRACKET_CLOSING.sub(")", _BRACKET_OPENING.sub("(", _EMPTY_BRACKETS.sub(" ", text)))
    text = _BEFORE_PUNCTUATION.sub(r"\1", " ".join(text.split()))
    return " ".join(text.translate(_MARKS).split())


def _text(code: Wikicode | None, without: Collection[str]) -> str:
    return "" if code is None else "".join(_node(node, without) for node in code.nodes)


def _node(node: Any, without: Collection[str]) -> str:
    """The running text of a node of the parsed wikitext."""
    match type(node).__name__:
        case "Text":
            return node.value
        case "HTMLEntity":
            return _entity(node)
        case "Template":
            return _template(node, without)
        case "Wikilink":
            return _wikilink(node, without)
        case "ExternalLink":
            return _text(node.title, without) if node.brackets else ""
        case "Tag":
            return _tag(node, without)
    return ""  # comments, headings and the arguments of templates


def _entity(node: Any) -> str:
    """The character of an entity; one that stands for none, such as &#xD800; and &#0;, is shown as
    it is written, as MediaWiki shows it."""
    try:
        text = node.normalize()
    except (ValueError, OverflowError):
        text = "\0"
    return (str(node) if _NO_CHARACTER.search(text) else text).translate(_LITERAL)


def _tag(node: Any, without: Collection[str]) -> str:
    name = str(node.tag).strip().lower()
    if name in _DROPPED_TAGS:
        return " "
    if name in ("li", "dt", "dd", "br", "hr") and node.self_closing:
        return " "
    if name == "nowiki":
        return str(node.contents).translate(_LITERAL)
    inside = _text(node.contents, without)
    block = name in ("div", "p", "li", "dt", "dd", "blockquote", "poem", "td", "tr", "ul", "ol")
    return f"\n{inside}\n" if block else inside


def _wikilink(node: Any, without: Collection[str]) -> str:
    title = _shown_title(node.title).strip()
    visible = title.startswith(":")  # [[:Category:Rivers]] is a link in the text
    title = title.removeprefix(":")
    space, colon, _ = title.partition(":")
    named = space.strip().replace("_", " ").lower()
    if colon and not visible and (named in without or _INTERWIKI.match(title)):
        return ""
    return title if node.text is None else _text(node.text, without)


def _shown_title(title: Wikicode) -> str:
    """A link's title with the characters of its entities and without its section (#...)."""
    shown = ""
    nodes: list[Any] = title.nodes
    for node in nodes:
        if type(node).__name__ != "Text":
            shown += _entity(node) if type(node).__name__ == "HTMLEntity" else str(node)
            continue
        before, section, _ = node.value.partition("#")
        if section and (shown + before).strip():
            return shown + before
        shown += node.value
    return shown


# --- templates that stand for words ---------------------------------------------------------------

_Arguments = list[str]


def _name(template: Any) -> str:
    """A template's name in lower case, with spaces for underscores."""
    name = " ".join(re.sub(r"<!--.*?-->", "", str(template.name)).replace("_", " ").split()).lower()
    return name.removeprefix("template:")


def _template(node: Any, without: Collection[str]) -> str:
    name = _name(node)
    if name.startswith("formatnum:"):
        return name.removeprefix("formatnum:").split("|")[0]
    language = re.fullmatch(r"lang-[a-z-]+", name)
    render = _argument(0) if language else _TEMPLATES.get(name)
    if render is None:
        return ""
    # Arguments are taken by name, as {{lang|1=fr|2=...}} is the same as {{lang|fr|...}}.
    other = _OTHER_NAMES.get("lang" if language else name, {})
    given: dict[str, Any] = {}
    for parameter in node.params:
        key = str(parameter.name).strip()
        given[other.get(key, key)] = parameter.value
    values = (given.get(str(number)) for number in range(1, len(given) + 1))
    arguments = [
        _text(value, without).strip()
        for value in takewhile(lambda value: value is not None, values)
    ]
    if name in _WITH_NAMED:
        named = {key: _text(value, without).strip() for key, value in given.items()}
        return _WITH_NAMED[name](arguments, named)
    return render(arguments)


def _argument(number: int) -> Callable[[_Arguments], str]:
    """The rendering of a template as its argument of that number, from 0."""
    return lambda given: given[number] if number < len(given) else ""


def _last(given: _Arguments) -> str:
    return given[-1] if given else ""


def _convert(given: _Arguments) -> str:
    """{{convert|5|to|10|km|mi}} becomes "5 to 10 km": the measure itself, not the converted one."""
    text, rest = "", deque(given)
    while rest:
        text += _MIXED.sub(r"\1 \2", rest.popleft())
        if rest and rest[0] in _CONNECTORS:
            text += _CONNECTORS[rest.popleft()]
            continue
        if rest:
            text += f" {rest.popleft()}"
        if len(rest) < 2 or not _NUMBER.fullmatch(rest[0]):
            break  # no second unit of the same measure, as in {{convert|6|ft|2|in|m}}
        text += " "
    return text


def _value(given: _Arguments, named: dict[str, str]) -> str:
    """{{val|1.5|0.2|e=3|u=km}} becomes "1.5±0.2×103 km", as it does without the raised digits."""
    text = "".join(given[:1])
    if len(given) == 2:
        text += given[1] if given[1].startswith("(") else f"±{given[1]}"
    elif len(given) > 2:
        text += "".join(
            part if part[:1] in ("+", "-", "−") else mark + part
            for mark, part in zip("+−", given[1:3], strict=True)
        )
    if power := named.get("e"):
        text += f"×10{power}"
    unit = named.get("u") or named.get("ul") or ""
    per = named.get("up") or named.get("upl") or ""
    unit += f"/{per}" if per else ""
    return named.get("p", "") + text + named.get("s", "") + (f" {unit}" if unit else "")


def _as_of(given: _Arguments, named: dict[str, str]) -> str:
    """{{As of|2010|5|3}} becomes "As of 3 May 2010"."""
    if named.get("alt"):
        return named["alt"]
    year, month, day = [*given, "", "", ""][:3]
    if month.isascii() and month.isdigit() and 1 <= int(month[:3]) <= 12:
        month = _MONTHS[int(month) - 1]
    date = " ".join(part for part in (day if month else "", month, year) if part)
    return f"{'as' if named.get('lc') else 'As'} of {date}"


def _years(word: str, between: str) -> Callable[[_Arguments], str]:
    """The rendering of one year or two after `word`, with `between` between them."""
    return lambda given: word + between.join(part for part in given[:2] if part)


def _fraction(given: _Arguments) -> str:
    if len(given) == 1:
        return f"1/{given[0]}"
    return f"{given[0]} {given[1]}/{given[2]}" if len(given) > 2 else "/".join(given)


def _ship(given: _Arguments) -> str:
    return " ".join(part for part in given[:2] if part)


def _constant(text: str) -> Callable[[_Arguments], str]:
    return lambda given: text


def _after(text: str) -> Callable[[_Arguments], str]:
    """The rendering of a template as `text` and its first argument."""
    return lambda given: text + (given[0] if given else "")


_TEMPLATES: dict[str, Callable[[_Arguments], str]] = {
    **dict.fromkeys(("convert", "cvt"), _convert),
    **dict.fromkeys(("lang", "langx", "transl", "transliteration", "translit"), _argument(1)),
    **dict.fromkeys(
        listed(
            "abbr | abbrlink | as written | big | blockquote | bold | center | cquote | em | "
            "emphasis | gloss | ill | interlanguage link | italic | italics | linktext | literal "
            "translation | nobold | nobr | noitalic | nowrap | nq | pull quote | quote | small | "
            "smallcaps | strong | sub | sup | title | var | vanchor | visible anchor"
        ),
        _argument(0),
    ),
    **dict.fromkeys(("nihongo", "nihongo3", "korean", "val", "num", "nts"), _argument(0)),
    **dict.fromkeys(("frac", "fraction", "sfrac"), _fraction),
    **dict.fromkeys(("ship", "sclass", "sclass2"), _ship),
    **dict.fromkeys(("color", "font color"), _last),
    **dict.fromkeys(("snd", "spnd", "spaced ndash", "spaced en dash"), _constant(" – ")),
    **dict.fromkeys(("ndash", "en dash", "nd"), _constant("–")),
    **dict.fromkeys(("mdash", "em dash", "md"), _constant("—")),
    **dict.fromkeys(("nbsp", "space", "thin space", "spaces"), _constant(" ")),
    **dict.fromkeys(("circa", "c.", "ca."), _years("c. ", " – c. ")),
    **dict.fromkeys(("floruit", "fl."), _years("fl. ", "–")),
    **dict.fromkeys(("us$", "usd"), _after("US$")),
    "hms": _after("HMS "),
    "uss": _after("USS "),
    "as of": _after("As of "),
    "'": _constant("'"),
    "=": _constant("="),
    "!": _constant("|"),
    "·": _constant(" · "),
    "pi": _constant("π"),
    "gbp": _after("£"),
    "euro": _after("€"),
}

_WITH_NAMED: dict[str, Callable[[_Arguments, dict[str, str]], str]] = {
    "val": _value,
    "as of": _as_of,
}
"""Templates of which arguments with names are shown too."""

_QUOTED = {"text": "1", "quote": "1", "content": "1"}
_FOREIGN = {"code": "1", "text": "2"}
_OTHER_NAMES: dict[str, dict[str, str]] = {
    **{name: _QUOTED for name in ("quote", "blockquote", "cquote", "pull quote")},
    **{name: _FOREIGN for name in ("lang", "langx", "transl", "transliteration")},
}
"""Names of arguments that are otherwise known by their number."""
