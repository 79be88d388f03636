"""Models that are made to be filled from files, without the random numbers they begin with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ragbook.models.sharing import TURN


@contextmanager
def unfilled() -> Iterator[None]:
    """Within the block, bundled models are made without first values, which take longer to draw
    than the stored ones to read.

    Only for models whose every tensor is then read from files; a training draws the values of new
    layers, and goes on from the generator's state after them.
    """
    from transformers.initialization import no_init_weights

    with TURN, no_init_weights():  # which holds for all threads
        yield
