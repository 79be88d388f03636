"""Who waits for an answer: one person at a time is answered, the others wait in a line.

One answer keeps all cores busy (:mod:`ragbook.models.sharing`), so two at once would only both take
twice as long.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

Event = dict[str, Any]


class Line:
    """A line in front of one thread; used from one event loop.

    Parameters
    ----------
    longest: how many may wait, besides the one who is being answered.
    """

    def __init__(self, longest: int) -> None:
        self.longest = longest
        self.closed = False
        self._places: list[asyncio.Event] = []  # of each who is here: set when the line moves
        self._thread = ThreadPoolExecutor(1, "answers")

    def __len__(self) -> int:
        """How many are here: the one who is being answered, and those who wait."""
        return len(self._places)

    @property
    def full(self) -> bool:
        """Whether nobody else may join."""
        return self.closed or len(self._places) > self.longest

    def close(self) -> None:
        """Let nobody join any more, and send away who waits."""
        self.closed = True
        self._move()

    def _move(self) -> None:
        for place in self._places:
            place.set()

    def _leave(self, place: asyncio.Event) -> None:
        self._places.remove(place)
        self._move()

    async def events(self, work: Callable[[], Iterator[Event]]) -> AsyncIterator[Event]:
        """Wait for one's turn and do the work in the thread.

        Yields a ``place`` whenever the number of those before one changes, with that number as
        ``ahead``, then what `work` yields; or ``busy`` if the line is full, or ``stopping`` if it
        closes meanwhile. If the caller stops listening, the place in the line is given up, or the
        work is stopped at its next event.
        """
        if self.full:
            yield {"event": "busy"}
            return
        mine = asyncio.Event()
        self._places.append(mine)
        left, begun = threading.Event(), False
        try:
            while ahead := self._places.index(mine):
                yield {"event": "place", "ahead": ahead}
                mine.clear()
                await mine.wait()
                if self.closed:
                    yield {"event": "stopping"}
                    return
            loop, told = asyncio.get_running_loop(), asyncio.Queue[Event | None]()

            def run() -> None:
                try:
                    for event in work():
                        if left.is_set():
                            return
                        loop.call_soon_threadsafe(told.put_nowait, event)
                finally:
                    if not loop.is_closed():
                        loop.call_soon_threadsafe(told.put_nowait, None)

            future = loop.run_in_executor(self._thread, run)
            begun = True  # the place is kept until the thread is free
            future.add_done_callback(lambda _: self._leave(mine))
            while (event := await told.get()) is not None:
                yield event
            await future  # or its error
        finally:
            left.set()
            if not begun:
                self._leave(mine)
