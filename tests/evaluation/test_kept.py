"""Answers that are kept as they are made: a run that ended early goes on, and only the same run."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from ragbook.corpus import QuestionSet
from ragbook.errors import InputError
from ragbook.evaluation import Comparison, compare
from ragbook.evaluation.identity import identity
from ragbook.evaluation.kept import FOLDER, LINES, keeping
from tests.evaluation.killed_comparisons import Method, N, contents, questions, run
from tests.kills import kills_of

RUN = {"k": 3}


class Fails(Method):
    """Fails from the question with this text on."""

    at: str | None = "Q20?"

    def answer(self, questions, k=5):
        if self.at in [question.text for question in questions]:
            raise InputError("a prompt of 5,000 tokens is too long")
        return super().answer(questions, k)


def begin(out: Path, methods: list, n: int = N, settings: dict | None = None) -> Comparison:
    out.mkdir(exist_ok=True)
    asked = questions(n)
    with keeping(out, identity(methods, asked, settings or RUN)) as kept:
        return compare(methods, asked, k=3, progress=False, kept=kept)


def test_a_run_whose_method_fails_late_goes_on_where_it_was(tmp_path):
    whole = begin(tmp_path / "whole", [Method("a")])
    methods = [Method("a"), Fails("b")]
    with pytest.raises(InputError, match="too long"):
        begin(tmp_path / "out", methods)
    lines = (tmp_path / "out" / FOLDER / LINES).read_text().splitlines()
    assert [json.loads(line[9:])["line"]["question"] for line in lines] == [
        f"Q{i}?" for i in range(16)
    ]
    again = [Method("a"), Fails("b")]
    again[1].at = None
    found = begin(tmp_path / "out", again)
    assert [method.asked for method in again] == [N - 16, N - 16]
    assert [line["question"] for line in found.predictions] == [f"Q{i}?" for i in range(N)]
    assert found.results["methods"]["a"] == whole.results["methods"]["a"]
    assert not (tmp_path / "out" / FOLDER).exists()


def test_a_run_that_goes_on_ends_with_the_same_bytes(tmp_path):
    (tmp_path / "out").mkdir()
    methods: list[Any] = [Method("a"), Method("b")]
    whole = compare(methods, questions(N), k=3, progress=False)
    with pytest.raises(InputError):
        begin(tmp_path / "out", [Method("a"), Fails("b")])
    kept = tmp_path / "out" / FOLDER / LINES
    # Half a line of the next batch, and zeros, as after a power cut.
    with kept.open("ab") as file:
        file.write(kept.read_bytes()[:100] + b"\0" * 10)
    resumed = [Method("a"), Fails("b")]
    resumed[1].at = None
    found = begin(tmp_path / "out", resumed)
    assert json.dumps(found.predictions) == json.dumps(whole.predictions)
    assert json.dumps(found.results) == json.dumps(whole.results)


@pytest.mark.parametrize(
    ("old", "new"), [(b"Q19?", b"Q18?"), (b'"log_prob"', b'"log_prod"'), (b"{", b"[")]
)
def test_a_line_that_has_changed_is_made_again(tmp_path, old, new):
    """With the rest of its batch and those after it, though it may still be JSON."""
    whole = begin(tmp_path / "whole", [Method("a")])
    first: Any = Fails("a")
    first.at = "Q36?"
    with pytest.raises(InputError):
        begin(tmp_path / "out", [first])
    kept = tmp_path / "out" / FOLDER / LINES
    lines = kept.read_bytes().splitlines(keepends=True)
    assert len(lines) == 32
    assert old in lines[19]
    lines[19] = lines[19].replace(old, new, 1)
    kept.write_bytes(b"".join(lines))
    again: Any = Fails("a")
    again.at = None
    found = begin(tmp_path / "out", [again])
    assert again.asked == N - 16
    assert json.dumps(found.predictions) == json.dumps(whole.predictions)


@pytest.mark.parametrize("change", ["questions", "settings", "methods", "gold", "weights", "tuned"])
def test_only_the_same_run_goes_on(tmp_path, change):
    first: list[Any] = [Fails("a")]
    if change == "weights":
        first[0].reader = Model(1.0)
    with pytest.raises(InputError):
        begin(tmp_path / "out", first)
    method: Any = Fails("b" if change == "methods" else "a")
    method.at = None
    asked = questions(N - 1 if change == "questions" else N)
    if change == "gold":
        asked = QuestionSet("q", "dev", [replace(q, gold_passage="p1") for q in asked])
    if change == "weights":
        method.reader = Model(1.5)
    if change == "tuned":
        method.length_penalty = 1.0
    settings = RUN | {"k": 4} if change == "settings" else RUN
    with keeping(tmp_path / "out", identity([method], asked, settings)) as kept:
        assert kept.other
        assert kept.records == []
        compare([method], asked, k=3, progress=False, kept=kept)
    assert method.asked == len(asked)


class Model:
    """A reader whose model has one weight."""

    def __init__(self, weight: float) -> None:
        self.model = nn.Linear(1, 1)
        nn.init.constant_(self.model.weight, weight)
        nn.init.zeros_(self.model.bias)


def test_the_same_weights_are_the_same_run():
    def of(weight: float) -> dict:
        method: Any = Method("a")
        method.reader = Model(weight)
        return identity([method], questions(3), {})

    assert of(1.0) == of(1.0)
    assert of(1.0) != of(2.0)
    assert json.loads(json.dumps(of(1.0))) == of(1.0)


def test_two_processes_do_not_compare_into_one_folder(tmp_path):
    with (
        keeping(tmp_path, {}),
        pytest.raises(InputError, match="Another process"),
        keeping(tmp_path, {}),
    ):
        pass


def test_a_smaller_run_leaves_nothing_of_a_larger_one(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    run(tmp_path / "out", 60)
    assert (tmp_path / "out" / "explorer" / "answers-2.js").is_file()
    run(tmp_path / "out", 20)
    found = contents(tmp_path / "out")
    assert found.pop("notes.txt") == b"mine"  # what is not a comparison's stays
    (tmp_path / "new").mkdir()
    run(tmp_path / "new", 20)
    assert found == contents(tmp_path / "new")


def test_a_comparison_killed_anywhere_goes_on():
    kills, said = kills_of("evaluation/killed_comparisons.py", "5", timeout=600)
    assert not said
    assert kills > 20, "the run was killed at too few points to mean anything"
