"""What `book/results` holds: the commands that make each file, the date, and what it was measured on.

All of it is in `book/results/made.json`, a list of makings. In a step, `book/results` is the folder
of the stored files and `build/out` one for what is made on the way; words in capitals are named
under `needs`. `measured_on` is there where a file is older than the questions or the readers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from ragbook.errors import InputError
from ragbook.files import sha256_of_file, write_text

RESULTS = Path(__file__).resolve().parents[1] / "results"
MADE = RESULTS / "made.json"
UNMADE = ("made.json", "times.json")
"""What no making is about: this record, and the chapters' times, which every execution rewrites."""


@dataclass(frozen=True)
class Making:
    """Files that the same steps make.

    Parameters
    ----------
    files: by name, the `date` (ISO) and the beginning of the `sha256` of each.
    steps: shell commands, run in order in the repository's root.
    needs: what a maintainer has to give, by its name in the steps.
    reads: other stored files that a step reads beside those it writes.
    measured_on: what the files were measured on, if that is no longer current.
    afterwards: a step that changes other files, as Markdown.
    """

    files: dict[str, dict[str, str]]
    steps: list[str]
    needs: dict[str, str] = field(default_factory=dict)
    reads: list[str] = field(default_factory=list)
    measured_on: str = ""
    afterwards: str = ""

    @property
    def name(self) -> str:
        """The first file's name without its suffixes."""
        return stem(next(iter(self.files)))


def stem(file: str) -> str:
    """A file's name without its suffixes, by which commands and tags call it."""
    return file.partition(".")[0]


def makings(path: Path = MADE) -> list[Making]:
    """All makings, in their order."""
    return [
        Making(**entry)
        for entry in json.loads(path.read_text(encoding="utf-8"))
    ]


def chosen(every: Sequence[Making], names: Iterable[str]) -> list[Making]:
    """The makings of the named files, or all if none is named.

    Raises
    ------
    InputError: no stored file has a name that was given.
    """
    known = {stem(file): making for making in every for file in making.files}
    wanted = []
    for name in names:
        if stem(name) not in known:
            raise InputError(
                f"There is no stored file {name!r}; choose from {', '.join(known)}."
            )
        if known[stem(name)] not in wanted:
            wanted.append(known[stem(name)])
    return wanted or list(every)


def listing(every: Sequence[Making]) -> str:
    """What is stored, when it was made and how, as plain text."""
    lines = []
    for making in every:
        for file, about in making.files.items():
            lines.append(f"{file}  {about['date']}")
        lines += [f"    {step}" for step in making.steps]
        lines += [f"    {need}: {what}" for need, what in making.needs.items()]
        if making.measured_on:
            lines.append(f"    measured on {making.measured_on}")
    return "\n".join(lines)


def table(every: Sequence[Making]) -> str:
    """The same as the Markdown table in CONTRIBUTING.md."""
    rows = ["| file in `book/results/` | made on | steps |", "|---|---|---|"]
    for making in every:
        files = ", ".join(f"`{file}`" for file in making.files)
        dates = sorted({about["date"] for about in making.files.values()})
        cell = ", then ".join(f"`{step}`" for step in making.steps)
        cell += f", then {making.afterwards}" if making.afterwards else ""
        for need, what in making.needs.items():
            cell += f"; {need}: {what}"
        if making.measured_on:
            cell += f" (measured on {making.measured_on})"
        rows.append(f"| {files} | {' to '.join(dates)} | {cell} |")
    return "\n".join(rows)


def note(names: Sequence[str], today: date, path: Path = MADE) -> list[str]:
    """Write down that the named stored files were made today, with their checksums; gives those
    whose content is new. What they were measured on is then current and no longer said."""
    entries: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    wanted = {making.name for making in chosen(makings(path), names)}
    changed = []
    for entry in entries:
        if Making(**entry).name not in wanted:
            continue
        for file, about in entry["files"].items():
            now = checksum(path.parent / file)
            if about["sha256"] != now:
                about |= {"date": today.isoformat(), "sha256": now}
                entry.pop("measured_on", None)
                changed.append(file)
    if changed:
        text = json.dumps(entries, indent=1, ensure_ascii=False)
        write_text(path, text + "\n")
    return changed


def checksum(path: Path) -> str:
    """The beginning of a file's SHA-256, which tells a new version from the one described."""
    return sha256_of_file(path)[:16]
