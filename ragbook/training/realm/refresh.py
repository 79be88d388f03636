"""The index of a retriever that is being trained, made anew from time to time (REALM, section 3.3).

Vectors grow old: an index holds what the passage tower said when it was built, while the tower goes
on learning. Training looks for candidates in the index as it is and scores those it found with the
tower as it is, so an old index costs good candidates and not exactness. In a folder stand

    index-00040       the passage index that the tower gave after 40 updates
    CURRENT           the name of the one to be searched
    tower-00080       a tower whose index is wanted, until it is built

`CURRENT` is replaced in one operation, once the index it names is whole: whoever reads it, at any
time and from any process, finds a whole index. Building goes on in the trainer (`publish`) or
beside it, in a second process (`Builder`), which is
`python -m ragbook.training.realm.refresh FOLDER`.
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
from ragbook.files import replace_folder, write_text
from ragbook.index import PassageIndex, build_index
from ragbook.index.passages import StoredPassages
from ragbook.models import Encoder, load_encoder
from ragbook.models.encoder import save_encoder, weights_sha256

CURRENT = "CURRENT"
PAUSE = 0.1
"""Seconds between two looks of the building process for a new tower."""


def current(folder: Path) -> tuple[int, PassageIndex] | None:
    """The index to be searched and the update it was built after; None before the first."""
    while (name := _named(folder)) is not None:
        try:
            return _number(name), PassageIndex.open(folder / name)
        except Exception:
            if _named(folder) == name:  # else it was replaced, and removed, in between
                raise
    return None


def current_step(folder: Path) -> int | None:
    """The update after which the index to be searched was built, without opening it."""
    name = _named(folder)
    return None if name is None else _number(name)


def publish(
    folder: Path, encoder: Encoder, corpus: Corpus | StoredPassages, step: int
) -> PassageIndex:
    """Build the encoder's index and let `CURRENT` name it; older ones are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"index-{step:05d}"
    index = build_index(corpus, folder / name, as_it_is(encoder), progress=False, overwrite=True)
    write_text(folder / CURRENT, name)
    for other in folder.glob("index-*"):
        if other.name != name:
            shutil.rmtree(other, ignore_errors=True)  # who has it open keeps it
    return index


def as_it_is(encoder: Encoder) -> Encoder:
    """The same towers under the hashes that their weights have now."""
    return encoder.changed(
        sha256=weights_sha256(encoder.passage_model),
        query_sha256=weights_sha256(encoder.query_model),
    )


def overlap(old: PassageIndex, new: PassageIndex, queries: np.ndarray, k: int) -> float:
    """The share, in 0..1, of each query's k best passages that two indexes have in common: 1 minus
    how far the top k moved when the index was made anew."""
    one, other = (index.search(queries, k)[1].tolist() for index in (old, new))
    same = [len(set(a) & set(b)) / len(a) for a, b in zip(one, other, strict=True)]
    return float(np.mean(same))


class Builder:
    """A second process that builds the index of each tower it is given; the newest goes first.

    The first index must stand in the folder: its passages are encoded anew. A `with` block's end
    ends the process, at once; what it had begun is taken up or cleared away by the next one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> Builder:
        self._process = subprocess.Popen([sys.executable, "-m", __name__, str(self.folder)])
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    def want(self, encoder: Encoder, step: int) -> None:
        """Ask for the index of the encoder as it is now, and return.

        Raises
        ------
        RuntimeError: the process has ended by itself; it said why on standard error.
        """
        if self._process.poll() is not None:
            raise RuntimeError(f"the index's process ended with status {self._process.returncode}")
        unfinished = self.folder / "tower.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        save_encoder(unfinished, encoder)
        wanted = self.folder / f"tower-{step:05d}"
        replace_folder(unfinished, wanted)  # there may be one of a run that was killed


class Refresher:
    """Gives the trainer the index to search at each step, and logs how each new one differs.

    Parameters
    ----------
    folder: of the indexes.
    encoder: the one in training.
    corpus: what is indexed.
    every: updates between two indexes; 0 keeps the first.
    builder: who builds, if not the trainer.
    probe: texts whose best passages are compared, and how many of these.
    evaluate: what else is to be logged of an index.
    log: file of one JSON object a line: `step` of the training, `index` the update it was built
        after, `overlap` with the one before, 0..1, and what `evaluate` gave.
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
        """The index for update number `step`, from 0. Where the trainer builds, it depends on
        nothing but the tower at the last multiple of `every`."""
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
        """Build the index of the encoder as it is, here and now."""
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


def build_newest(folder: Path) -> int | None:
    """Build the index of the newest tower that waits, and drop it and those before it; the update
    it is of, or None if none waits."""
    waiting = sorted(folder.glob("tower-*"))
    found = current(folder)
    if not waiting or found is None:
        return None
    tower, (_, index) = waiting[-1], found
    encoder = load_encoder(str(tower))
    for model in {encoder.passage_model, encoder.query_model}:
        model.bfloat16()  # as in training, and three times as fast
    publish(folder, encoder, index.corpus, _number(tower.name))
    for done in waiting:
        shutil.rmtree(done, ignore_errors=True)
    return _number(tower.name)


def _named(folder: Path) -> str | None:
    try:
        return (folder / CURRENT).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def _number(name: str) -> int:
    return int(re.findall(r"\d+", name)[0])


def main(folder: Path) -> None:
    """Build whatever waits until the process that started this one has ended."""
    torch.set_num_threads(1)  # the trainer wants the others
    parent = os.getppid()
    while os.getppid() == parent:
        if build_newest(folder) is None:
            time.sleep(PAUSE)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
