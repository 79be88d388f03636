"""Encoding by the actors of a Ray cluster, with Ray Data.

Only the numbers of shards go through Ray; every actor holds the encoder, reads the passages and
writes `NNNNN.npy` itself, under another name until it is complete. So all machines must see the
folder of the build at the same path (NFS, for instance). Ray's own writers are not used: if they
run again, they write other files beside the first ones. An actor that dies is started again by Ray,
and its shard is encoded again.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

from ragbook.errors import InputError
from ragbook.index.encoding import ShardEncoder


def start_ray() -> Any:
    """The module ray, connected to the cluster that RAY_ADDRESS names, or to one on this machine.

    Raises
    ------
    InputError: ray is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no usage reports to its makers
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        raise InputError(
            "The engine ray needs the package ray; install it with `pip install 'ragbook[ray]'`."
        ) from None
    if not ray.is_initialized():  # pyright: ignore[reportAttributeAccessIssue]
        ray.init(log_to_driver=False, logging_level=logging.ERROR)  # pyright: ignore[reportAttributeAccessIssue]
    return ray


class _Actor:
    """Encodes the shards whose numbers it is given."""

    def __init__(self, shards: Any) -> None:
        import ray  # pyright: ignore[reportMissingImports]

        self.shards: ShardEncoder = ray.get(shards[0])  # pyright: ignore[reportAttributeAccessIssue]
        # Ray shows an actor only its own GPUs, numbered from 0.
        self.shards.move(0)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        refused = []
        for number in batch["id"].tolist():
            try:
                if not self.shards.is_whole(number):
                    self.shards.write(number)
                refused.append("")
            except InputError as error:  # returned as data, because Ray wraps raised errors
                refused.append(str(error))
        return batch | {"refused": refused}


def write_by_ray(shards: ShardEncoder, missing: Sequence[int], workers: int) -> Iterator[int]:
    """Encode shards with `workers` actors; yields the number of each shard when it is done.

    Raises
    ------
    InputError: ray is not installed, an actor raised one, or Ray gave up.
    """
    if not missing:
        return
    ray = start_ray()
    import_module("ray.data")
    # Ray's own messages and bars are switched off: errors are reported here, and there is a bar.
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    numbers = ray.data.from_items(
        [{"id": number} for number in missing], override_num_blocks=len(missing)
    )
    done = numbers.map_batches(
        _Actor,
        fn_constructor_args=([ray.put(shards)],),  # in a list, so that Ray does not resolve it
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_gpus=0 if shards.device == "cpu" else 1,
    )
    try:
        for batch in done.iter_batches(batch_size=1, prefetch_batches=0):
            for number, refused in zip(batch["id"].tolist(), batch["refused"], strict=True):
                if refused:
                    raise InputError(str(refused))
                yield number
    except ray.exceptions.RayError as error:
        raise InputError(
            f"Ray gave up encoding ({type(error).__name__}); the shards that are done are kept, "
            "and the same command goes on from them."
        ) from error
