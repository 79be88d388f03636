"""An index whose parts are searched by the actors of a Ray cluster.

The parts are the files that `build_index(parts=...)` wrote, on a disk that all machines share. Each
actor maps one of them, and their results are merged as on one machine. An actor that dies is
started and asked again by Ray; a search waits for it and never leaves out its part.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ragbook.errors import InputError
from ragbook.index.index import PassageIndex
from ragbook.index.manifest import read_manifest
from ragbook.index.parts import Found, Part
from ragbook.index.ray.encoding import start_ray


class _PartActor:
    """Holds one part of an index."""

    def __init__(self, path: str, number: int) -> None:
        self.part = Part.open(Path(path), read_manifest(Path(path)), number)

    def search(self, queries: np.ndarray, k: int) -> Found:
        """See `Part.search`."""
        return self.part.search(queries, k)


class ServedIndex(PassageIndex):
    """A `PassageIndex` that searches with Ray actors, one for each part; `serve_index` opens it.

    Attributes
    ----------
    actors: the actors' handles, in the order of the parts.
    """

    actors: list[Any]

    def _searched(self, queries: np.ndarray, k: int) -> list[Found]:
        ray = start_ray()
        shared = ray.put(queries)
        asked = [actor.search.remote(shared, k) for actor in self.actors]
        try:
            return ray.get(asked)
        except ray.exceptions.RayError as error:
            raise InputError(
                f"A part of the index {self.path} is not served any more ({type(error).__name__}); "
                "check the cluster's machines, and serve the index again."
            ) from error

    def close(self) -> None:
        """End the actors."""
        ray = start_ray()
        for actor in self.actors:
            ray.kill(actor)
        self.actors = []


def serve_index(path: Path | str) -> ServedIndex:
    """Open an index folder, with an actor of the cluster for each of its parts.

    Raises
    ------
    InputError: `path` is not an index, or a damaged one, or ray is not installed.
    """
    index = ServedIndex.open(Path(path).absolute())
    assert isinstance(index, ServedIndex)
    ray = start_ray()
    actor = ray.remote(_PartActor).options(
        max_restarts=-1, max_task_retries=-1, scheduling_strategy="SPREAD"
    )
    index.actors = [actor.remote(str(index.path), number) for number in range(len(index.parts))]
    return index
