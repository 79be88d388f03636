"""Fast checksums of the small parts of an index's files, which opening compares.

SHA-256 of all bytes takes minutes for all of Wikipedia, so only `verify` computes them. Opening
reads a bounded number of bytes, whatever the size: of every file up to WHOLE bytes all of it, of a
larger one the first and the last ENDS bytes, where headers and the list of an Arrow file's batches
stand. A Faiss file beside inverted lists is compared whole, as it is read into memory in any case.
The manifest's entry `checksums` holds the CRC-32 of each of these ranges. It has no part in the
index's digest, and folders that were written before there were checksums have none.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct, field

from ragbook.manifests import Count

WHOLE, ENDS = 16 << 20, 1 << 20
PIECE = 1 << 20  # bytes in memory at a time

Crc32 = Annotated[int, Meta(ge=0, le=(1 << 32) - 1)]


class Checksums(Struct):
    """The entry of a file.

    Attributes
    ----------
    ranges: (first byte, the one after the last, CRC-32) of each range that opening compares.
    batches: of a passage file that is not compared whole, the CRC-32 of each batch's offsets, which
        are compared when a passage of the batch is read; see `ragbook.index.passages`.
    """

    ranges: list[tuple[Count, Count, Crc32]]
    batches: list[Crc32] = field(default_factory=list)


def ranges_of(path: Path, whole: bool = False) -> list[list[int]]:
    """`Checksums.ranges` of a file; of all of it if it is small or `whole` says so."""
    size = path.stat().st_size
    if whole or size <= max(WHOLE, 2 * ENDS):
        bounds = [(0, size)]
    else:
        bounds = [(0, ENDS), (size - ENDS, size)]
    return [[first, last, crc32_of(path, first, last)] for first, last in bounds]


def crc32_of(path: Path, first: int, last: int) -> int:
    """The CRC-32 of a file's bytes first to last."""
    found = 0
    with path.open("rb") as file:
        file.seek(first)
        while first < last and (piece := file.read(min(PIECE, last - first))):
            found = zlib.crc32(piece, found)
            first += len(piece)
    return found


def checksum_problems(folder: Path, checksums: dict[str, Any], names: Iterable[str]) -> list[str]:
    """One sentence for each of the files whose small parts have changed; nothing is said of a file
    without checksums."""
    return [
        f"{folder / name} is not as it was written (its checksum differs)"
        for name in names
        if any(
            crc32_of(folder / name, first, last) != found
            for first, last, found in checksums.get(name, {}).get("ranges", ())
        )
    ]
