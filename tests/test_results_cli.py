"""What comes out of `ragbook compare`, as the command line makes, extends and compares it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ragbook.cli.results import FORMS
from ragbook.corpus import Question, QuestionSet
from ragbook.errors import InputError
from ragbook.evaluation import exports
from ragbook.training import Run
from tests.fakes import HashEncoder
from tests.test_cli import PASSAGES, FakeMethod, fake_load, printed, refusal, run, write_lines

QUESTIONS = QuestionSet(
    "asked",
    "all",
    [
        Question("Into which sea flows the Danube?", ("Danube",), "d-1"),
        Question("Which ocean meets the Tagus?", (), "t-1"),
        Question("Where does the Rhine end?", ()),
        Question("Which river meets the Atlantic near Lisbon?", ("Tagus",)),
    ],
)


@pytest.fixture(autouse=True)
def fakes(monkeypatch, tmp_path):
    """No checkpoint is read; the questions are `QUESTIONS` unless a test sets others."""
    monkeypatch.setattr("ragbook.models.load_encoder", lambda name, **how: HashEncoder(name))
    monkeypatch.setattr("ragbook.methods.load", fake_load)
    monkeypatch.setattr("ragbook.models.encoder.look_up_encoder", lambda *_, **__: None)
    monkeypatch.setattr("ragbook.models.loading.look_up", lambda *_, **__: "trained")
    monkeypatch.setattr("ragbook.corpus.load_questions", lambda *_, **__: QUESTIONS)
    monkeypatch.setenv("RAGBOOK_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def compare(tmp_path) -> list:
    """A comparison's command line."""
    rivers = write_lines(tmp_path / "rivers.jsonl", PASSAGES)
    return ["compare", "--corpus", rivers, "--questions", "asked", "--k", 2]


