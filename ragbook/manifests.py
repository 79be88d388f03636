"""Reads the manifests of this project's folders: JSON of a known shape, or a reason why not.

A manifest is the file that says what a folder holds, and the first that is read of it. So it is the
one place where a wrong type, a number out of range or a name that leads out of the folder is found:
msgspec compares the file with a class whose fields have types and bounds, and what follows can rely
on them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from ragbook.files import is_bare_name

LARGEST = 64 << 20
"""Bytes of the largest manifest that is read; one of all of Wikipedia has a hundred thousand."""

Count = Annotated[int, Meta(ge=0, le=1 << 48)]
Positive = Annotated[int, Meta(ge=1, le=1 << 48)]
Small = Annotated[int, Meta(ge=1, le=(1 << 31) - 1)]
"""A number above 0 that a C `int` can hold."""
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Text = Annotated[str, Meta(max_length=100_000)]


class FileRecord(Struct):
    """What a manifest says of a file; see `ragbook.files.file_records`."""

    sha256: Sha256
    bytes: Count


class WithFiles(Struct):
    """A manifest that lists files, all of them directly in its folder."""

    files: dict[Annotated[str, Meta(max_length=255)], FileRecord]

    def __post_init__(self) -> None:
        for name in self.files:
            if not is_bare_name(name):
                raise ValueError(f"{name!r} is not the name of a file in its folder")


def decode(raw: bytes) -> Any:
    """The value of a JSON text.

    Raises
    ------
    ValueError: it is not JSON in UTF-8, holds half a surrogate pair, or is nested too deeply.
    """
    if len(raw) > LARGEST:
        raise ValueError(f"it has {len(raw):,} bytes, and a manifest never has so many")
    try:
        return msgspec.json.decode(raw)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read(path: Path) -> Any:
    """The value of a JSON file; `decode`'s errors, or OSError."""
    with path.open("rb") as file:
        return decode(file.read(LARGEST + 1))


def check(value: Any, shape: type[Struct]) -> None:
    """Compare a decoded manifest with its class. Keys that the class does not have are allowed, as
    a later version may write more.

    Raises
    ------
    ValueError: an entry is missing, of another type or out of its bounds; the text names it.
    """
    msgspec.convert(value, shape)
