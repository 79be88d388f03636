"""One thread at a time uses the models.

Loaded models are shared: several methods use one encoder and the states that it keeps, and a
tokenizer stores the padding and truncation it was last asked for. Two threads cannot use these at
once, and one answer keeps all cores busy anyway. A function that uses a model therefore waits for
its turn; during its turn it may call others that need one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

TURN = threading.RLock()
"""Held by the thread whose turn it is."""


def one_at_a_time(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function so that a thread waits while another thread runs it, or runs any other
    function with this decorator."""

    @wraps(function)
    def in_turn(*args: P.args, **kwargs: P.kwargs) -> R:
        with TURN:
            return function(*args, **kwargs)

    return in_turn