def lines_of(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


# --- questions without answers --------------------------------------------------------------------


def test_some_questions_without_answers_are_said_once(capsys, compare, tmp_path):
    out = tmp_path / "out"
    assert run(*compare, "--methods", "closed-book,fid", "--out", out) == 0
    shown = capsys.readouterr()
    assert shown.err == (
        "ragbook: 2 of the 4 questions have no known answer; they are asked, and where methods "
        "agree and what they rely on is counted, but they are left out of all scores.\n"
    )
    said = " ".join(shown.out.split())
    assert "4 questions, of which 2 have known answers and are scored" in said
    assert "Agreement: the share of the 4 questions" in said
    results = json.loads((out / "results.json").read_text())
    assert (results["questions"]["n"], results["questions"]["scored"]) == (4, 2)
    assert (out / "side_by_side.png").is_file()
    assert [line["methods"]["fid"]["em"] is None for line in lines_of(out)] == [
        False, True, True, False,
    ]  # fmt: skip


def test_questions_without_any_answer_are_compared(capsys, compare, tmp_path, monkeypatch):
    none = QuestionSet("asked", "all", [Question(q.text, (), q.gold_passage) for q in QUESTIONS])
    monkeypatch.setattr("ragbook.corpus.load_questions", lambda *_, **__: none)
    out = tmp_path / "out"
    methods = "closed-book,in-context,knn-lm,realm,rag-sequence,rag-token,fid"
    assert run(*compare, "--methods", methods, "--out", out, "--leave-one-out") == 0
    shown = capsys.readouterr()
    assert shown.err.startswith("ragbook: none of the 4 questions has a known answer; ")
    assert shown.err.count("\n") == 1
    assert "answered" in shown.out
    assert "…" not in shown.out
    assert {path.name for path in out.iterdir()} == {
        "results.json", "predictions.jsonl", "setup.json", "table.md", "table.tex",
        "agreement.md", "explorer",
    }  # fmt: skip
    results = json.loads((out / "results.json").read_text())
    assert results["methods"]["fid"]["em"] is None
    assert len(results["agreement"]) == 21
    # The same command, on answers that are known: no file of either kind stays behind.
    known = QuestionSet("asked", "all", [QUESTIONS[0], QUESTIONS[3]])
    monkeypatch.setattr("ragbook.corpus.load_questions", lambda *_, **__: known)
    assert run(*compare, "--methods", "closed-book,fid", "--out", out) == 0
    assert (out / "errors.png").is_file()
    monkeypatch.setattr("ragbook.corpus.load_questions", lambda *_, **__: none)
    assert run(*compare, "--methods", "closed-book,fid", "--out", out) == 0
    assert not list(out.glob("*.png"))
    assert not (out / "errors.md").exists()


def test_the_agreement_of_seven_methods_fits_into_80_columns(monkeypatch):
    from itertools import combinations

    from rich.console import Console

    from ragbook.evaluation.tables import agreement
    from ragbook.methods import NAMES

    pairs = [
        {"a": a, "b": b, "share": 1.0, "ci95": [0.987, 1.0]} for a, b in combinations(NAMES, 2)
    ]
    results = {"methods": dict.fromkeys(NAMES), "agreement": pairs, "questions": {"n": 9}}
    sheet = agreement(results, numbered=True)
    assert sheet is not None
    console = Console(width=80)
    with console.capture() as capture:
        console.print(sheet.terminal())
    shown = capture.get()
    assert "…" not in shown
    assert shown.count("98.7–100.0") == 21


def test_training_leaves_questions_without_answers_out(capsys, monkeypatch, tmp_path):
    seen: list[Run] = []
    monkeypatch.setattr("ragbook.training.RECIPES", {"lm": seen.append})
    command = ["train", "lm", "--out", tmp_path, "--corpus", "miniwiki", "--questions", "asked"]
    assert run(*command) == 0
    own = seen[0].own
    assert own is not None
    assert [question.text for question in own[1]] == [QUESTIONS[0].text, QUESTIONS[3].text]
    assert capsys.readouterr().err == (
        "ragbook: 2 of the 4 questions have no known answer and are left out.\n"
    )
    none = QuestionSet("asked", "train", QUESTIONS[1:3])
    monkeypatch.setattr("ragbook.corpus.load_questions", lambda *_, **__: none)
    assert "No question of 'asked' has a known answer" in refusal(capsys, *command)


# --- other forms ----------------------------------------------------------------------------------


@pytest.fixture
def stored(capsys, compare, tmp_path):
    """A comparison in a folder."""
    assert run(*compare, "--methods", "closed-book,fid", "--out", tmp_path / "stored") == 0
    capsys.readouterr()
    return tmp_path / "stored"


def test_a_stored_comparison_is_printed_as_when_it_was_made(capsys, compare, stored):
    assert run("results", stored) == 0
    again = capsys.readouterr()
    assert again.err == ""
    assert run(*compare, "--methods", "closed-book,fid") == 0
    assert capsys.readouterr().out == again.out
    assert printed(capsys, "results", stored, "--json") == json.loads(
        (stored / "results.json").read_text()
    )
    one = printed(capsys, "results", stored, "--json", "--methods", "fid")
    assert list(one["methods"]) == ["fid"]


@pytest.mark.parametrize("form", FORMS)
def test_a_stored_comparison_is_written_in_every_form(capsys, stored, tmp_path, form):
    out = tmp_path / "written"
    command = ["results", stored, "--format", form, "--out", out]
    assert run(*command) == 0
    shown = capsys.readouterr()
    files = shown.out.splitlines()
    assert len(files) == (2 if form in ("squad", "kilt") else 1)
    assert all(Path(name).stat().st_size for name in files)
    assert shown.err == ""
    assert "--overwrite" in refusal(capsys, *command)
    assert run(*command, "--overwrite") == 0


def test_cells_that_a_spreadsheet_would_run_are_said(capsys, stored, tmp_path):
    lines = lines_of(stored)
    lines[0]["methods"]["fid"]["text"] = '=HYPERLINK("http://x","y")'
    write_lines(stored / "predictions.jsonl", lines)
    assert run("results", stored, "--format", "csv", "--out", tmp_path / "answers.csv") == 0
    shown = capsys.readouterr()
    assert shown.err.startswith("ragbook: 1 cells begin with =, +, - or @")
    assert '"=HYPERLINK(""http://x"",""y"")"' in (tmp_path / "answers.csv").read_text()


def test_what_results_cannot_do_is_refused(capsys, stored, tmp_path):
    assert "both --format and --out" in refusal(capsys, "results", stored, "--format", "csv")
    assert "both --format and --out" in refusal(capsys, "results", stored, "--out", "x")
    command = ["results", stored, "--format", "csv", "--out", tmp_path / "x"]
    assert "give one of them" in refusal(capsys, *command, "--json")
    assert "rag is not among" in refusal(capsys, *command, "--methods", "rag")
    assert "There is no folder" in refusal(capsys, "results", tmp_path / "nowhere")
    assert "holds no results.json" in refusal(capsys, "results", tmp_path)


def test_the_parser_offers_every_form():
    assert FORMS == exports.FORMS


# --- added methods --------------------------------------------------------------------------------


def without_times(folder) -> dict:
    """What a user sees of a folder; the fakes' times are always the same."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_methods_are_added_to_a_stored_comparison(capsys, compare, tmp_path, monkeypatch):
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert run(*compare, "--methods", "closed-book,fid,realm", "--out", whole) == 0
    assert run(*compare, "--methods", "closed-book", "--out", out) == 0
    seen, load = [], fake_load

    def noted(names, *given, **how):
        seen.append(list(names))
        return load(names, *given, **how)

    monkeypatch.setattr("ragbook.methods.load", noted)
    assert run(*compare, "--methods", "fid", "--out", out, "--append") == 0
    assert run(*compare, "--methods", "realm", "--out", out, "--append") == 0
    assert seen == [["fid"], ["realm"]]
    assert without_times(out) == without_times(whole)
    capsys.readouterr()
    assert run(*compare, "--out", out, "--append") == 0  # all that are not there yet
    assert seen[-1] == ["in-context", "knn-lm", "rag-sequence", "rag-token"]
    assert list(json.loads((out / "results.json").read_text())["methods"]) == [
        "closed-book", "fid", "realm", *seen[-1],
    ]  # fmt: skip
    assert "there is none to add" in refusal(capsys, *compare, "--out", out, "--append")


def test_an_addition_that_would_compare_unlike_things_is_refused(
    capsys, compare, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    assert run(*compare, "--methods", "closed-book,realm", "--out", out) == 0
    before = without_times(out)
    add = [*compare, "--methods", "fid", "--out", out, "--append"]

    def refused(*changed) -> str:
        capsys.readouterr()
        assert run(*add, *changed) == 2
        return capsys.readouterr().err.splitlines()[-1]

    assert "realm is among the methods that were compared already" in refused("--methods", "realm")
    assert "--k was 2 in the stored comparison and is 3 now" in refused("--k", 3)
    assert "--seed was 0" in refused("--seed", 1)
    assert "retriever was dense in the stored" in refused("--retriever", "bm25")
    assert "--reader was bundled in the stored comparison and is mine" in refused(
        "--reader", "mine"
    )
    assert "--max-length was 16" in refused("--max-length", 8)
    assert "encoders was" in refused("--encoder", "other")
    others = write_lines(tmp_path / "others.jsonl", PASSAGES[:2])
    assert "passages was" in refused("--corpus", others)
    asked = QuestionSet("asked", "all", QUESTIONS[:3])
    monkeypatch.setattr("ragbook.corpus.load_questions", lambda *_, **__: asked)
    assert "questions was asked, all" in refused()
    monkeypatch.setattr("ragbook.corpus.load_questions", lambda *_, **__: QUESTIONS)
    (tmp_path / "empty").mkdir()
    assert "no comparison to add to" in refused("--out", tmp_path / "empty")
    assert "name its folder" in refusal(capsys, *compare, "--append")
    assert without_times(out) == before
    # The same passages, named in another way, are the same.
    same = tmp_path / "same.jsonl"
    same.write_bytes((tmp_path / "rivers.jsonl").read_bytes())
    assert run(*add, "--corpus", same) == 0
    (out / "setup.json").unlink()
    assert "does not say with what settings" in refused("--methods", "rag-token")


def test_an_option_of_the_added_method_alone_is_no_other_setting(capsys, compare, tmp_path):
    """Lambda is kNN-LM's: REALM, which does not follow it, was compared without."""
    out = tmp_path / "out"
    assert run(*compare, "--methods", "realm", "--out", out) == 0
    assert run(*compare, "--methods", "knn-lm", "--lambda", 0.5, "--out", out, "--append") == 0
    conditions = json.loads((out / "setup.json").read_text())["conditions"]
    assert conditions["--lambda"] == 0.5
    assert run(*compare, "--methods", "fid", "--out", out, "--append") == 0


def test_an_addition_that_failed_goes_on(capsys, compare, tmp_path, monkeypatch):
    asked = QuestionSet("asked", "all", [Question(f"Which {i}?", ("x",)) for i in range(20)])
    monkeypatch.setattr("ragbook.corpus.load_questions", lambda *_, **__: asked)
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert run(*compare, "--methods", "realm,fid", "--out", whole) == 0
    assert run(*compare, "--methods", "realm", "--out", out) == 0
    before = without_times(out)
    answer, counted = FakeMethod.answer, []

    def fails(self, questions, k=5):
        if len(questions) < 16:
            raise InputError("the reader has had enough")
        return answer(self, questions, k)

    monkeypatch.setattr(FakeMethod, "answer", fails)
    add = [*compare, "--methods", "fid", "--out", out, "--append"]
    assert run(*add) == 2
    assert before.items() <= without_times(out).items()
    monkeypatch.setattr(
        FakeMethod, "answer", lambda *given: counted.append(len(given[1])) or answer(*given)
    )
    capsys.readouterr()
    assert run(*add) == 0
    assert "16 of 20 are answered" in capsys.readouterr().err
    assert counted == [4]
    assert without_times(out) == without_times(whole)


# --- two comparisons ------------------------------------------------------------------------------


@pytest.fixture
def other(capsys, compare, tmp_path, monkeypatch, stored):
    """The comparison `stored` again, of some questions, with more passages, and FiD's answers other
    ones."""
    asked = QuestionSet("asked", "all", [*QUESTIONS[:2], QUESTIONS[3]])
    monkeypatch.setattr("ragbook.corpus.load_questions", lambda *_, **__: asked)
    answer = FakeMethod.answer

    def changed(self, questions, k=5):
        texts = {"Into which sea flows the Danube?": "Rhine"}
        return [
            replace(a, text=texts.get(q.text, a.text)) if self.retriever else a
            for q, a in zip(questions, answer(self, questions, k), strict=True)
        ]

    monkeypatch.setattr(FakeMethod, "answer", changed)
    command = [*compare, "--k", 3, "--methods", "realm,fid,closed-book"]
    assert run(*command, "--out", tmp_path / "other") == 0
    capsys.readouterr()
    return tmp_path / "other"


def test_settings_that_differ_are_said_once_and_without_brackets(capsys, stored, other):
    """Hashes are cut, an empty list is none, and an option is not repeated by what it set."""
    for folder, retriever, encoders in (
        (stored, "dense", [["ab" * 32, "ab" * 32], ["cd" * 32]]),
        (other, "bm25", []),
    ):
        setup = json.loads((folder / "setup.json").read_text())
        setup["conditions"] |= {
            "--retriever": retriever, "retriever": retriever, "encoders": encoders,
        }  # fmt: skip
        (folder / "setup.json").write_text(json.dumps(setup))
    assert run("diff", stored, other) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "retriever" in line] == ["retriever: dense in A, bm25 in B"]
    assert "encoders: abababababab..., cdcdcdcdcdcd... in A, none in B" in lines


