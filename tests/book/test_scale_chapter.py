"""What chapter 9 says of stored measurements in captions and in its summary."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from ragbook.index.factories import choose_factory

BOOK = Path(__file__).resolve().parents[2] / "book"
TEXT = (BOOK / "09-scale.py").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def runs():
    """The stored runs by kind and number of passages."""
    out = {}
    stored = json.loads((BOOK / "results" / "scale.json").read_text(encoding="utf-8"))
    for run in stored["runs"].values():
        out.setdefault(run["kind"], {})[run["passages"]] = run
    return out


def test_build_times(runs):
    said = re.search(
        r"The codes get cheaper as the corpus grows.* The graph takes between (0.\d+) and "
        r"(0.\d+) seconds at all sizes",
        TEXT,
    )
    assert said
    seconds = {
        kind: [1000 * run["build_seconds"] / n for n, run in sorted(by_size.items())]
        for kind, by_size in runs.items()
    }
    assert seconds["ivf-pq"] == sorted(seconds["ivf-pq"], reverse=True)
    assert float(said[1]) < min(seconds["hnsw"]) < max(seconds["hnsw"]) < float(said[2])


def test_speeds(runs):
    said = re.search(
        r"Exact search becomes ten times slower from 10,000 to 30,000 passages, and from there on "
        r"slows down about in proportion to their number. The graph becomes about nine times "
        r"slower from 10,000 to a million; the codes stay within a factor of (\d\.\d)",
        TEXT,
    )
    assert said
    sizes = sorted(runs["flat"])
    assert (sizes[0], sizes[-1]) == (10_000, 1_000_000)
    speed = {kind: [runs[kind][n]["qps_batch_64"] for n in sizes] for kind in runs}
    assert sizes[1] == 30_000
    slower = np.divide(speed["flat"][:-1], speed["flat"][1:])
    assert slower[0] == pytest.approx(10, abs=0.5)
    # Each further step, by how much more passages there are: 1 would be in proportion.
    assert slower[1:] / np.divide(sizes[2:], sizes[1:-1]) == pytest.approx(1, abs=0.25)
    assert speed["hnsw"][0] / speed["hnsw"][-1] == pytest.approx(9, abs=0.5)
    assert max(speed["ivf-pq"]) / min(speed["ivf-pq"]) < float(said[1])


def test_encoding_takes_most_of_the_time(runs):
    """At the measured speeds; the index at that of the largest run, and ten times that."""
    assert "Encoding takes most of the time" in TEXT
    encoding = json.loads((BOOK / "results" / "encoding.json").read_text(encoding="utf-8"))
    for speed in encoding["passages_per_second"].values():
        for by_size in runs.values():
            n = max(by_size)
            assert n / speed > 10 * by_size[n]["build_seconds"]


def test_the_factory_strings_that_are_read_out_are_those_of_the_table():
    """Each is chosen for one of the chapter's sizes of memory, with MiniLM's 384 numbers."""
    read_out = TEXT.split("*factory strings*")[1].split("place of 8")[0]
    chosen = {choose_factory(21_015_324, 384, size * 10**9).factory for size in (100, 16, 2)}
    assert chosen == set(re.findall(r"`((?:OPQ\d+,)?(?:HNSW\d+|IVF\d+,\w+))`", read_out))
    for factory in chosen:
        for number in re.findall(r"\d\d+", factory):
            assert f"{int(number):,}" in read_out


def test_what_a_build_measures_its_recall_on(runs):
    assert "on its own 200 questions" in " ".join(TEXT.replace('"', "").split())
    for kind in ("hnsw", "ivf-pq"):
        for run in runs[kind].values():
            recall = run["parameters"]["recall"]
            assert recall["questions"] == 200
            assert recall["at"][str(run["parameters"]["effort"])] >= 0.95


def test_the_toy_by_hand():
    """The scores and the cells that the chapter's text names."""
    assert "nearest cell holds the passages 0, 1 and 2" in TEXT
    passages = np.array([[1, 0.1], [0.9, 0.3], [0.7, 0.6], [0.6, 0.7], [0.2, 0.9], [0, 1]])
    scores = passages @ [0.75, 0.66]
    assert np.flatnonzero(passages[:, 0] > passages[:, 1]).tolist() == [0, 1, 2]
    assert np.argsort(-scores)[:3].tolist() == [2, 3, 1]
