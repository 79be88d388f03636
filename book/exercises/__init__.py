"""Exercises that say when they are right.

Each module here belongs to one chapter and has one check per exercise. A check takes the reader's
function or value, compares it with what the package computes or with numbers worked out by hand,
and prints a verdict. `book/solutions` has a notebook for each chapter that passes all its checks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any


def exercise(check: Callable[[Any], None]) -> Callable[[Any], None]:
    """Turn a function that asserts into one that prints a verdict and raises nothing.

    The reader's function raises NotImplementedError until it is written; the message of the check's
    AssertionError is printed as a hint. Any other error is the reader's own and is not caught.
    """

    @wraps(check)
    def checked(answer: Any) -> None:
        try:
            check(answer)
        except NotImplementedError:
            print("Not written yet.")
        except AssertionError as hint:
            print(f"Not right yet: {hint}")
        else:
            print("Right.")

    return checked
