"""The commands on files of one's own: how they are read, what is said, and what is refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ragbook.cli import main
from tests.test_cli import encoders as encoders  # the fixture

ROOT = Path(__file__).parents[1]
RIVERS = (
    "nr,river,note\n7,Elbe,It rises in the hills. It flows north. It ends at sea.\n8,Oder,Short.\n"
)
ASKED = "nr,asked,label,where\nq1,Which river is short?,Oder,8\nq2,Which rises in hills?,Elbe,7\n"
COLUMNS = "id=nr,title=river,text=note,question=asked,answers=label,gold=where,question-id=nr"


@pytest.fixture
def rivers(tmp_path):
    (tmp_path / "rivers.csv").write_text(RIVERS)
    (tmp_path / "asked.csv").write_text(ASKED)
    return tmp_path


def refused(capsys, *arguments):
    """The one sentence with which a command is refused."""
    assert main(list(map(str, arguments))) == 2
    out, told = capsys.readouterr()
    assert out == ""
    assert told.startswith("ragbook: ")
    assert told.count("\n") == 1
    return told


def test_columns_are_named_for_passages_and_questions_in_one_option(rivers, capsys, encoders):
    out = rivers / "out"
    arguments = ["compare", "--corpus", rivers / "rivers.csv", "--questions", rivers / "asked.csv"]
    arguments += ["--columns", COLUMNS, "--methods", "realm", "--k", "1", "--out", out]
    assert main(list(map(str, arguments))) == 0
    told = capsys.readouterr().err
    assert "rivers.csv: comma-separated, id from 'nr', title from 'river', text from 'note'" in told
    assert "asked.csv: comma-separated, question from 'asked', answers from 'label'" in told
    lines = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert [(line["id"], line["gold_passage"]) for line in lines] == [("q1", "8"), ("q2", "7")]
    assert all(line["retrieved"][0]["passage_id"] in ("7", "8") for line in lines)


def test_one_option_names_the_questions_split_and_how_texts_are_cut(rivers, capsys, encoders):
    out = rivers / "out"
    arguments = ["compare", "--corpus", rivers / "rivers.csv", "--questions", rivers / "asked.csv"]
    arguments += ["--columns", COLUMNS, "--methods", "realm", "--out", out]
    arguments += ["--split", "dev", "--split", "sentences:6", "--k", "9"]
    assert main(list(map(str, arguments))) == 0
    assert "cut by sentences into passages of at most 6 words" in capsys.readouterr().err
    results = json.loads((out / "results.json").read_text())
    assert results["questions"]["split"] == "dev"
    assert results["gold_missing"] == 0  # the gold id 7 means its pieces
    (line, _) = (out / "predictions.jsonl").read_text().splitlines()
    found = {one["passage_id"] for one in json.loads(line)["retrieved"]}
    assert found == {"7-1", "7-2", "7-3", "8"}


def test_corpus_build_and_info_read_standard_input(rivers):
    run = [sys.executable, "-m", "ragbook", "corpus"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    out = rivers / "p.jsonl"
    build = [*run, "build", "-", "--columns", "id=nr,title=river,text=note", "--split", "words:4"]
    built = subprocess.run(
        [*build, "--overlap", "1", "--out", out],
        input=RIVERS.encode(), capture_output=True, env=environment,
    )  # fmt: skip
    assert (built.returncode, built.stdout.decode()) == (0, f"{out}: 5 passages\n")
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["id"] for line in lines] == ["7-1", "7-2", "7-3", "7-4", "8"]
    assert lines[0]["text"] == "It rises in the"
    assert lines[1]["text"] == "the hills. It flows"
    assert lines[0]["document"] == "7"
    info = subprocess.run(
        [*run, "info", "-", "--json"], input=out.read_bytes(), capture_output=True, env=environment
    )
    assert json.loads(info.stdout)["passages"] == 5
    assert info.stderr == b""
    refused = subprocess.run(
        [*run, "info", "-"], input=b'{"id": "1"}\n', capture_output=True, env=environment
    )
    assert refused.returncode == 2
    assert b"standard-input, line 1: " in refused.stderr


def test_what_cannot_be_read_is_refused_before_anything_is_written(rivers, capsys, encoders):
    corpus, out = rivers / "rivers.csv", rivers / "out"
    compare = ["compare", "--corpus", corpus, "--methods", "realm", "--out", out]
    told = refused(capsys, *compare, "--questions", rivers / "asked.csv", "--format", "tvs")
    assert "no format 'tvs'" in told
    told = refused(
        capsys, *compare, "--questions", rivers / "asked.csv", "--columns", "id=x,body=y"
    )
    assert "does not name columns" in told
    told = refused(capsys, *compare, "--questions", rivers / "asked.csv", "--overlap", "100")
    assert "overlap of 100" in told
    told = refused(capsys, *compare, "--questions", rivers / "asked.csv", "--split", "words:0")
    assert "words:0" in told
    told = refused(capsys, *compare, "--questions", rivers / "asked.csv", "--questions-format", "x")
    assert "no format 'x' of questions" in told
    told = refused(capsys, *compare, "--questions", rivers / "asked.csv")
    assert "no column is called question" in told
    told = refused(capsys, "compare", "--corpus", "-", "--questions", "-", "--out", out)
    assert "not both" in told
    told = refused(capsys, "corpus", "info", "miniwiki", "--split", "sentences")
    assert "miniwiki is read in one way" in told
    told = refused(capsys, "index", "build", "--corpus", corpus, "--out", rivers / "index")
    assert "which column holds the text" in told
    assert not any(rivers.glob("index*"))
    assert not any(rivers.glob(".index*"))


def test_a_folder_of_markdown_and_a_spreadsheet_are_compared_in_three_commands(
    tmp_path, capsys, encoders
):
    """The way of the chapter on one's own data; what the real models answer, it shows itself."""
    notes = tmp_path / "notes" / "guide"
    notes.mkdir(parents=True)
    (notes / "setup.md").write_text("# Setup\n\nFirst.\n\n## Cables\n\nThe cable is blue.\n")
    (tmp_path / "notes" / "faq.md").write_text("# FAQ\n\nIt needs 12 volts.\n")
    (tmp_path / "q.csv").write_text("question,answer,gold\nWhich colour?,blue,guide/setup.md\n")
    index, out = tmp_path / "index", tmp_path / "out"
    build = [
        "index",
        "build",
        "--corpus",
        tmp_path / "notes",
        "--split",
        "headings",
        "--out",
        index,
    ]
    assert main(list(map(str, build))) == 0
    assert "2 documents read (2 Markdown)" in capsys.readouterr().err
    compare = ["compare", "--index", index, "--questions", tmp_path / "q.csv", "--out", out]
    assert main([*map(str, compare), "--methods", "realm", "--k", "9"]) == 0
    line = json.loads((out / "predictions.jsonl").read_text())
    assert {one["passage_id"] for one in line["retrieved"]} == {
        *("faq.md#L3", "guide/setup.md#L3", "guide/setup.md#L7"),
    }
    assert line["gold_passages"] == ["guide/setup.md#L3", "guide/setup.md#L7"]
    assert line["gold_rank"] in (1, 2)


def test_the_same_documents_give_the_same_index_wherever_they_are(tmp_path, capsys, encoders):
    said = []
    for place in ("here", "there/below"):
        notes = tmp_path / place / "notes"
        notes.mkdir(parents=True)
        (notes / "a.md").write_text("# A\n\nIt needs 12 volts.\n")
        out = tmp_path / place / "index"
        assert main(["index", "build", "--corpus", str(notes), "--out", str(out)]) == 0
        said.append(capsys.readouterr().out.rpartition("digest ")[2])
    assert said[0] == said[1]
