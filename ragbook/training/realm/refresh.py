"""The index of a retriever that is being trained, built again from time to time (REALM, section
3.3).

An index grows stale: it holds the vectors that the passage tower gave when it was built, while the
tower goes on learning. Training searches for candidates in the current index, and scores them with
the current tower. So a stale index may miss good candidates, but all scores are exact. A folder
holds

    index-00040       the passage index of the tower after 40 updates
    CURRENT           the name of the index to search
    tower-00080       a tower that waits for its index to be built

`CURRENT` is replaced in one operation, after the index that it names is complete. So it names a
complete index at any time, for every process that reads it. Indexes are built in the trainer
(`publish`) or in a second process (`Builder`), which is
`python -m ragbook.training.realm.refresh FOLDER DEVICE PRECISION`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from ragbook.corpus import Corpus
from ragbook.errors import InputError
from ragbook.files import replace_folder, write_text
from ragbook.index import PassageIndex, build_index
from ragbook.index.passages import StoredPassages
from ragbook.models import Encoder, load_encoder
from ragbook.models.devices import place
from ragbook.models.encoder import save_encoder, weights_sha256

CURRENT = "CURRENT"
PAUSE = 0.1
"""Seconds after which the building process looks for a new tower again."""


def current(folder: Path) -> tuple[int, PassageIndex] | None:
    """The number of the update after which the current index was built, and the index; None before
    the first."""
    while (name := _named(folder)) is not None:
        try:
            return _number(name), PassageIndex.open(folder / name)
        except Exception:
            if _named(folder) == name:  # otherwise it was replaced and removed in between
                raise
    return None


def current_step(folder: Path) -> int | None:
    """The number of the update after which the current index was built; it is not opened."""
    name = _named(folder)
    return None if name is None else _number(name)


def publish(
    folder: Path, encoder: Encoder, corpus: Corpus | StoredPassages, step: int
) -> PassageIndex:
    """Build the encoder's index and let `CURRENT` name it; older indexes are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"index-{step:05d}"
    index = build_index(corpus, folder / name, as_it_is(encoder), progress=False, overwrite=True)
    write_text(folder / CURRENT, name)
    for other in folder.glob("index-*"):
        if other.name != name:
            shutil.rmtree(other, ignore_errors=True)  # a process that has it open can still use it
    return index


def as_it_is(encoder: Encoder) -> Encoder:
    """The same towers, with the hashes of their current weights."""
    return encoder.changed(
        sha256=weights_sha256(encoder.passage_model),
        query_sha256=weights_sha256(encoder.query_model),
    )


def overlap(old: PassageIndex, new: PassageIndex, queries: np.ndarray, k: int) -> float:
    """The mean share, in 0..1, of a query's k best passages that two indexes have in common."""
    one, other = (index.search(queries, k)[1].tolist() for index in (old, new))
    same = [len(set(a) & set(b)) / len(a) for a, b in zip(one, other, strict=True)]
    return float(np.mean(same))


class Builder:
    """A second process that builds the index of the newest tower it was given, on that device and
    in that precision.

    The folder must already hold a first index, whose passages are encoded again. The process is
    stopped at the end of the `with` block, at once; the next one completes or removes an unfinished
    index.
    """

    def __init__(self, folder: Path, device: str, precision: str) -> None:
        self.folder, self.device, self.precision = folder, device, precision

    def __enter__(self) -> Builder:
        given = (str(self.folder), self.device, self.precision)
        self._process = subprocess.Popen([sys.executable, "-m", __name__, *given])
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    def want(self, encoder: Encoder, step: int) -> None:
        """Ask for the index of the encoder in its current state, without waiting for it.

        Raises
        ------
        RuntimeError: the process has ended by itself; its standard error says why.
        """
        if self._process.poll() is not None:
            raise RuntimeError(
                f"the process that builds indexes ended with status {self._process.returncode}"
            )
        unfinished = self.folder / "tower.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        save_encoder(unfinished, encoder)
        wanted = self.folder / f"tower-{step:05d}"
        replace_folder(unfinished, wanted)  # a killed run may have left one


