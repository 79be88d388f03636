"""What the fuzz tests share: how many cases they draw, and the one property that they test.

`RAGBOOK_FUZZ=N` multiplies the number of cases by N and draws others at every run; without it they
are few and the same ones every time.
"""

import os
from collections.abc import Callable
from typing import TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from ragbook.errors import InputError

TIMES = max(1, int(os.environ.get("RAGBOOK_FUZZ", "1")))

_T = TypeVar("_T")

NASTY = (
    b"", b"\0", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\r", b"\n", b"\t", b'"', b"'", b"\\", b"{",
    b"[" * 5_000, b"9" * 5_000, b"\\ud800", b"null", b"true", b"-1", b"1e999", b"NaN", b"{}",
    "\u200b".encode(), "\u202e".encode(), "٣²".encode(), b"../../x", b"<", b"&#xD800;", b"]]>",
    b"\xef\xbb\xbf", b"\x1f\x8b\x08", b"BZh9", b"PK\x03\x04", b"\x1b[2J", b"\x80\x04N.",
)  # fmt: skip
"""Bytes that break readers: no text, halves of characters, numbers and nestings without measure."""


def fuzzed(examples: int) -> settings:
    """The settings of a fuzz test that draws `examples` cases, or RAGBOOK_FUZZ times as many."""
    return settings(
        max_examples=examples * TIMES,
        deadline=None,
        derandomize=TIMES == 1,
        database=None,
        suppress_health_check=[
            HealthCheck.too_slow,
            HealthCheck.data_too_large,
            HealthCheck.filter_too_much,
            HealthCheck.function_scoped_fixture,
        ],
    )


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """`whole` after up to four changes: bits flipped, bytes replaced, inserted, cut or repeated."""
    data = whole
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["insert", "replace", "flip", "cut", "end", "repeat"])):
            case "insert":
                data = data[:at] + draw(st.sampled_from(NASTY)) + data[at:]
            case "replace":
                last = at + draw(st.integers(1, 20))
                data = data[:at] + draw(st.sampled_from(NASTY)) + data[last:]
            case "flip" if at < len(data):
                data = data[:at] + bytes([data[at] ^ 1 << draw(st.integers(0, 7))]) + data[at + 1 :]
            case "cut":
                data = data[:at] + data[at + draw(st.integers(1, 50)) :]
            case "end":
                data = data[:at]
            case "repeat":
                data = data[:at] + data[max(0, at - draw(st.integers(1, 50))) :]
    return data


def right_or_told(call: Callable[[], _T]) -> _T | None:
    """What a call returns, or None where it refuses in one sentence. Any other error, and a
    sentence that shows how the code is made, fails the test."""
    try:
        return call()
    except InputError as error:
        said = str(error)
        assert said.strip()
        assert "\n" not in said.strip()
        assert "Traceback" not in said
        return None
