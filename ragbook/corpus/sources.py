"""Where a corpus can come from: a file, a Wikimedia dump, an address, a Hugging Face data set."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ragbook.corpus import dump
from ragbook.corpus.download import check, download
from ragbook.corpus.files import checked_text
from ragbook.corpus.ids import Ids
from ragbook.corpus.readers import read_passages
from ragbook.corpus.types import Passage
from ragbook.errors import InputError


@dataclass(frozen=True)
class Source:
    """Articles or passages that are read as a stream.

    Attributes
    ----------
    name: what the progress bar and messages call it.
    identity: differs where what is read differs.
    records: the passages, or, where `article` is given, what it makes them of.
    article: the passage of a record, None for a record that has none. It takes the time, so it is
        called in other processes too, and not at all for records that are done with.
    """

    name: str
    identity: str
    records: Callable[[], Iterator[Any]]
    article: Callable[[Any], Passage | None] | None = None


def open_source(spec: str, downloads: Path, checksum: str | None = None) -> Source:
    """The source that a name says.

    Parameters
    ----------
    spec: the path of a passage file or of a MediaWiki dump (.xml, .xml.bz2, .xml.gz); the https
        address of one; or ``hf:NAME``, ``hf:NAME:CONFIGURATION`` or ``hf:NAME:CONFIGURATION:SPLIT``
        for a Hugging Face data set with the columns id, title and text.
    downloads: folder in which what an address leads to is kept, in a folder of that address's own;
        it is fetched anew when that folder is removed.
    checksum: of the file, as `sha256:HEX`; of a local one too.

    Raises
    ------
    InputError: there is no such file, it could not be fetched or is not what the checksum says.
    """
    if spec.startswith("hf:"):
        if checksum is not None:
            raise InputError("A Hugging Face data set has no checksum; leave --checksum out.")
        return _hugging_face(spec)
    if spec.startswith(("http://", "https://")):
        own = hashlib.sha256(spec.encode()).hexdigest()[:16]  # two addresses may end alike
        path = download(spec, downloads / own, checksum)
    else:
        path = Path(spec)
        if checksum is not None:
            check(path, checksum)
    is_dump = dump.is_dump(path)
    if not path.exists():
        raise InputError(f"There is no file {path}; check its name.")
    status = path.stat()
    identity = f"{path.resolve()} {status.st_size} {status.st_mtime_ns}"
    if is_dump:
        return Source(path.name, identity, lambda: dump.read_pages(path), dump.article)
    return Source(path.name, identity, lambda: read_passages(path))


def _hugging_face(spec: str) -> Source:
    """A data set as a stream: nothing is written to the disk but what the library keeps."""
    name, _, rest = spec.removeprefix("hf:").partition(":")
    configuration, _, split = rest.partition(":")
    if not name:
        raise InputError(
            "hf: names no data set; write one as hf:wikimedia/wikipedia:20231101.simple."
        )
    try:
        import datasets  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        raise InputError(
            f"Reading {spec} needs the package datasets; install it with "
            "`pip install 'ragbook[datasets]'`."
        ) from None
    try:
        rows = datasets.load_dataset(
            name, configuration or None, split=split or "train", streaming=True
        )
    except Exception as error:  # the library raises whatever its own libraries raise
        first = str(error).strip().partition("\n")[0]
        raise InputError(
            f"{spec} cannot be opened ({type(error).__name__}: {first}); check the name, the "
            "configuration and the network."
        ) from error

    def passages() -> Iterator[Passage]:
        seen = Ids()
        for number, row in enumerate(rows, 1):
            where = f"{spec}, row {number}"
            if missing := {"id", "title", "text"} - row.keys():
                raise InputError(f"{where}: the column {min(missing)!r} is missing.")
            id = checked_text(where, "the id", str(row["id"]))
            title = checked_text(where, "the title", row["title"], may_be_empty=True)
            if not seen.add(id):
                raise InputError(f"{where}: the id {id!r} stands here a second time.")
            if isinstance(row["text"], str) and row["text"].strip():  # some articles are empty
                yield Passage(id, title, checked_text(where, "the text", row["text"]))

    return Source(spec, f"{spec} {getattr(rows, '_fingerprint', '')}", passages)
