"""Text from outside, made safe to print: titles, ids, paths and names of corpora."""

from __future__ import annotations

import unicodedata

_UNSEEN = ("Cc", "Cf", "Zl", "Zp", "Cs", "Co")
_JOINERS = "\u200c\u200d"  # Persian and Indic words and emoji need them


def printable(text: object) -> str:
    """A text as it may stand in a line of a terminal or of a file that people read: what would move
    the cursor, change colours, break the line or turn its direction is written as an escape.

    Control and format characters (Unicode's categories Cc and Cf), line and paragraph separators,
    surrogates and private characters become ``\\x1b`` or ``\\u202e``, as in Python's strings; the
    joiners within words and emoji stay.
    """
    return "".join(map(_shown, str(text)))


def _shown(character: str) -> str:
    if unicodedata.category(character) not in _UNSEEN or character in _JOINERS:
        return character
    return character.encode("unicode_escape").decode()
