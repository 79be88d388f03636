"""What the benchmarks measure in turn: its statistics, what is printed and what is stored."""

import json
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import binom

from ragbook.errors import InputError

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
ROUNDS = runpy.run_path(str(BENCHMARKS / "rounds.py"))
median, record, keep = ROUNDS["median"], ROUNDS["record"], ROUNDS["keep"]
# Seconds of CPU and on the clock, six rounds each; in the fourth something else slowed both down.
PEER = [(4.0, 5.0), (4.2, 5.5), (4.1, 5.1), (8.0, 19.0), (4.3, 5.2), (4.4, 5.9)]
OWN = [(2.0, 2.5), (2.2, 2.6), (1.9, 2.4), (4.4, 9.0), (2.1, 2.2), (2.0, 2.1)]


@pytest.mark.parametrize("n", [6, 7, 8, 9, 12, 20, 33])
def test_an_interval_is_the_narrowest_that_holds_the_median_with_95_percent(n):
    """The true median is between the values at `out` and `n - 1 - out` unless at most `out` of them
    lie on one side of it, by a binomial distribution that SciPy sums."""
    values = np.random.default_rng(n).permutation(n) + 1.0
    found = median(values.tolist())
    low, high = found["ci95"]
    out = int(low) - 1
    assert high == n - out
    assert 2 * binom.cdf(out, n, 0.5) <= 0.05 < 2 * binom.cdf(out + 1, n, 0.5)
    assert found["median"] == np.median(values)


def test_too_few_rounds_have_no_interval():
    with pytest.raises(InputError, match="needs 6 rounds, not 5"):
        median([1.0, 2.0, 3.0, 4.0, 5.0])


def test_a_record_has_each_rounds_ratio_and_not_the_ratio_of_the_medians():
    found = record("a task", {"peer": PEER, "own": OWN}, ["numpy"], ("scores", 1.26e-6, 1e-4))
    ratios = np.array(OWN)[:, 0] / np.array(PEER)[:, 0]
    own = found["sides"]["own"]
    assert own["times_the_base"]["median"] == pytest.approx(np.median(ratios), rel=1e-3)
    assert own["times_the_base"]["ci95"] == pytest.approx([ratios.min(), ratios.max()], rel=1e-3)
    assert np.median(ratios) != pytest.approx(
        np.median(np.array(OWN)[:, 0]) / np.median(np.array(PEER)[:, 0]), rel=1e-3
    )
    for clock, kind in enumerate(("cpu_seconds", "wall_seconds")):
        assert own[kind]["median"] == pytest.approx(np.median(np.array(OWN)[:, clock]))
    assert found["base"] == "peer"
    assert found["sides"]["peer"]["times_the_base"] == {"median": 1.0, "ci95": [1.0, 1.0]}
    assert (found["rounds"], found["versions"]) == (6, {"numpy": np.__version__})
    assert found["difference"] == {"of": "scores", "found": 1.3e-06, "allowed": 1e-4}


def test_what_is_printed_is_the_record(capsys):
    unequal = record("a task", {"peer": PEER, "own": OWN}, (), ("answers that differ", 2, 0))
    ROUNDS["show"](unequal)
    said = capsys.readouterr().out
    assert "a task; " in said
    (line,) = [line for line in said.splitlines() if line.startswith("  own")]
    assert "2.050 s [1.900, 4.400]" in line
    assert "2.450 s [2.100, 9.000]" in line
    assert line.endswith("0.494 [0.455, 0.550]")
    assert "NOT EQUAL: answers that differ: 2" in said
    short = {"peer": [(c / 9, w) for c, w in PEER], "own": [(c / 9, w) for c, w in OWN]}
    ROUNDS["show"](record("a task", short, (), ("scores", 0.0, 0)))
    said = capsys.readouterr().out
    assert "227.800 ms" in said
    assert "equal: scores: 0" in said


def test_every_side_has_a_turn_in_every_round_and_one_before():
    called = []
    sides = {name: lambda name=name: called.append(name) for name in "abc"}
    found = ROUNDS["in_turn"](sides, 4)
    assert "".join(called) == "abc" + "abc" + "bca" + "cab" + "abc"
    assert {name: len(each) for name, each in found.items()} == {"a": 4, "b": 4, "c": 4}


def test_a_commands_time_is_its_process_and_a_calls_time_this_one(monkeypatch):
    children = iter([(1.0, 0.5), (4.0, 1.75)])
    usage = (SimpleNamespace(ru_utime=user, ru_stime=system) for user, system in children)
    monkeypatch.setattr("resource.getrusage", lambda who: next(usage))
    monkeypatch.setattr("time.process_time", iter([7.0, 9.5]).__next__)
    monkeypatch.setattr("time.perf_counter", iter([10.0, 11.0, 20.0, 26.0]).__next__)
    assert ROUNDS["once"](lambda: None) == (2.5, 1.0)
    assert ROUNDS["once"]([sys.executable, "-c", "pass"]) == (4.25, 6.0)


def test_a_section_written_again_replaces_itself_and_no_other(tmp_path):
    path = tmp_path / "new" / "benchmarks.json"
    first = record("first", {"peer": PEER, "own": OWN})
    second = record("second", {"peer": OWN, "own": PEER})
    keep(path, "one", first)
    keep(path, "another", first)
    keep(path, "one", second)
    text = path.read_text()
    assert json.loads(text) == {"another": first, "one": second}
    assert len(text.splitlines()) == 2 + 2  # one for each section and the brackets
    assert [file.name for file in path.parent.iterdir()] == ["benchmarks.json"]
    keep(None, "one", first)  # without --store


@pytest.mark.parametrize(
    ("given", "path", "others"),
    [
        (["1806"], None, ["1806"]),
        (["--rounds", "--store", "a.json", "loss"], Path("a.json"), ["--rounds", "loss"]),
        (["--encode", "build", "--store=b.json"], Path("b.json"), ["--encode", "build"]),
    ],
)
def test_one_option_stores(monkeypatch, given, path, others):
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *given])
    assert ROUNDS["options"]() == (path, others)


@pytest.mark.parametrize("script", ["rag", "fid", "scale"])
def test_what_is_not_measured_in_rounds_is_not_stored(script, tmp_path, monkeypatch):
    path = BENCHMARKS / f"{script}.py"
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setattr(sys, "argv", [str(path), "--store", str(tmp_path / "x")])
    with pytest.raises(SystemExit, match="--store keeps what --"):
        runpy.run_path(str(path), run_name="__main__")
    assert not list(tmp_path.iterdir())
