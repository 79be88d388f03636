"""Downloads large files: an interrupted download is resumed, checksums are checked, a bar is shown.

A file is first called `NAME.part`; beside it, `NAME.part.json` stores the address and the server's
name for this version of the file (its ETag or date), so that two versions are never joined.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ragbook.errors import InputError
from ragbook.files import is_bare_name, replace_file, write_json
from ragbook.version import __version__

PIECE = 1 << 20  # bytes that are read and written at a time
ATTEMPTS, PAUSE = 5, 1.0
"""How often in a row a connection may break before it has brought a byte, and the seconds before
the next attempt, which are doubled each time."""


def download(url: str, folder: Path, checksum: str | None = None, progress: bool = True) -> Path:
    """Download a file into a folder; returns its path. A file that exists there already and has the
    checksum is not downloaded again.

    Parameters
    ----------
    url: http or https address.
    checksum: `ALGORITHM:HEX`, with an algorithm of hashlib such as sha256 or sha1. Without it, only
        the length that the server gives is checked.

    Raises
    ------
    InputError: the server refuses or cannot be reached; what was downloaded is kept, and the same
        call goes on from there. Or the file does not have the checksum, and is removed.
    """
    name = urllib.parse.unquote(urllib.parse.urlsplit(url).path.rpartition("/")[2])
    if not is_bare_name(name):
        raise InputError(f"{url} does not end in the name of a file; give the address of a file.")
    if checksum is not None:
        _algorithm(checksum)
    path = folder / name
    if path.is_file():
        if checksum is not None:
            check(path, checksum)
        return path
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{name}.part")
    _fetch(url, part, progress)
    if checksum is not None:
        try:
            check(part, checksum)
        except InputError:
            part.unlink()
            _note(part).unlink(missing_ok=True)
            raise
    replace_file(part, path)
    _note(part).unlink(missing_ok=True)
    return path


def check(path: Path, checksum: str) -> None:
    """Raise InputError if a file does not have the checksum `ALGORITHM:HEX`."""
    algorithm, expected = _algorithm(checksum)
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, algorithm).hexdigest()
    except FileNotFoundError:
        raise InputError(f"There is no file {path}; check its name.") from None
    if found != expected:
        raise InputError(
            f"{path} has the {algorithm} {found}, not {expected}; it is damaged or not the file "
            "that was meant: download it again or correct the checksum."
        )


def _algorithm(checksum: str) -> tuple[str, str]:
    """The algorithm's name and the digits of a checksum."""
    algorithm, _, digits = checksum.lower().partition(":")
    fixed = hashlib.algorithms_guaranteed - {"shake_128", "shake_256"}
    if algorithm not in fixed or len(digits) != 2 * hashlib.new(algorithm).digest_size:
        raise InputError(
            f"{checksum!r} is not a checksum; write the algorithm and its digits, as in "
            "sha256:0123...ef."
        )
    return algorithm, digits


def _note(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _fetch(url: str, part: Path, progress: bool) -> None:
    """Download what is missing of `part`, and try again if a connection breaks."""
    failures = 0
    while True:
        had = part.stat().st_size if part.is_file() else 0
        try:
            _fetch_once(url, part, progress)
            return
        except urllib.error.HTTPError as error:
            if error.code not in (408, 429, 500, 502, 503, 504):
                raise InputError(
                    f"{url} cannot be fetched: the server says {error.code} {error.reason}; check "
                    "the address."
                ) from None
            reason: Any = f"{error.code} {error.reason}"
        except (OSError, http.client.HTTPException) as error:  # no network, broken connections
            reason = getattr(error, "reason", None) or error
        has = part.stat().st_size if part.is_file() else 0
        failures = 1 if has > had else failures + 1
        if failures >= ATTEMPTS:
            raise InputError(
                f"{url} cannot be fetched ({reason}); {has:,} bytes are kept in {part}, and the "
                "same command goes on from there."
            )
        time.sleep(PAUSE * 2 ** (failures - 1))


def _fetch_once(url: str, part: Path, progress: bool) -> None:
    """One connection. Raises OSError if it ends before the file does."""
    request = urllib.request.Request(url, headers={"User-Agent": f"ragbook/{__version__}"})
    had, version = _begun(url, part)
    if had:
        request.add_header("Range", f"bytes={had}-")
        request.add_header("If-Range", version)  # the server sends another version from its start
    try:
        response = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code == 416 and _total(error.headers.get("Content-Range")) == had:
            return  # the file was already complete
        if error.code == 416:
            part.unlink()
            raise ConnectionError(
                "the server's file is shorter than what was downloaded"
            ) from error
        raise
    with response:
        joined = response.status == 206
        had = had if joined else 0
        length = response.headers.get("Content-Length")
        total = had + int(length) if length else None
        note = {"url": url, "version": _version(response.headers)}
        write_json(_note(part), note, indent=None)
        with (
            part.open("ab" if joined else "wb") as sink,
            tqdm(
                desc=part.name.removesuffix(".part"),
                total=total,
                initial=had,
                unit="B",
                unit_scale=True,
                disable=None if progress else True,
            ) as bar,
        ):
            while piece := response.read(PIECE):
                sink.write(piece)
                bar.update(len(piece))
            if total is not None and sink.tell() != total:
                raise ConnectionError(f"the connection ended after {sink.tell():,} of {total:,}")


def _version(headers: Any) -> str | None:
    """The server's name for this version of the file that may be used in If-Range: its strong ETag
    or its date; None if there is neither."""
    etag = headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else headers.get("Last-Modified")


def _begun(url: str, part: Path) -> tuple[int, str]:
    """How many bytes were downloaded, and of which version; 0 if the download cannot be resumed."""
    try:
        note = json.loads(_note(part).read_text(encoding="utf-8"))
        if note["url"] == url and note["version"]:
            return part.stat().st_size, note["version"]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return 0, ""


def _total(content_range: str | None) -> int | None:
    """The file's length from `bytes */LENGTH`."""
    digits = (content_range or "").rpartition("/")[2]
    return int(digits) if digits.isdigit() else None
