"""The record of what is stored: complete, true to the files, and the same in CONTRIBUTING.md."""

import json
import re
from datetime import date
from pathlib import Path

import pytest
from experiments import made

from ragbook.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
MAKINGS = made.makings()


def test_every_stored_file_is_made_by_one_making():
    files = [file for making in MAKINGS for file in making.files]
    stored = {p.name for p in made.RESULTS.iterdir() if p.is_file()}
    made_by_a_build = set((ROOT / ".gitignore").read_text("utf-8").split())
    stored -= {name for name in stored if f"/book/results/{name}" in made_by_a_build}
    assert len(files) == len(set(files))
    assert set(files) == stored - set(made.UNMADE)


@pytest.mark.parametrize("making", MAKINGS, ids=lambda making: making.name)
def test_a_replaced_file_has_its_new_date(making):
    """A file whose content is not the one described was made since: `remake --note` says so."""
    for file, about in making.files.items():
        assert made.checksum(made.RESULTS / file) == about["sha256"], file
        assert date(2026, 11, 20) <= date.fromisoformat(about["date"]) <= date.today()


@pytest.mark.parametrize("making", MAKINGS, ids=lambda making: making.name)
def test_steps_name_what_is_there_and_what_is_needed(making):
    text = " ".join(making.steps)
    assert set(re.findall(r"(?<![\w-])[A-Z]{2,}\d?(?![\w=-])", text)) == making.needs.keys()
    for module in re.findall(r"-m book\.experiments\.(\w+)", text):
        assert (ROOT / "book" / "experiments" / f"{module}.py").is_file()
    for script in re.findall(r"python (\w\S+\.py)", text):
        assert (ROOT / script).is_file()
    for name in making.reads:
        assert (made.RESULTS / name).is_file()


def test_the_table_for_contributors_is_printed_from_it():
    assert made.table(MAKINGS) in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_chapters_that_say_they_are_older_read_what_is_older():
    """The chapters' notes on earlier questions name files whose record says so."""
    named = set()
    for path in (ROOT / "book").glob("[0-9]*.py"):
        for note in re.findall(r"```\{note\}\n(.+?)```", path.read_text("utf-8"), re.S):
            if "edition" in note:
                named |= set(re.findall(r"`([\w-]+)\.json`", note))
    assert named <= {m.name for m in MAKINGS if "edition" in m.measured_on}


def test_names_choose_and_unknown_ones_are_told():
    assert [m.name for m in made.chosen(MAKINGS, ["rag", "table", "results.json"])] == [
        "rag",
        "results",
    ]
    assert made.chosen(MAKINGS, []) == MAKINGS
    with pytest.raises(InputError, match=r"no stored file 'ragg'.*rag,"):
        made.chosen(MAKINGS, ["ragg"])


def test_a_listing_has_dates_steps_and_needs():
    text = made.listing(made.chosen(MAKINGS, ["realm", "fid-nq", "wikitext"]))
    assert "python -m book.experiments.realm book/results/realm.json" in text
    assert "questions of Natural Questions on these passages, to train on" in text
    assert "ARTICLES: " in text
    assert re.search(r"^realm\.json  \d{4}-\d\d-\d\d$", text, re.M)


def test_a_replaced_file_is_noted(tmp_path):
    (tmp_path / "a.json").write_text("1")
    (tmp_path / "b.json").write_text("2")
    about = {"date": "2026-01-01", "sha256": made.checksum(tmp_path / "a.json")}
    entries = [
        {"files": {"a.json": about}, "steps": ["one"], "measured_on": "old"},
        {"files": {"b.json": {**about, "sha256": "other"}}, "steps": ["two"], "measured_on": "old"},
    ]
    record = tmp_path / "made.json"
    record.write_text(json.dumps(entries))
    assert made.note(["a"], date(2026, 12, 1), record) == []
    assert json.loads(record.read_text()) == entries
    assert made.note(["a", "b"], date(2026, 12, 1), record) == ["b.json"]
    one, two = made.makings(record)
    assert (one.files["a.json"]["date"], one.measured_on) == ("2026-01-01", "old")
    assert two.files["b.json"] == {
        "date": "2026-12-01",
        "sha256": made.checksum(tmp_path / "b.json"),
    }
    assert two.measured_on == ""