def test_diff_says_what_changed(capsys, stored, other):
    assert run("diff", stored, other) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    said = " ".join(shown.out.split())
    assert "k: 2 in A, 3 in B" in said
    assert "Answers to the 3 questions that both asked (1 are only in A, 0 only in B)" in said
    assert "No difference is supported by the tests." in said
    assert "Scores in % of the 2 questions" in said
    assert "right to wrong: Into which sea flows the Danube? (1) A Danube B Rhine" in said
    assert "…" not in shown.out
    assert run("diff", stored, other, "--limit", 0) == 0
    assert "right to wrong:" not in capsys.readouterr().out


def test_diff_as_json(capsys, stored, other):
    found = printed(capsys, "diff", stored, other, "--json")
    assert (found["a"], found["b"]) == (str(stored), str(other))
    assert [entry["a"] for entry in found["methods"]] == ["closed-book", "fid"]
    fid = found["methods"][1]
    assert fid["em"]["difference"] == -0.5
    assert fid["counts"]["right to wrong"] == 1
    one = printed(capsys, "diff", stored, other, "--json", "--method", "fid", "--limit", 0)
    assert [entry["b"] for entry in one["methods"]] == ["fid"]
    assert one["methods"][0]["changed"] == []
    pair = printed(capsys, "diff", stored, other, "--json", "--methods", "closed-book,realm")
    assert [(entry["a"], entry["b"]) for entry in pair["methods"]] == [("closed-book", "realm")]


