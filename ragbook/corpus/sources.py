"""Where a corpus can come from: a file, a Wikimedia dump, an address, a Hugging Face data set."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ragbook.corpus import dump
from ragbook.corpus.download import check, download
from ragbook.corpus.files import located
from ragbook.corpus.readers import Reading, Told, open_passages
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
    places: whether the records are pieces of documents already, whose ids name file and place, as
        `ragbook.corpus.documents.read_documents` yields them; they are not cut again.
    """

    name: str
    identity: str
    records: Callable[[], Iterator[Any]]
    article: Callable[[Any], Passage | None] | None = None
    places: bool = False


def open_source(
    spec: str,
    downloads: Path,
    checksum: str | None = None,
    reading: Reading | None = None,
    told: Told | None = None,
) -> Source:
    """The source that `spec` names.

    Parameters
    ----------
    spec: the path of a MediaWiki dump (.xml, .xml.bz2, .xml.gz) or of passages or documents; the
        https address of one; ``-`` for standard input; or ``hf:NAME``, ``hf:NAME:CONFIGURATION`` or
        ``hf:NAME:CONFIGURATION:SPLIT`` for a Hugging Face data set.
    downloads: folder for downloaded files, each in a subfolder for its address; a file is
        downloaded again if its subfolder is removed.
    checksum: checksum of the file, local or downloaded, such as `sha256:HEX`.
    reading, told: how passages are read, and what is told of it; see `load_corpus`.

    Raises
    ------
    InputError: there is no such file, it could not be downloaded or does not have the checksum.
    """
    reading = reading or Reading()
    if spec.startswith("hf:"):
        if checksum is not None:
            raise InputError("A Hugging Face data set has no checksum; leave --checksum out.")
        return _passages(spec, reading, told)
    if spec.startswith(("http://", "https://")):
        own = hashlib.sha256(os.fsencode(spec)).hexdigest()[:16]  # two files may have the same name
        path = download(spec, downloads / own, checksum)
    else:
        path = located(spec)
        if checksum is not None:
            check(path, checksum)
    if not dump.is_dump(path):
        return _passages(str(path), reading, told)
    if not path.exists():
        raise InputError(f"There is no file {path}; check its name.")
    if reading != Reading(split=reading.split):
        raise InputError(f"{path} is a MediaWiki dump; leave --format and --columns out.")
    status = path.stat()
    identity = f"{path.resolve()} {status.st_size} {status.st_mtime_ns}"
    return Source(path.name, identity, lambda: dump.read_pages(path), dump.article)


def _passages(spec: str, reading: Reading, told: Told | None) -> Source:
    source = open_passages(spec, replace(reading, later=True), told)
    places = source.documents is not None
    return Source(source.name, source.identity, source.passages, places=places)
