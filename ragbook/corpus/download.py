"""Downloads large files: an interrupted download is resumed, checksums are checked, a bar is shown.

A file is first called `NAME.part`; beside it, `NAME.part.json` stores the address and the server's
name for this version of the file (its ETag or date), so that two versions are never joined.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import ssl
import time
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote

import httpx2
from tqdm import tqdm

from ragbook.errors import InputError
from ragbook.files import is_bare_name, replace_file, write_json
from ragbook.version import __version__

ATTEMPTS, PAUSE = 5, 1.0
"""How often in a row a connection may break before it has brought a byte, and the seconds before
the next attempt, which are doubled each time."""

LONGEST = 1 << 36
"""The most bytes of a file whose length the server does not say: such a body may never end."""

ROOM = 1 << 28
"""Bytes of the disk that a download leaves free."""

_TRIED_AGAIN = (408, 429, 500, 502, 503, 504)
_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})", re.IGNORECASE)
_NOTHING_MORE = re.compile(r"bytes \*/([0-9]{1,18})", re.IGNORECASE)


def download(url: str, folder: Path, checksum: str | None = None, progress: bool = True) -> Path:
    """Download a file into a folder; returns its path. A file that exists there already and has the
    checksum is not downloaded again.

    Parameters
    ----------
    url: http or https address; in its path and host, any characters.
    checksum: `ALGORITHM:HEX`, with an algorithm of hashlib such as sha256 or sha1. Without it, only
        the length that the server gives is checked.

    Raises
    ------
    InputError: the address is none; the server refuses, cannot be reached or breaks the protocol;
        or the disk has no room. What was downloaded is kept, and the same call goes on from there.
        Or the file does not have the checksum or the server does not end it, and it is removed.
    """
    name = _name(url)
    if not is_bare_name(name) or len(name.encode()) > 190:  # hidden files beside it are longer
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


def _name(url: str) -> str:
    """The last part of an address's path, decoded."""
    try:
        path = httpx2.URL(url).raw_path.decode("ascii").partition("?")[0]
    except (httpx2.InvalidURL, ValueError) as error:
        raise InputError(f"{url!r} is not an address: {error}; correct it.") from None
    return unquote(path.rpartition("/")[2])


def _note(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _fetch(url: str, part: Path, progress: bool) -> None:
    """Download what is missing of `part`, and try again if a connection breaks."""
    failures, most = 0, _size(part)
    while True:
        try:
            _fetch_once(url, part, progress)
            return
        except InputError:
            raise
        except (httpx2.TransportError, httpx2.TooManyRedirects, ConnectionError) as error:
            reason = str(error) or type(error).__name__
        except (httpx2.InvalidURL, ValueError, OverflowError) as error:  # a host, port or proxy
            raise InputError(f"{url!r} cannot be fetched ({error}); correct it.") from None
        has = _size(part)
        # Bytes that were thrown away and came again are no progress, or it might never end.
        failures, most = (1, has) if has > most else (failures + 1, most)
        if failures >= ATTEMPTS:
            raise InputError(
                f"{url} cannot be fetched ({reason}); {has:,} bytes are kept in {part}, and the "
                "same command goes on from there."
            )
        time.sleep(PAUSE * 2 ** (failures - 1))


def _fetch_once(url: str, part: Path, progress: bool) -> None:
    """One connection. Raises ConnectionError or an error of httpx2 if it ends before the file
    does, or what comes does not go on from `part`."""
    headers = {"User-Agent": f"ragbook/{__version__}", "Accept-Encoding": "identity"}
    had, version = _begun(url, part)
    if had:
        # With If-Range, the server sends another version from its start.
        headers |= {"Range": f"bytes={had}-", "If-Range": version}
    with (
        httpx2.Client(follow_redirects=True, timeout=60, verify=_certificates()) as client,
        client.stream("GET", url, headers=headers) as response,
    ):
        if response.status_code in _TRIED_AGAIN:
            raise ConnectionError(f"{response.status_code} {response.reason_phrase}")
        if response.status_code not in (200, 206, 416):
            raise InputError(
                f"{url} cannot be fetched: the server says {response.status_code} "
                f"{response.reason_phrase}; check the address."
            )
        other = _version(response.headers) not in (None, version)
        if response.status_code == 416:
            whole = _NOTHING_MORE.fullmatch(response.headers.get("Content-Range", ""))
            if had and whole and int(whole[1]) == had and not other:
                return  # the file was already complete
            part.unlink(missing_ok=True)
            raise ConnectionError("the server's file is not what was downloaded")
        total = _digits(response.headers.get("Content-Length"))
        if response.status_code == 206:
            sent = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if sent is None or int(sent[1]) != had or (had and other):
                part.unlink(missing_ok=True)
                raise ConnectionError("the server sent another part of the file than was asked for")
            total = int(sent[3])
        else:
            had = 0
        _check_room(url, part, total, had)
        note = {"url": url, "version": _version(response.headers)}
        write_json(_note(part), note, indent=None)
        _write(response, part, had, total, progress)


@lru_cache(maxsize=1)  # reading the system's certificates takes longer than a small file
def _certificates() -> ssl.SSLContext:
    return httpx2.create_ssl_context()


def _write(
    response: httpx2.Response, part: Path, had: int, total: int | None, progress: bool
) -> None:
    """Write a response's body to `part`, from byte `had` on."""
    with (
        part.open("ab" if had else "wb") as sink,
        tqdm(
            desc=part.name.removesuffix(".part"),
            total=total,
            initial=had,
            unit="B",
            unit_scale=True,
            disable=None if progress else True,
        ) as bar,
    ):
        checked = had
        for piece in response.iter_raw():
            sink.write(piece)
            bar.update(len(piece))
            if sink.tell() > (LONGEST if total is None else total):
                sink.truncate(0)
                raise InputError(
                    f"{response.url} sends more bytes than it said, or than {LONGEST:,} without "
                    "an end; nothing of it is kept: give another address."
                )
            if total is None and sink.tell() - checked > ROOM // 16:
                checked = sink.tell()
                _check_room(str(response.url), part, None, 0)
        if total is not None and sink.tell() != total:
            raise ConnectionError(f"the connection ended after {sink.tell():,} of {total:,}")


def _check_room(url: str, part: Path, total: int | None, had: int) -> None:
    """Raise InputError if the disk has no room for what is missing."""
    free = shutil.disk_usage(part.parent).free
    if (total or 0) - had > free - ROOM:
        size = "which does not say its length" if total is None else f"of {total:,} bytes"
        raise InputError(
            f"The disk of {part.parent} has {free / 1e9:,.1f} GB left, not enough for {url}, "
            f"{size}; make room, and the same command goes on."
        )


def _version(headers: httpx2.Headers) -> str | None:
    """The server's name for this version of the file that may be used in If-Range: its strong ETag
    or its date; None if there is neither."""
    etag = headers.get("ETag")
    version = etag if etag and not etag.startswith("W/") else headers.get("Last-Modified")
    return version if version and version.isascii() and version.isprintable() else None


def _begun(url: str, part: Path) -> tuple[int, str]:
    """How many bytes were downloaded, and of which version; 0 if the download cannot be resumed."""
    try:
        note = json.loads(_note(part).read_text(encoding="utf-8"))
        if note["url"] == url and note["version"] and isinstance(note["version"], str):
            return part.stat().st_size, note["version"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    return 0, ""


def _digits(text: str | None) -> int | None:
    """A length as the server says it; None if it says none."""
    return int(text) if text is not None and re.fullmatch("[0-9]{1,18}", text) else None