def test_diff_lists_so_many_and_says_how_many_more(capsys, compare, tmp_path, monkeypatch):
    asked = QuestionSet("asked", "all", [Question(f"Which {i}?", ("unknown",)) for i in range(30)])
    monkeypatch.setattr("ragbook.corpus.load_questions", lambda *_, **__: asked)
    for name, method in (("a", "closed-book"), ("b", "fid")):
        assert run(*compare, "--methods", method, "--out", tmp_path / name) == 0
    command = ["diff", tmp_path / "a", tmp_path / "b", "--methods", "closed-book,fid"]
    for options, listed in (([], 10), (["--limit", 3], 3), (["--all"], 30)):
        capsys.readouterr()
        assert run(*command, *options) == 0
        shown = capsys.readouterr().out
        assert shown.count("right to wrong: ") == listed
        assert (f"and {30 - listed} more" in shown) is (listed < 30)
    said = " ".join(shown.split())
    assert "EM is lower in B for closed-book / fid" in said


def test_diff_refuses_what_it_cannot_compare(capsys, stored, other, tmp_path):
    command = ["diff", stored, other]
    assert "give one of them" in refusal(capsys, *command, "--all", "--limit", 3)
    assert "give one" in refusal(capsys, *command, "--method", "fid", "--methods", "fid,realm")
    assert "one of A and one of B" in refusal(capsys, *command, "--methods", "fid")
    assert "realm is not among" in refusal(capsys, *command, "--method", "realm")
    assert "There is no folder" in refusal(capsys, "diff", stored, tmp_path / "nowhere")
