"""Where a corpus can come from: a file, a Wikimedia dump, an address, a Hugging Face data set."""

from __future__ import annotations

import hashlib
import os
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
    name: its name in the progress bar and in messages.
    identity: a string that differs if the content differs.
    records: yields the passages or, if `article` is given, the records that it turns into passages.
    article: the passage of a record, or None for a record without one. It takes most of the time,
        so it is also called in other processes, and not for records of finished parts. A record
        for which it raises an error of any kind but InputError is left out and counted.
    cut: whether the passages are pieces of documents, which cannot be cut further.
    """

    name: str
    identity: str
    records: Callable[[], Iterator[Any]]
    article: Callable[[Any], Passage | None] | None = None
    cut: bool = False


def open_source(spec: str, downloads: Path, checksum: str | None = None) -> Source:
    """The source that `spec` names.

    Parameters
    ----------
    spec: the path of a passage file or of a MediaWiki dump (.xml, .xml.bz2, .xml.gz); the https
        address of one; or ``hf:NAME``, ``hf:NAME:CONFIGURATION`` or ``hf:NAME:CONFIGURATION:SPLIT``
        for a Hugging Face data set with the columns id, title and text.
    downloads: folder for downloaded files, each in a subfolder for its address; a file is
        downloaded again if its subfolder is removed.
    checksum: checksum of the file, local or downloaded, such as `sha256:HEX`.

    Raises
    ------
    InputError: there is no such file, it could not be downloaded or does not have the checksum.
    """
    if spec.startswith("hf:"):
        if checksum is not None:
            raise InputError("A Hugging Face data set has no checksum; leave --checksum out.")
        return _hugging_face(spec)
    if spec.startswith(("http://", "https://")):
        own = hashlib.sha256(os.fsencode(spec)).hexdigest()[:16]  # two files may have the same name
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
    """A data set as a stream: only the library's own cache is written to the disk."""
    name, _, rest = spec.removeprefix("hf:").partition(":")
    configuration, _, split = rest.partition(":")
    if not name:
        raise InputError(
            "hf: alone names no data set; write it as in hf:wikimedia/wikipedia:20231101.simple."
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
    except Exception as error:  # the library does not say which errors it raises
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
                raise InputError(f"{where}: the id {id!r} is used a second time.")
            if isinstance(row["text"], str) and row["text"].strip():  # some articles are empty
                yield Passage(id, title, checked_text(where, "the text", row["text"]))

    return Source(spec, f"{spec} {getattr(rows, '_fingerprint', '')}", passages)
