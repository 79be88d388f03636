"""Reads the manifests of this project's folders: JSON of a known shape, or a reason why not.

A manifest is the file that says what a folder holds, and the first that is read of it. So it is the
one place where a wrong type, a number out of range or a name that leads out of the folder is found:
msgspec compares the file with a class whose fields have types and bounds, and what follows can rely
on them.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from ragbook.errors import InputError
from ragbook.files import is_bare_name
from ragbook.printable import printable

BM25_FILE = "bm25.safetensors"
"""Inverted lists that `ragbook.retrieval.inverted` keeps in an index's folder; no part of it."""

LARGEST = 64 << 20
"""Bytes of the largest manifest that is read; one of all of Wikipedia has a hundred thousand."""

_MOST = 400
"""Characters of what is said of a wrong value."""

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


class Interpolation(Struct):
    """kNN-LM's settings: the weight of the neighbours, and what their distances are divided by."""

    lam: Annotated[float, Meta(ge=0, le=1)]
    temperature: Annotated[float, Meta(ge=1e-6, le=1e6)]


class Interpolations(Struct):
    """The same twice: with the language model that kNN-LM's own training changed, and with the
    shared one."""

    own: Interpolation
    shared: Interpolation


Penalty = Annotated[float, Meta(ge=-10, le=10)]
"""The exponent of a hypothesis's length; within these bounds the power is a float32."""


class LengthPenalties(Struct):
    """The penalty of each method's beam search, by the method's name: of those that use what they
    trained, and of those that all use the shared reader."""

    own: dict[Text, Penalty] = msgspec.field(default_factory=dict)
    shared: dict[Text, Penalty] = msgspec.field(default_factory=dict)


class WeightsManifest(WithFiles, kw_only=True):
    """`weights.json` of a folder of readers (`ragbook.models.bundled`). It is described here, below
    the models, because `ragbook doctor` reads it without importing torch."""

    knn_lm: Interpolations | UnsetType = UNSET
    perplexity: Interpolation | UnsetType = UNSET
    length_penalty: LengthPenalties | UnsetType = UNSET


def serialize(manifest: dict[str, Any]) -> bytes:
    """The manifest as bytes, always in the same form; its key `sha256` is the hash of the other
    keys."""
    body = {key: value for key, value in manifest.items() if key != "sha256"}
    whole = body | {"sha256": own_sha256(manifest)}
    return (json.dumps(whole, indent=2, ensure_ascii=False) + "\n").encode()


def own_sha256(manifest: dict[str, Any]) -> str:
    """The hash of all keys but `sha256`, in hexadecimal."""
    body = {key: value for key, value in manifest.items() if key != "sha256"}
    plain = json.dumps(body, sort_keys=True, ensure_ascii=False).encode()
    return hashlib.sha256(plain).hexdigest()


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
    try:
        msgspec.convert(value, shape)
    except msgspec.ValidationError as error:
        raise ValueError(_with_its_key(str(error), value, shape)) from None


_MOST_KEYS = 1000


def _with_its_key(said: str, value: Any, shape: type[Struct]) -> str:
    """msgspec's message, whose `[...]` stands for any key, with the first key that causes it."""
    place = re.search(r"`\$((?:\.\w+)+)\[\.\.\.\]", said)
    if place is None:
        return said
    names = place[1].split(".")[1:]
    entries = value
    for name in names:
        entries = entries[name]
    if not isinstance(entries, dict) or len(entries) > _MOST_KEYS:
        return said
    for key, entry in entries.items():
        only: Any = {key: entry}
        for depth in reversed(range(len(names))):
            holder = value
            for name in names[:depth]:
                holder = holder[name]
            only = holder | {names[depth]: only}
        try:
            msgspec.convert(only, shape)
        except msgspec.ValidationError as error:
            if str(error) == said:
                return said.replace("[...]", f"[{printable(key)[:80]!r}]", 1)
    return said


def read_whole(path: Path, shape: type[Struct], again: str) -> dict[str, Any]:
    """A manifest of that shape, which `serialize` wrote or an older version without `sha256`.

    Parameters
    ----------
    again: half a sentence that says what to do about a damaged one.

    Raises
    ------
    InputError: it cannot be read, is not of that shape, or is not as it was written.
    """
    try:
        found = read(path)
        check(found, shape)
        if found.get("sha256", own := own_sha256(found)) != own:
            raise ValueError("it is not as it was written: its own SHA-256 differs")
    except (ValueError, OSError, RecursionError) as error:
        said = printable(error)
        if len(said) > _MOST:  # a wrong value is repeated as it stands, however long it is
            said = f"{said[: _MOST // 2]}…{said[-_MOST // 2 :]}"
        raise InputError(f"{path} is damaged ({said}); {again}") from None
    return found
