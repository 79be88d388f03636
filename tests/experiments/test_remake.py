"""Stored files made again elsewhere and compared, with steps that take no time."""

import gzip
import json
import math

import pytest
from experiments import made, remake

from ragbook.errors import InputError


def found(stored, new, tolerance=0.01):
    return list(remake.differences(stored, new, tolerance))


def test_numbers_may_differ_by_the_tolerance():
    assert found({"a": [0.5, 300.0, math.nan]}, {"a": [0.509, 302.0, math.nan]}) == []
    assert found({"a": [0.5, 300.0]}, {"a": [0.52, 304.0]}) == [
        ("a[0]", "0.5", "0.52"),
        ("a[1]", "300", "304"),
    ]


@pytest.mark.parametrize(
    ("stored", "new", "expected"),
    [
        ({"a": {"b": 1}}, {"a": {}}, ("a / b", "there", "absent")),
        ({}, {"a": 1}, ("a", "absent", "there")),
        ({"a": [1, 2]}, {"a": [1]}, ("a", "2 values", "1 values")),
        ({"a": "x"}, {"a": "y"}, ("a", '"x"', '"y"')),
        ({"a": True}, {"a": 1.001}, ("a", "true", "1.001")),
        ({"a": None}, {"a": 0.0}, ("a", "null", "0.0")),
        ({"a": math.nan}, {"a": 1.0}, ("a", "nan", "1")),
        ({"a": {}}, {"a": []}, ("a", "{}", "[]")),
    ],
)
def test_everything_else_is_the_same_or_reported(stored, new, expected):
    assert found(stored, new) == [expected]


def test_what_measures_the_machine_is_not_compared():
    machine = {
        "seconds_per_question": 1,
        "build_peak_mb": 1,
        "qps_batch_1": 1,
        "memory, MiB": {"fid": 1},
        "device": "cpu",
    }
    assert found(machine, {}) == []
    assert found({"em": 0.1, "memory": 1}, {"em": 0.1}) == [("memory", "there", "absent")]


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """Two stored files and their record, of which one needs something."""
    results = tmp_path / "results"
    results.mkdir()
    (results / "one.json").write_text('{"em": 0.5, "seconds": 1}')
    (results / "note.md").write_text("drawn")
    with gzip.open(results / "lines.jsonl.gz", "wt") as file:
        file.write('{"em": 1}\n{"em": 0}\n')
    about = {"date": "2026-11-30", "sha256": "0"}
    entries = [
        {
            "files": {"one.json": about, "note.md": about},
            "steps": [
                "echo step >> build/out/log",
                """echo '{"em": 0.5, "seconds": 2}' > book/results/one.json"""
                "; touch book/results/note.md",
            ],
        },
        {
            "files": {"lines.jsonl.gz": about},
            "steps": ["gzip -nc LINES > book/results/lines.jsonl.gz"],
            "needs": {"LINES": "predictions"},
            "reads": ["one.json"],
        },
    ]
    record = results / "made.json"
    record.write_text(json.dumps(entries))
    monkeypatch.setattr(remake, "MADE", record)
    return results


def test_equal_files_end_with_status_0_and_are_not_made_twice(stored, tmp_path, capsys):
    folder = tmp_path / "a folder"
    for _ in range(2):
        assert remake.main(["one", "--folder", str(folder)]) == 0
        assert "no difference" in capsys.readouterr().out
    assert (folder / "out" / "log").read_text() == "step\n"
    assert (stored / "one.json").read_text() == '{"em": 0.5, "seconds": 1}'  # as it was


def test_an_interrupted_making_goes_on_where_it_stopped(stored, tmp_path, capsys):
    record = stored / "made.json"
    entries = json.loads(record.read_text())
    last = entries[0]["steps"][1]
    entries[0]["steps"][1] = "exit 3"
    record.write_text(json.dumps(entries))
    assert remake.main(["one", "--folder", str(tmp_path / "new")]) == 1
    assert "status 3" in capsys.readouterr().out
    entries[0]["steps"][1] = last
    record.write_text(json.dumps(entries))
    assert remake.main(["one", "--folder", str(tmp_path / "new")]) == 0
    assert (tmp_path / "new" / "out" / "log").read_text() == "step\n"


def test_differences_are_a_table_and_status_1(stored, tmp_path, capsys):
    (stored / "one.json").write_text('{"em": 0.7, "seconds": 1}')
    assert remake.main(["one", "--folder", str(tmp_path / "new")]) == 1
    *_, head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["file", "field", "stored", "made", "anew"]
    assert row.split() == ["one.json", "em", "0.7", "0.5"]
    assert remake.main(["one", "--folder", str(tmp_path / "new"), "--tolerance", "0.3"]) == 0


def test_a_file_that_was_not_made_is_a_difference(stored, tmp_path, capsys):
    record = stored / "made.json"
    record.write_text(record.read_text().replace("; touch book/results/note.md", ""))
    assert remake.main(["one", "--folder", str(tmp_path / "new")]) == 1
    assert capsys.readouterr().out.splitlines()[-1].split()[0] == "note.md"


def test_what_is_missing_is_said(stored, tmp_path, capsys):
    folder = ["--folder", str(tmp_path / "new")]
    assert remake.main(["lines", *folder]) == 2
    assert "lines needs LINES: predictions" in capsys.readouterr().err
    assert remake.main(folder) == 0  # all the others
    said = capsys.readouterr().out
    assert "left out: lines needs LINES: predictions. Give them by --with LINES=PATH." in said
    lines = tmp_path / "given lines"
    lines.write_text('{"em": 1}\n{"em": 1}\n')
    assert remake.main(["lines", "--with", f"LINES={lines}", *folder]) == 1
    assert capsys.readouterr().out.splitlines()[-1].split()[1] == "[1]"
    assert (tmp_path / "new" / "one.json").exists()  # what it reads lies beside it
    assert remake.main(["lines", "--with", "LINES", *folder]) == 2


def test_many_differences_are_counted():
    rows = [(f"[{n}]", "0", "1") for n in range(remake.SHOWN + 5)]
    lines = remake.report({"a.json": rows}).splitlines()
    assert len(lines) == remake.SHOWN + 2
    assert lines[-1].split() == ["a.json", "and", "5", "more"]


def test_only_whole_paths_and_names_are_replaced(tmp_path):
    making = made.Making(
        {"a.json": {}},
        ["x DEV DEVELOP book/results/a.json book/results.txt abook/results build/out/DEV-b"],
        needs={"DEV": "questions"},
    )
    (step,) = remake.resolved(making, tmp_path, {"DEV": "d e"})
    assert step.startswith(f"x 'd e' DEVELOP {tmp_path}/a.json ")
    assert " abook/results " in step
    with pytest.raises(InputError, match="a needs DEV: questions"):
        remake.resolved(making, tmp_path, {})


def test_lists_and_tables_run_nothing(stored, tmp_path, capsys):
    for how in ("--list", "--table"):
        assert remake.main([how, "one", "--folder", str(tmp_path / "new")]) == 0
        assert "one.json" in capsys.readouterr().out
    assert not (tmp_path / "new").exists()
    assert remake.main(["--note", "one"]) == 0
    assert "one.json" in capsys.readouterr().out
    assert remake.main(["--note"]) == 2
