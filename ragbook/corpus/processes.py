"""Worker processes that end with the process that started them."""

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import connection
from typing import Any


def process_pool(
    processes: int, start: Callable[..., None] | None = None, arguments: tuple[Any, ...] = ()
) -> ProcessPoolExecutor:
    """A pool of spawned processes: forked ones can hang if torch or Faiss has run threads before.

    Parameters
    ----------
    start: called with `arguments` in every process before its first task.
    """
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(processes, context, _start, (start, arguments))


def _start(start: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if start is not None:
        start(*arguments)


def _end_with_parent() -> None:
    """End this worker when its parent ends: a killed parent cannot do it, and the worker would wait
    for ever or go on writing."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
