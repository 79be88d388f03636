"""From articles or passages of any length to a passage file that everything here reads."""

import gzip
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from ragbook.corpus.files import format_suffix
from ragbook.corpus.types import Passage
from ragbook.errors import InputError

WORDS = 100  # in a passage, as DPR cut Wikipedia (Karpukhin et al. 2020, section 4.1)


def split_passages(passages: Iterable[Passage], words: int = WORDS) -> Iterator[Passage]:
    """Cut texts of more than `words` words into pieces of `words`, the last one shorter.

    Pieces keep the title and get the ids ``<id>-1``, ``<id>-2``, ...; a text that is short enough
    passes unchanged. Words are what white space separates; between the words of a piece stands one
    blank.

    Raises InputError where a piece's id is also that of another passage.
    """
    seen: set[str] = set()
    for passage in passages:
        tokens = passage.text.split()
        pieces = [passage]
        if len(tokens) > words:
            pieces = [
                Passage(f"{passage.id}-{number}", passage.title, " ".join(tokens[at : at + words]))
                for number, at in enumerate(range(0, len(tokens), words), 1)
            ]
        for piece in pieces:
            if piece.id in seen:
                raise InputError(
                    f"Cutting the text of passage {passage.id!r} gives the id {piece.id!r} a "
                    "second time; rename one of the two in the source."
                )
            seen.add(piece.id)
            yield piece


def write_passages_jsonl(path: Path, passages: Iterable[Passage]) -> int:
    """Write passages as JSON lines (``.jsonl``, or ``.jsonl.gz`` compressed); how many there were.

    The file appears under its name when it is whole. The same passages give the same bytes.
    Raises InputError for another suffix.
    """
    if format_suffix(path) != ".jsonl":
        raise InputError(f"{path} must end in .jsonl or .jsonl.gz, the format that is written.")
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    count = 0
    try:
        with open(unfinished, "wb") as raw:
            zipped = path.suffix.lower() == ".gz"
            # No name and no time in the gzip header, so that the bytes repeat.
            sink = gzip.GzipFile("", "wb", fileobj=raw, mtime=0) if zipped else raw
            for passage in passages:
                line = {"id": passage.id, "title": passage.title, "text": passage.text}
                sink.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
                count += 1
            if zipped:
                sink.close()
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return count
