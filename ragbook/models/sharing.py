"""One thread at a time uses the models.

Loaded models are shared: methods read with one encoder, their tokenizers remember how they were
last asked to pad and cut, and what one of them has read another finds done. None of that can be
used by two threads at once, and one answer keeps all cores busy anyway. Whatever uses a model
therefore waits for its turn; a function that has it may call others that need it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_TURN = threading.RLock()


def one_at_a_time(function: Callable[P, R]) -> Callable[P, R]:
    """The function, run by one thread at a time, and by none while another function of this kind
    is run by another thread."""

    @wraps(function)
    def in_turn(*args: P.args, **kwargs: P.kwargs) -> R:
        with _TURN:
            return function(*args, **kwargs)

    return in_turn
