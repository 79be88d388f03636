"""What is printed cannot drive a terminal, break a line or turn its direction."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragbook.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("a\nb\r\tc\x85d\u2028e", "a\\nb\\r\\tc\\x85d\\u2028e"),
        ("evil\u202etxt.exe\u2066", "evil\\u202etxt.exe\\u2066"),
        ("\x9b2J", "\\x9b2J"),  # the control sequence introducer of eight-bit terminals
        ("\udc80", "\\udc80"),
        ("Øresund, 京都, نی‌خواهم, 👩‍🚀", "Øresund, 京都, نی‌خواهم, 👩‍🚀"),
    ],
)
def test_what_is_shown(text, shown):
    assert printable(text) == shown


@given(st.text())
def test_nothing_unseen_is_left_and_the_rest_is_unchanged(text):
    shown = printable(text)
    seen = [c for c in shown if c not in "\u200c\u200d"]
    assert not {unicodedata.category(c) for c in seen} & {"Cc", "Cf", "Zl", "Zp", "Cs", "Co"}
    assert printable(shown) == shown
    shown.encode()  # it can be written
    if text.isascii() and text.isprintable():
        assert shown == text