class Refresher:
    """Gives the trainer the index to search at each step, and logs how each new one differs.

    Parameters
    ----------
    folder: holds the indexes.
    encoder: the encoder in training.
    corpus: the passages to index.
    every: updates between two indexes; 0 keeps the first.
    builder: builds the indexes; None lets the trainer build them.
    probe: texts whose best passages are compared, and how many passages of each.
    evaluate: gives further figures to log about an index.
    log: file of one JSON object a line: `step` of the training, `index` the update after which the
        index was built, `overlap` with the one before, 0..1, and the figures of `evaluate`.
    """

    def __init__(
        self,
        folder: Path,
        encoder: Encoder,
        corpus: Corpus,
        every: int,
        builder: Builder | None,
        probe: tuple[Sequence[str], int],
        evaluate: Callable[[PassageIndex], dict[str, float]] | None,
        log: Path,
    ) -> None:
        self.folder, self.encoder, self.corpus = folder, encoder, corpus
        self.every, self.builder, self.probe = every, builder, probe
        self.evaluate, self.log = evaluate, log
        self._open: tuple[int, PassageIndex] | None = None

    def at(self, step: int) -> PassageIndex:
        """The index for update number `step`, from 0. If the trainer builds the indexes, it depends
        only on the tower at the last multiple of `every`."""
        standing = current_step(self.folder)
        due = self.every and step % self.every == 0 and standing != step
        if standing is None or (due and self.builder is None):
            self.publish(step)
        elif due and self.builder is not None and step:
            self.builder.want(self.encoder, step)
        if self._open is None or self._open[0] != current_step(self.folder):
            found, before = current(self.folder), self._open
            assert found is not None
            self._open = found
            if before is not None:
                self._write(step, before[1])
        return self._open[1]

    def publish(self, step: int) -> PassageIndex:
        """Build the index of the encoder in its current state, in this process."""
        known = current_step(self.folder) == step
        before, self._open = (
            self._open,
            (step, publish(self.folder, self.encoder, self.corpus, step)),
        )
        if not known:
            self._write(step, None if before is None else before[1])
        return self._open[1]

    def _write(self, step: int, before: PassageIndex | None) -> None:
        assert self._open is not None
        number, index = self._open
        row: dict[str, float] = {"step": step, "index": number}
        if before is not None:
            texts, k = self.probe
            row["overlap"] = overlap(before, index, self.encoder.encode_queries(texts), k)
        if self.evaluate is not None:
            row |= self.evaluate(index)
        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def build_newest(folder: Path, device: str, precision: str) -> int | None:
    """Build the index of the newest waiting tower, and remove it and the older ones; returns the
    number of its update, or None if no tower waits.

    Parameters
    ----------
    device, precision: of the tower while it encodes, as in training.
    """
    waiting = sorted(folder.glob("tower-*"))
    found = current(folder)
    if not waiting or found is None:
        return None
    tower, (_, index) = waiting[-1], found
    encoder = load_encoder(str(tower))
    for model in {encoder.passage_model, encoder.query_model}:
        place(model, device, precision)
    publish(folder, encoder, index.corpus, _number(tower.name))
    for done in waiting:
        shutil.rmtree(done, ignore_errors=True)
    return _number(tower.name)


def _named(folder: Path) -> str | None:
    """The name of the current index, a folder in `folder`; None before the first."""
    try:
        name = (folder / CURRENT).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    if not re.fullmatch("index-[0-9]{5,15}", name):
        raise InputError(
            f"{folder / CURRENT} is damaged (it names no index); delete {folder}, and the training "
            "builds its index again"
        )
    return name


def _number(name: str) -> int:
    return int(re.findall(r"\d+", name)[0])


def main(folder: Path, device: str, precision: str) -> None:
    """Build the indexes of waiting towers until the process that started this one has ended."""
    torch.set_num_threads(1)  # leaves the other cores to the trainer
    parent = os.getppid()
    while os.getppid() == parent:
        if build_newest(folder, device, precision) is None:
            time.sleep(PAUSE)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
