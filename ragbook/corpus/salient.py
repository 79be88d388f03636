r"""Salient spans: the names and dates of a sentence, found by rules (Guu et al. 2020, section 3.4).

The paper masks named entities, which a tagger finds, and dates, which a regular expression finds:
to predict these, a model needs knowledge from other texts and not only grammar. Here rules find
both, so that the data need no model and no download:

* a **date** is a day with its month or a month with its year, in either order, a year from 1000 to
  2099, with or without BC or AD, a decade ("1920s") or a century ("the 19th century");
* a **name** is a run of capitalised words, with words such as "of", "de" and "the" between them.
  The first word of a sentence is always capitalised: it counts unless the corpus has it in lower
  case somewhere. Roman numerals and initials are part of the name around them; months and days of
  the week alone are not names.

The rules miss names written in lower case (viruses, genes). They do not tell whether "Washington"
is a town or a man, which is not needed here. They include adjectives of nations ("Russian"), which
the paper's tagger counts as entities too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
_YEAR = r"(?:1\d{3}|20\d{2})"
_DATE = re.compile(
    rf"\b(?:\d{{1,2}} (?:{_MONTHS})(?: {_YEAR})?"
    rf"|(?:{_MONTHS}) \d{{1,2}}, {_YEAR}|(?:{_MONTHS}) {_YEAR}"
    rf"|\d{{1,4}} BC|AD \d{{1,4}}|{_YEAR}s?"
    r"|(?:\d{1,2}(?:st|nd|rd|th)|[a-z]+(?:th|st|nd|rd)) century)\b"
)
_JOINING = "of|the|de|del|della|di|da|du|la|le|van|von|der|den|al|ibn|bin|and|y|upon|on"
_CAPITALISED = r"[^\W\d_a-zà-öø-ÿ][\w’'.-]*"
_NAME = re.compile(
    rf"(?<!\w){_CAPITALISED}(?:(?: (?:{_JOINING})){{0,2}} {_CAPITALISED})*", re.UNICODE
)
_NO_NAME = re.compile(rf"(?:{_MONTHS}|(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day|I)\Z")
_WORD = re.compile(r"[\w’'-]+")
_END = re.compile(r"(?<=[\w)”’\"'%])[.!?]+(?=[\s]+[^\s\da-zà-öø-ÿ])")
_ABBREVIATION = re.compile(r"(?:^|[\s(.])(?:[A-Z]|St|Mr|Mrs|Dr|Mt|No|Jr|Sr|vs|c|ca)\Z")

Span = tuple[int, int]
"""Begin and end of a span, in characters; the end is not included."""


def sentences(text: str) -> list[Span]:
    """The spans of the sentences of a text, without the spaces between them.

    A full stop after an initial or after one of a few abbreviations does not end a sentence.
    """
    spans, begin = [], 0
    for match in _END.finditer(text):
        if match[0] == "." and _ABBREVIATION.search(
            text[max(0, match.start() - 8) : match.start()]
        ):
            continue
        spans.append((begin, match.end()))
        begin = match.end()
    spans.append((begin, len(text)))
    trimmed = []
    for first, last in spans:
        piece = text[first:last]
        first += len(piece) - len(piece.lstrip())
        if piece.strip():
            trimmed.append((first, first + len(piece.strip())))
    return trimmed


class SalientSpans:
    """Finds names and dates.

    Parameters
    ----------
    texts: a word that they have in lower case does not count as a name at the beginning of a
        sentence.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._common = {
            word for text in texts for word in _WORD.findall(text) if word[:1].islower()
        }

    def __call__(self, sentence: str) -> list[Span]:
        """The salient spans of one sentence, from left to right; none overlaps another."""
        dates = [match.span() for match in _DATE.finditer(sentence)]
        # A date is not part of a name: it is replaced by marks that end a name.
        rest = _DATE.sub(lambda match: "|" * len(match[0]), sentence)
        names = []
        for match in _NAME.finditer(rest):
            first, last = match.span()
            opening = _WORD.match(sentence, first)
            begins = not _WORD.search(sentence, 0, first)
            if begins and opening and opening[0].lower() in self._common:
                following = _NAME.search(rest, opening.end(), last)
                if following is None:
                    continue
                first = following.start()
            name = sentence[first:last]
            name = re.sub(r"(?:’s|'s|[.'’-])+\Z", "", name)
            if len(name) > 1 and not _NO_NAME.match(name):
                names.append((first, first + len(name)))
        return sorted(dates + names)
