import argparse
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ragbook import doctor
from ragbook.cli import main
from ragbook.cli.advice import advice
from ragbook.cli.parser import new_parser
from ragbook.corpus import Corpus, Passage, load_corpus
from ragbook.errors import InputError
from ragbook.index.datastore import build_datastore
from ragbook.index.manifest import serialize
from ragbook.machine import DEVICES, PRECISIONS
from ragbook.methods.base import Answer, Evidence
from ragbook.models import load_language_model
from ragbook.models.bundled import write_manifest
from ragbook.models.devices import choose_device, choose_precision, name_of
from ragbook.models.limits import Cut
from ragbook.training import Run
from tests.fakes import HashEncoder

ROOT = Path(__file__).parents[1]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
COMMANDS = [
    ["compare"],
    ["results"],
    ["diff"],
    ["ask"],
    ["serve"],
    ["retrieve"],
    ["evaluate"],
    ["index", "build"],
    ["index", "info"],
    ["index", "verify"],
    ["index", "search"],
    ["perplexity"],
    ["corpus", "build"],
    ["corpus", "info"],
    ["datastore", "build"],
    ["datastore", "info"],
    ["datastore", "verify"],
    ["datastore", "search"],
    ["train"],
    ["export"],
    ["doctor"],
]


class FakeMethod:
    """Answers with the title of the first passage, or with nothing where it gets none."""

    parameters = 7
    verbatim: bool | None = None

    def __init__(self, name, retriever):
        self.name, self.retriever = name, retriever

    def answer(self, questions, k=5):
        if self.retriever is None:
            return [Answer(q.text, "unknown", float("-inf"), (), 0.5) for q in questions]
        answers = []
        for question, found in zip(questions, self.retriever.retrieve(questions, k), strict=True):
            weights = np.full(len(found.ids), 1 / len(found.ids))
            evidence = tuple(map(Evidence, found.ids, weights.tolist()))
            answers.append(Answer(question.text, found.passages[0].title, -1.5, evidence, 0.25))
        return answers

    def log_prob(self, questions, answers, k=5):
        return torch.full((len(questions),), -2.0)


def fake_load(names, retriever, verbatim, reader, **how):
    made = [FakeMethod(name, None if name == "closed-book" else retriever) for name in names]
    for method in made:
        method.verbatim = None if method.retriever is None else verbatim
        method.parameters = len(reader)
    return made


@pytest.fixture
def encoders(monkeypatch, tmp_path):
    """No checkpoint is read: every encoder is a fake of that name, kept here by its name."""
    made: dict[str, HashEncoder] = {}
    monkeypatch.setattr(
        "ragbook.models.load_encoder",
        lambda name, **how: made.setdefault(name, HashEncoder(name)),
    )
    monkeypatch.setattr("ragbook.methods.load", fake_load)
    # So all names are good; what is said of others is in test_checks.py.
    monkeypatch.setattr("ragbook.models.encoder.look_up_encoder", lambda *_: None)
    monkeypatch.setattr("ragbook.models.loading.look_up", lambda *_, **__: "trained")
    monkeypatch.setenv("RAGBOOK_CACHE", str(tmp_path / "cache"))
    return made


PASSAGES = [
    {"id": "d-1", "title": "Danube", "text": "The Danube flows into the Black Sea."},
    {
        "id": "r-1",
        "title": "Rhine",
        "text": "The Rhine flows into the North Sea at Hook of Holland.",
    },
    {"id": "t-1", "title": "Tagus", "text": "The Tagus meets the Atlantic Ocean near Lisbon."},
]
QUESTIONS = [
    {"question": "Into which sea flows the Danube?", "answer": ["Danube"], "gold_passage": "d-1"},
    {"question": "Which ocean meets the Tagus?", "answer": ["Atlantic"], "gold_passage": "t-1"},
]


@pytest.fixture
def rivers(tmp_path) -> Path:
    return write_lines(tmp_path / "rivers.jsonl", PASSAGES)


@pytest.fixture
def questions(tmp_path) -> Path:
    return write_lines(tmp_path / "questions.jsonl", QUESTIONS)


def write_lines(path: Path, lines) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def run(*argv: object) -> int:
    return main([str(each) for each in argv])


def refusal(capsys, *argv: object) -> str:
    """The one sentence with which a command refuses its input."""
    capsys.readouterr()
    assert run(*argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("ragbook: ")
    assert err.count("\n") == 1
    return err


def printed(capsys, *argv: object):
    """The JSON that a command prints, and nothing else on either stream."""
    capsys.readouterr()
    assert run(*argv) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return json.loads(out)


def python(*arguments: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *arguments],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **options,
    )


# --- help and usage -------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [[], ["index"], ["corpus"], ["datastore"], *COMMANDS])
def test_help(capsys, command):
    assert run(*command, "--help") == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"usage: {' '.join(['ragbook', *command])} ")
    assert err == ""


def test_help_lists_every_command(capsys):
    run("--help")
    out = capsys.readouterr().out
    assert all(f"    {command[0]}" in out for command in COMMANDS)


COMPLETE = """\
{script}
COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _shtab_ragbook
echo "${{COMPREPLY[@]}}"
"""


@pytest.mark.skipif(sys.platform == "win32", reason="bash")
@pytest.mark.parametrize(
    ("words", "completions"),
    [
        ("ragbook da", {"datastore"}),
        ("ragbook index ''", {"build", "info", "verify", "search"}),
        ("ragbook ask --retriever ''", {"dense", "bm25", "hybrid"}),
        ("ragbook index build --corpus riv", {"rivers.jsonl"}),
        ("ragbook index build --out my", {"my-folder"}),
    ],
)
def test_completion_in_bash(capsys, tmp_path, words, completions):
    (tmp_path / "rivers.jsonl").touch()
    (tmp_path / "my-file").touch()
    (tmp_path / "my-folder").mkdir()
    assert run("--print-completion", "bash") == 0
    script = COMPLETE.format(script=capsys.readouterr().out, words=words)
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) == completions


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_completion_of_other_shells_knows_every_command(capsys, shell):
    assert run("--print-completion", shell) == 0
    script = capsys.readouterr().out
    assert all(word in script for command in COMMANDS for word in command)


def test_completion_of_an_unknown_shell_is_bad_input(capsys):
    assert run("--print-completion", "fish") == 2
    assert "bash" in capsys.readouterr().err


def test_shtab_is_imported_for_completion_only():
    code = "import sys; from ragbook.cli import main; main(['--version']); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    modules = done.stdout.split()
    assert "argparse" in modules
    assert "shtab" not in modules


def test_version(capsys):
    assert run("--version") == 0
    assert capsys.readouterr().out.startswith("ragbook 0.")


@pytest.mark.parametrize("command", ["['--help']", "['compare', '--help']", "['doctor']"])
def test_what_needs_nothing_heavy_imports_nothing_heavy(command):
    code = f"""
import sys
from ragbook.cli import main
assert main({command}) == 0
heavy = "torch transformers faiss pandas scipy matplotlib pyarrow numpy".split()
print([name for name in heavy if name in sys.modules], file=sys.stderr)
"""
    assert python("-c", code).stderr == "[]\n"


def test_module_and_exit_status():
    done = python("-m", "ragbook", "index", "verify", "nowhere")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("ragbook: nowhere is not a passage index")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "required: COMMAND"),
        (["fly"], "invalid choice: 'fly'"),
        (["index"], "required: COMMAND"),
        (["index", "build"], "--corpus, --out"),
        (["ask"], "required: QUESTION"),
        (["ask", ""], "QUESTION: it is empty"),
        (["ask", " \n\t"], "QUESTION: it is empty"),
        (["ask", "Who?", "--method", "magic"], "magic"),
        (["ask", "Who?", "--k", "0"], "--k: it must be 1 or more, not 0"),
        (["ask", "Who?", "--k", "five"], "--k: 'five' is not a whole number"),
        (["ask", "\udcff"], "not valid UTF-8"),
        (["ask", "Who?", "--retriever", "oracle"], "invalid choice: 'oracle'"),
        (["ask", "Who?", "--corpus", "nowhere.jsonl"], "nowhere.jsonl"),
        (["ask", "Who?", "--index", "nowhere"], "nowhere is not a passage index"),
        (["compare", "--k", "-3"], "--k: it must be 1 or more, not -3"),
        (["compare", "--limit", "0"], "--limit: it must be 1 or more"),
        (["compare", "--seed", "-1"], "--seed: it must be 0 or more"),
        (["compare", "--methods", "fid,magic"], "magic"),
        (["compare", "--methods", "fid,,rag-token"], "not a list of different names"),
        (["compare", "--methods", "fid,fid"], "not a list of different names"),
        (["compare", "--split", "banana"], "banana"),
        (["compare", "--questions", "nowhere.jsonl"], "nowhere.jsonl"),
        (["compare", "--frobnicate"], "nrecognized arguments: --frobnicate"),
        (["index", "search", "nowhere", " "], "QUERY: it is empty"),
        (["perplexity", "--text", "nowhere.txt"], "nowhere.txt"),
        (["perplexity", "--lambda", "1.01"], "--lambda: it must be from 0 to 1, not 1.01"),
        (["perplexity", "--lambda", "nan"], "--lambda: 'nan' is not a number"),
        (["perplexity", "--temperature", "0"], "--temperature: it must be more than 0, not 0"),
        (["perplexity", "--window", "0"], "--window: it must be 1 or more, not 0"),
        (["perplexity", "--window", "all"], "--window: 'all' is not a whole number"),
        (["perplexity", "--stride", "0"], "--stride: it must be 1 or more, not 0"),
        (["perplexity", "--stride", "129"], "cannot have 129 that are scored"),
        (["perplexity", "--window", "353"], "more than the 512 tokens that bundled can read"),
        (["corpus", "info", "nowhere.tsv"], "nowhere.tsv"),
        (["corpus", "build", "nowhere.tsv", "--out", "x.jsonl"], "nowhere.tsv"),
        (["corpus", "build", "wiki.xml.bz2", "--out", "x.jsonl"], "no file wiki.xml.bz2"),
        (["corpus", "build", "wiki.xml.7z", "--out", "x.jsonl"], "7z"),
        (["datastore", "info", "nowhere"], "nowhere"),
    ],
)
def test_bad_usage_is_one_sentence(capsys, encoders, monkeypatch, tmp_path, argv, words):
    monkeypatch.chdir(tmp_path)
    assert words in refusal(capsys, *argv)


def test_unwritable_places_are_named(capsys, encoders, tmp_path, rivers, questions):
    (tmp_path / "file").write_text("x")
    out = tmp_path / "file" / "below"
    assert "file" in refusal(capsys, "index", "build", "--corpus", rivers, "--out", out)
    assert "file" in refusal(
        capsys, "compare", "--corpus", rivers, "--questions", questions, "--out", out
    )
    assert "file" in refusal(capsys, "corpus", "build", rivers, "--out", out / "x.jsonl")


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_interrupted(tmp_path):
    pipe = tmp_path / "corpus.jsonl"
    os.mkfifo(pipe)
    process = subprocess.Popen(
        [sys.executable, "-m", "ragbook", "corpus", "info", str(pipe)],
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts what runs in its background with the signal ignored, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    with open(pipe, "w"):  # waits until the command has opened it too
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err


@pytest.mark.skipif(sys.platform == "win32", reason="pipes")
@pytest.mark.parametrize("command", ["--help", "doctor", "corpus info miniwiki --json"])
def test_reader_that_went_away(command):
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.run(
        [sys.executable, "-m", "ragbook", *command.split()],
        env=ENVIRONMENT,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
        check=False,
    )
    os.close(writer)
    assert process.stderr == ""
    assert process.returncode in (0, 141)  # argparse itself passes over it, printing the help


# --- the index ------------------------------------------------------------------------------------


@pytest.fixture
def index(encoders, rivers, tmp_path, capsys) -> Path:
    out = tmp_path / "index"
    assert run("index", "build", "--corpus", rivers, "--out", out) == 0
    assert "3 passages of rivers" in capsys.readouterr().out
    return out


def test_index_build_again(capsys, index, rivers, questions, encoders):
    assert run("index", "build", "--corpus", rivers, "--out", index) == 0
    assert encoders["minilm"].encoded == 3
    write_lines(rivers, PASSAGES[:2])
    build = ["index", "build", "--corpus", rivers, "--out", index]
    assert "--overwrite" in refusal(capsys, *build)
    assert run(*build, "--overwrite") == 0
    assert printed(capsys, "index", "info", index, "--json")["corpus"]["passages"] == 2


def test_index_info(capsys, index):
    info = printed(capsys, "index", "info", index, "--json")
    assert info["corpus"]["name"] == "rivers"
    assert info["encoder"]["id"] == "minilm"
    run("index", "info", index)
    out = capsys.readouterr().out
    assert "rivers, 3 passages" in out
    assert info["digest"] in out


def test_a_refused_build_of_a_file_leaves_nothing(capsys, encoders, rivers, tmp_path):
    before = sorted(tmp_path.iterdir())
    build = ["index", "build", "--corpus", rivers, "--out", tmp_path / "new"]
    for factory in ("NSG32", "HNSW0", "IVF0,Flat", "PCA64,Flat"):
        assert factory.partition(",")[0] in refusal(capsys, *build, "--factory", factory)
        assert sorted(tmp_path.iterdir()) == before


def test_index_verify(capsys, index):
    assert run("index", "verify", index) == 0
    assert printed(capsys, "index", "verify", index, "--json") == {"whole": True, "problems": []}
    data = bytearray((index / "faiss.index").read_bytes())
    data[-1] ^= 1
    (index / "faiss.index").write_bytes(data)
    assert run("index", "verify", index) == 1
    out, err = capsys.readouterr()
    assert "faiss.index is not as it was written" in out
    assert err == ""
    assert run("index", "verify", index, "--json") == 1
    assert not json.loads(capsys.readouterr().out)["whole"]
    (index / "faiss.index").unlink()
    assert run("index", "verify", index) == 1
    shutil.rmtree(index)
    assert "not a passage index" in refusal(capsys, "index", "verify", index)


def test_index_search(capsys, index):
    query = "Where does the Rhine flow into the North Sea?"
    found = printed(capsys, "index", "search", index, query, "--k", 2, "--json")
    assert [list(each) for each in found] == [["passage_id", "title", "score"]] * 2
    assert found[0]["passage_id"] == "r-1"
    assert found[0]["score"] > found[1]["score"]
    assert len(printed(capsys, "index", "search", index, query, "--k", 10**9, "--json")) == 3
    assert run("index", "search", index, query) == 0
    assert capsys.readouterr().out.splitlines()[0].endswith("Rhine (r-1)")


def test_searching_with_another_encoder_is_refused(capsys, index, questions):
    search = ["index", "search", index, "Rhine", "--encoder", "other"]
    compare = ["compare", "--index", index, "--questions", questions, "--encoder", "other"]
    for command in (search, compare):
        sentence = refusal(capsys, *command)
        assert "minilm" in sentence
        assert "other" in sentence


# --- compare and ask ------------------------------------------------------------------------------


def test_compare(capsys, encoders, rivers, questions, tmp_path):
    command = ["compare", "--corpus", rivers, "--questions", questions, "--k", 2]
    command += ["--methods", "rag-token,closed-book", "--seed", 3]
    out = tmp_path / "out" / "deep"
    results = printed(capsys, *command, "--json", "--out", out)
    assert set(results["methods"]) == {"closed-book", "rag-token"}
    assert (results["k"], results["seed"]) == (2, 3)
    assert results["questions"]["n"] == 2
    assert results["index"]["passages"] == 3
    assert results["methods"]["rag-token"]["em"] == 0.5
    assert results["methods"]["rag-token"]["verbatim"] is True
    free = printed(capsys, *command, "--free", "--reader", "mine", "--json")["methods"]
    assert free["rag-token"]["verbatim"] is False
    assert free["closed-book"]["verbatim"] is None
    assert (results["methods"]["rag-token"]["parameters"], free["rag-token"]["parameters"]) == (
        7,
        4,
    )
    assert json.loads((out / "results.json").read_text()) == results
    assert len((out / "predictions.jsonl").read_text().splitlines()) == 2
    assert (out / "side_by_side.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "errors.png").read_bytes().startswith(b"\x89PNG")
    assert {path.suffix for path in out.iterdir()} >= {".md", ".tex"}
    assert run(*command) == 0
    text = capsys.readouterr().out
    assert "rag-token" in text
    assert "closed-book" in text
    assert "not in passages" in text
    assert "…" not in text, "the table is cut"


def test_compare_builds_an_index_once_and_mends_it(capsys, encoders, rivers, questions, tmp_path):
    command = ["compare", "--corpus", rivers, "--questions", questions, "--methods", "fid"]
    first = printed(capsys, *command, "--json")
    (kept,) = (tmp_path / "cache").iterdir()
    assert encoders["minilm"].encoded == 3
    printed(capsys, *command, "--json")
    assert encoders["minilm"].encoded == 3
    (kept / "faiss.index").write_bytes(b"damaged")
    assert printed(capsys, *command, "--json")["index"] == first["index"]
    assert encoders["minilm"].encoded == 6
    write_lines(rivers, [*PASSAGES[:2], PASSAGES[2] | {"text": "Changed."}])
    assert printed(capsys, *command, "--json")["index"] != first["index"]


def test_compare_leaves_one_out(capsys, encoders, rivers, questions, tmp_path, monkeypatch):
    def leave_one_out(self, questions, answers, k):
        return torch.tensor([[2.0] + [0.5] * (k - 1)] * len(questions))

    monkeypatch.setattr(FakeMethod, "leave_one_out", leave_one_out, raising=False)
    command = [
        "compare",
        "--corpus",
        rivers,
        "--questions",
        questions,
        "--methods",
        "fid",
        "--json",
    ]
    command += ["--out", tmp_path / "out", "--k", 2]
    assert "leave_one_out_accuracy" not in printed(capsys, *command)["methods"]["fid"]
    results = printed(capsys, *command, "--leave-one-out")
    assert results["methods"]["fid"]["leave_one_out_accuracy"] == 1  # the first is the gold one
    line = json.loads((tmp_path / "out" / "predictions.jsonl").read_text().splitlines()[0])
    assert sorted(e["loo"] for e in line["methods"]["fid"]["evidence"]) == [0.5, 2.0]
    sentence = refusal(capsys, *command, "--k", 1, "--leave-one-out")
    assert "at least 2" in sentence


@pytest.mark.parametrize("command", ["compare", "ask"])
def test_all_methods_can_be_held_to_the_same_weights(
    capsys, encoders, rivers, questions, monkeypatch, command
):
    from ragbook import methods

    seen, load = [], methods.load

    def noted(*given, shared, **how):
        seen.append(shared)
        return load(*given, **how)

    monkeypatch.setattr(methods, "load", noted)
    asked = ["--questions", questions] if command == "compare" else ["Where is the Rhine?"]
    line = [command, *asked, "--corpus", rivers, "--json"]
    line += ["--methods", "fid"] if command == "compare" else ["--method", "fid"]
    for options in ([], ["--same-weights"]):
        printed(capsys, *line, *options)
    assert seen == [False, True]


def counted(n, **methods):
    """Results with (cut, truncated) of each method."""
    scores = {m: {"errors": {"cut": c}, "truncated": t} for m, (c, t) in methods.items()}
    return {"questions": {"n": n}, "methods": scores}


def test_advice_is_given_above_three_in_a_hundred():
    results = counted(200, fid=(7, 6), realm=(150, None), rag=(6, 7), knn=(0, 0))
    fid, rag = advice(results, 16, 0.0)
    assert fid == (
        "fid: 3.5 % of its answers are the right one cut short; --length-penalty 1, or a larger "
        "value, favours longer answers."
    )
    assert rag == (
        "rag: 3.5 % of its answers would have gone on but were closed at 16 tokens; a --max-length "
        "above 16 lets them."
    )
    assert "a --length-penalty above 1.5 favours" in advice(results, 16, 1.5)[0]


def test_compare_warns_of_answers_cut_short(capsys, encoders, rivers, questions, monkeypatch):
    monkeypatch.setattr(FakeMethod, "max_length", 16, raising=False)
    lines = [line | {"answer": ["Danube river"]} for line in QUESTIONS]
    write_lines(questions, lines)
    command = ["compare", "--corpus", rivers, "--questions", questions, "--methods", "fid"]
    assert run(*command, "--json") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["methods"]["fid"]["errors"]["cut"] == 1
    assert captured.err.startswith("ragbook: fid: 50.0 % of its answers are the right one cut")
    assert captured.err.count("\n") == 1
    write_lines(questions, QUESTIONS)
    assert run(*command, "--json") == 0
    assert capsys.readouterr().err == ""


def crowded(names, left, retriever=None):
    """Methods whose prompts have no room for some passages of the first question."""

    class Reader:
        cut = Cut()

    class Crowded(FakeMethod):
        reader = Reader()

        def answer(self, questions, k=5):
            self.reader.cut.note_unread(questions[0].text, left)
            return super().answer(questions, k)

    return [Crowded(name, retriever) for name in names]


def test_compare_warns_of_passages_that_did_not_fit(
    capsys, encoders, rivers, questions, monkeypatch
):
    def load(names, retriever, *args, **how):
        return crowded(names, 1, retriever)

    monkeypatch.setattr("ragbook.methods.load", load)
    command = ["compare", "--corpus", rivers, "--questions", questions, "--methods", "in-context"]
    assert run(*command) == 0
    captured = capsys.readouterr()
    assert captured.err.startswith(
        "ragbook: in-context: on 1 of 2 questions not all passages fit into its prompt"
    )
    assert captured.err.count("\n") == 1
    assert "on how many questions: 1 on 1." in " ".join(captured.out.split())


def test_compare_says_what_gold_passages_are_missing(capsys, encoders, rivers, tmp_path):
    asked = [{"question": "Which?", "answer": ["Danube"], "gold_passage": "wiki:1", "id": "q7"}]
    asked += [QUESTIONS[1] | {"gold_passage": "t"}]  # the document of t-1
    questions = write_lines(tmp_path / "asked.jsonl", asked)
    command = ["compare", "--corpus", rivers, "--questions", questions, "--methods", "fid"]
    out = tmp_path / "out"
    assert run(*command, "--out", out) == 0
    err = capsys.readouterr().err
    assert "1 of 2 gold passages are not in corpus 'rivers', such as 'wiki:1' of" in err
    results = json.loads((out / "results.json").read_text())
    assert results["gold_missing"] == 1
    assert results["methods"]["fid"]["recall_at_k"] == 1.0
    lines = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == ["q7", "2"]
    assert [line["gold_passage"] for line in lines] == ["wiki:1", "t"]
    assert not list(out.glob(".*"))
    sentence = refusal(capsys, *command, "--retriever", "oracle")
    assert "1 of 2 gold passages" in sentence
    by_answer = tmp_path / "by-answer"
    assert run(*command, "--out", by_answer, "--gold", "answer") == 0
    assert capsys.readouterr().err == ""
    results = json.loads((by_answer / "results.json").read_text())
    assert results["gold_missing"] == 0
    assert results["methods"]["fid"]["evidence_accuracy"] is None
    line = json.loads((by_answer / "predictions.jsonl").read_text().splitlines()[0])
    assert (line["gold_passage"], line["gold_rank"]) == (None, None)


def test_compare_goes_on_where_it_ended(capsys, encoders, rivers, tmp_path, monkeypatch):
    asked = [QUESTIONS[i % 2] | {"question": f"Which river {i}?"} for i in range(20)]
    questions = write_lines(tmp_path / "asked.jsonl", asked)
    command = ["compare", "--corpus", rivers, "--questions", questions, "--methods", "fid"]
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert run(*command, "--out", whole) == 0
    answer = FakeMethod.answer

    def fails(self, questions, k=5):
        if len(questions) < 16:
            raise InputError("the reader has had enough")
        return answer(self, questions, k)

    monkeypatch.setattr(FakeMethod, "answer", fails)
    capsys.readouterr()
    assert run(*command, "--out", out) == 2
    err = capsys.readouterr().err
    assert "keeps the answers to 16 of 20 questions" in err
    assert "the reader has had enough" in err
    asked_again = []
    monkeypatch.setattr(
        FakeMethod, "answer", lambda *given: asked_again.append(len(given[1])) or answer(*given)
    )
    assert run(*command, "--out", out) == 0
    assert "16 of 20 are answered" in capsys.readouterr().err
    assert asked_again == [4]
    for name in ("predictions.jsonl", "table.md", "errors.md", "results.json"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    names = {path.relative_to(whole) for path in whole.rglob("*")}
    assert {path.relative_to(out) for path in out.rglob("*")} == names


def test_what_is_printed_cannot_drive_the_terminal(capsys, encoders, tmp_path):
    bad = "\x1b[2J\x1b]0;owned\x07\u202e"
    passages = [PASSAGES[0] | {"id": f"a{bad}\nb", "title": f"T{bad}"}]
    corpus = write_lines(tmp_path / "bad.jsonl", passages)
    corpus = corpus.rename(tmp_path / f"na{bad}me.jsonl")
    out = tmp_path / f"out{bad}"
    assert run("index", "build", "--corpus", corpus, "--out", out) == 0
    assert run("index", "search", out, "Danube") == 0
    assert run("index", "info", out) == 0
    assert run("ask", "Which sea?", "--index", out, "--method", "fid") == 0
    assert run("corpus", "info", corpus) == 0
    assert run("index", "info", tmp_path / f"no{bad}") == 2
    shown = capsys.readouterr()
    for text in (shown.out, shown.err):
        assert "\\x1b[2J" in text
        assert not {"\x1b", "\x07", "\u202e"} & set(text)


def test_compare_limit(capsys, encoders, rivers, questions):
    command = ["compare", "--corpus", rivers, "--questions", questions, "--methods", "fid"]
    assert printed(capsys, *command, "--limit", 1, "--json")["questions"]["n"] == 1
    assert printed(capsys, *command, "--limit", 50, "--json")["questions"]["n"] == 2


def test_compare_with_bm25_encodes_nothing(capsys, encoders, rivers, questions):
    command = ["compare", "--corpus", rivers, "--questions", questions, "--retriever", "bm25"]
    results = printed(capsys, *command, "--methods", "rag-token", "--json")
    assert encoders == {}
    assert results["methods"]["rag-token"]["recall_at_k"] == 1


def test_compare_with_the_hybrid(capsys, encoders, rivers, questions):
    command = ["compare", "--corpus", rivers, "--questions", questions, "--retriever", "hybrid"]
    results = printed(capsys, *command, "--methods", "rag-token", "--k", 1, "--json")
    assert encoders["minilm"].encoded == 3
    assert results["methods"]["rag-token"]["recall_at_k"] == 1


def test_compare_with_the_oracle(capsys, encoders, rivers, questions):
    command = ["compare", "--corpus", rivers, "--questions", questions, "--retriever", "oracle"]
    results = printed(capsys, *command, "--methods", "rag-token", "--k", 1, "--json")
    assert results["methods"]["rag-token"]["evidence_accuracy"] == 1
    write_lines(questions, [{"question": "Which sea?", "answer": ["x"]}])
    assert "names no gold passage" in refusal(capsys, *command)


def test_corpus_and_index_must_match(capsys, index, rivers, questions, tmp_path):
    base = ["compare", "--index", index, "--questions", questions, "--methods", "fid"]
    printed(capsys, *base, "--json")
    printed(capsys, *base, "--corpus", rivers, "--json")
    other = write_lines(tmp_path / "other.jsonl", PASSAGES[1:])
    sentence = refusal(capsys, *base, "--corpus", other)
    assert "'rivers'" in sentence
    assert "'other'" in sentence


def test_questions_are_needed_for_another_corpus_than_miniwiki(capsys, encoders, rivers, index):
    assert "--questions" in refusal(capsys, "compare", "--corpus", rivers)
    assert "--questions" in refusal(capsys, "compare", "--index", index)


def test_compare_on_miniwiki_by_default(capsys, encoders):
    results = printed(
        capsys, "compare", "--methods", "fid", "--split", "dev", "--limit", 3, "--json"
    )
    assert results["questions"]["name"] == "miniwiki"
    assert results["questions"]["split"] == "dev"
    assert results["index"]["passages"] == len(load_corpus("miniwiki"))


def test_ask(capsys, index):
    question = "Which ocean meets the Tagus?"
    found = printed(capsys, "ask", question, "--index", index, "--k", 2, "--json")
    assert found["question"] == question
    assert list(found["methods"]) == [
        "closed-book", "in-context", "knn-lm", "realm", "rag-sequence", "rag-token", "fid"
    ]  # fmt: skip
    assert found["methods"]["closed-book"] == {
        "text": "unknown",
        "log_prob": None,  # log 0, which JSON cannot say
        "evidence": [],
    }
    fid = found["methods"]["fid"]
    assert (fid["text"], fid["log_prob"]) == ("Tagus", -1.5)
    assert [list(each) for each in fid["evidence"]] == [["passage_id", "weight"]] * 2
    assert fid["evidence"][0] == {"passage_id": "t-1", "weight": 0.5}


def test_ask_one_method_in_words(capsys, index):
    assert run("ask", "Which ocean meets the Tagus?", "--index", index, "--method", "fid") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["fid", "Tagus", "(log", "p", "=", "-1.50)"]
    assert lines[1].split()[:3] == ["0.333", "Tagus", "(t-1):"]
    assert len(lines) == 4


@pytest.mark.parametrize(("left", "said"), [(1, "passage does"), (2, "2 passages do")])
def test_ask_says_that_a_prompt_has_no_room_for_all_passages(
    capsys, index, monkeypatch, left, said
):
    def load(names, retriever, *args, **how):
        return crowded(names, left, retriever)

    monkeypatch.setattr("ragbook.methods.load", load)
    question = "Which ocean meets the Tagus?"
    assert run("ask", question, "--index", index, "--method", "in-context") == 0
    captured = capsys.readouterr()
    start = f"ragbook: in-context: the lowest ranked {said} not fit into its prompt; it reads all "
    assert captured.err.startswith(start)
    assert captured.err.count("\n") == 1
    assert "Tagus" in captured.out


def test_ask_ten_thousand_words(capsys, index):
    question = "Tagus " * 10_000
    found = printed(capsys, "ask", question, "--index", index, "--method", "fid", "--json")
    assert found["methods"]["fid"]["text"] == "Tagus"


# --- the other commands ---------------------------------------------------------------------------


def test_corpus_build_and_info(capsys, tmp_path):
    source = tmp_path / "articles.tsv"
    words = [f"w{i}" for i in range(250)]
    rows = [("id", "text", "title"), ("a", " ".join(words), "Long"), ("b", "Short  text.", "Short")]
    source.write_text("".join("\t".join(row) + "\n" for row in rows))
    out = tmp_path / "passages.jsonl.gz"
    assert run("corpus", "build", source, "--out", out) == 0
    assert "4 passages" in capsys.readouterr().out
    corpus = load_corpus(out)
    assert [passage.id for passage in corpus] == ["a-1", "a-2", "a-3", "b"]
    assert " ".join(passage.text for passage in corpus[:3]).split() == words
    assert corpus[3].text == "Short  text."
    info = printed(capsys, "corpus", "info", out, "--json")
    assert info["passages"] == 4
    assert info["titles"] == 2
    assert info["words_per_passage"] == {"shortest": 2, "median": 100, "longest": 100}
    assert info["sha256"] == corpus.sha256
    assert run("corpus", "info", out) == 0
    assert corpus.sha256 in capsys.readouterr().out
    before = out.read_bytes()
    assert "--overwrite" in refusal(capsys, "corpus", "build", source, "--out", out)
    assert run("corpus", "build", source, "--out", out, "--overwrite") == 0
    assert out.read_bytes() == before
    assert "jsonl" in refusal(capsys, "corpus", "build", source, "--out", tmp_path / "x.tsv")


def test_corpus_build_leaves_nothing_half_written(capsys, tmp_path):
    source = tmp_path / "bad.jsonl"
    source.write_text(json.dumps(PASSAGES[0]) + "\n{broken\n")
    refused = refusal(capsys, "corpus", "build", source, "--out", tmp_path / "x.jsonl")
    assert f"{source}, line 2" in refused
    assert list(tmp_path.iterdir()) == [source]


def test_corpus_build_refuses_ids_that_collide(capsys, tmp_path):
    long = {"id": "a", "title": "", "text": "word " * 101}
    source = write_lines(tmp_path / "s.jsonl", [long, PASSAGES[0] | {"id": "a-2"}])
    assert "'a-2'" in refusal(capsys, "corpus", "build", source, "--out", tmp_path / "x.jsonl")


def test_perplexity(capsys, encoders, monkeypatch, rivers, tmp_path):
    text_of = {"tokens": 1234, "words": 1001, "bytes": 5678}
    known = {"perplexity": 20.5, "word_perplexity": 4.5e67, "bits_per_byte": 1.25, **text_of}
    seen, known = {}, {**known, "recall": 0.5}

    def fake(documents, corpus, progress=True, **options):
        seen.update(documents=documents, corpus=corpus.name, **options)
        base = {"perplexity": 21.5, "word_perplexity": 87.5, "bits_per_byte": math.inf, **text_of}
        return {"base": base, "knn-lm": known}

    monkeypatch.setattr("ragbook.evaluation.perplexity.perplexity", fake)
    monkeypatch.setattr(
        "ragbook.cli.commands.load_language_model", lambda told: f"{told.lm} on {told.device}"
    )
    base = printed(capsys, "perplexity", "--json")["base"]
    assert base == {"perplexity": 21.5, "word_perplexity": 87.5, "bits_per_byte": None, **text_of}
    assert seen["corpus"] == "miniwiki"
    assert "k" not in seen
    settings = ("lam", "temperature", "window", "stride")
    assert [seen[name] for name in settings] == [None, None, 128, 64]
    assert all(len(document.split()) > 60 for document in seen["documents"])
    text = tmp_path / "text.txt"
    text.write_text("Some text.\nMore of it.\n")
    assert run("perplexity", "--text", text, "--corpus", rivers, "--k", 8) == 0
    assert seen["documents"] == ["Some text.\nMore of it.\n"]
    assert (seen["corpus"], seen["k"]) == ("rivers", 8)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["perplexity", "by", "word", "bits", "per", "byte", "tokens"]
    assert lines[1].split() == ["base", "21.500", "87.500", "inf", "1,234"]
    assert lines[2].split() == ["knn-lm", "20.500", "4.500e+67", "1.2500", "1,234"]
    assert len(set(map(len, lines[:3]))) == 1
    assert lines[3:] == [
        "scored: documents 1, tokens 1,234, words 1,001, bytes 5,678; window 128, stride 64; first "
        "tokens not scored: none"
    ]
    own = ["--lambda", 0, "--temperature", 2.5, "--window", 1024, "--stride", 512]
    assert run("perplexity", "--text", text, *own) == 0
    assert [seen[name] for name in settings] == [0, 2.5, 1024, 512]
    assert "window 1,024, stride 512;" in capsys.readouterr().out
    store = SimpleNamespace(passages=SimpleNamespace(name="stored"))
    monkeypatch.setattr("ragbook.index.datastore.Datastore.open", lambda *_: store)
    assert run("perplexity", "--text", text, "--datastore", tmp_path) == 0
    assert (seen["corpus"], seen["datastore"]) == ("stored", store)
    assert (seen["lm"], seen["approximate"], "dev" in seen) == ("bundled on auto", False, False)
    options = ["--lm", "mine", "--device", "cuda", "--dev", text, "--approximate"]
    assert run("perplexity", *options, "--datastore", tmp_path) == 0
    assert "50.0 %" in capsys.readouterr().out
    assert (seen["lm"], seen["approximate"], seen["dev"]) == (
        "mine on cuda",
        True,
        ["Some text.\nMore of it.\n"],
    )
    assert "--ivfpq" in refusal(capsys, "perplexity", "--approximate")
    text.write_text(" \n")
    assert "no text" in refusal(capsys, "perplexity", "--text", text)
    text.write_bytes(b"\xff")
    assert "UTF-8" in refusal(capsys, "perplexity", "--text", text)


def test_datastore(capsys, encoders, monkeypatch, rivers, tmp_path):
    seen = []
    monkeypatch.setattr(
        "ragbook.cli.stores.load_language_model", lambda told: f"{told.lm} on {told.device}"
    )
    monkeypatch.setattr(
        "ragbook.index.datastore.build_datastore",
        lambda corpus, out, lm, progress=True: seen.append((corpus.name, out, lm)),
    )
    out = tmp_path / "datastore"
    assert run("datastore", "build", "--corpus", rivers, "--out", out) == 0
    assert seen == [("rivers", out, "bundled on auto")]
    monkeypatch.setattr("ragbook.index.datastore.add_approximate", seen.append)
    assert run("datastore", "build", "--corpus", rivers, "--out", out, "--ivfpq") == 0
    assert seen[1:] == [seen[0], None]
    for problems, status in (([], 0), (["keys.npy is missing"], 1)):
        monkeypatch.setattr("ragbook.index.datastore.verify", lambda _, found=problems: found)
        capsys.readouterr()
        assert run("datastore", "verify", out, "--json") == status
        printed_problems = json.loads(capsys.readouterr().out)
        assert printed_problems == {"whole": not problems, "problems": problems}


def test_datastore_search(capsys, tmp_path):
    rivers = Corpus("rivers", [Passage("d", "Danube", "It rises in the Black Forest.")])
    build_datastore(rivers, tmp_path / "store", load_language_model("bundled"), progress=False)
    asked = ["datastore", "search", tmp_path / "store", "Danube. It rises in the", "--k", 3]
    found = printed(capsys, *asked, "--json")
    assert len(found) == 3
    assert found[0]["token"] == "black"
    assert found[0]["context"].endswith("rises in the")
    assert {one["passage_id"] for one in found} == {"d"}
    assert run(*asked) == 0
    assert "rises in the [black]  (d)" in capsys.readouterr().out
    assert "'nowhere'" in refusal(capsys, *asked, "--device", "nowhere")


def test_train(capsys, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr("ragbook.training.RECIPES", {"lm": seen.append})
    assert run("train", "lm", "--out", tmp_path, "--steps", 3, "--resume") == 0
    assert run("train", "lm", "--out", tmp_path, "--seed", 1) == 0
    assert seen == [Run(tmp_path, steps=3, resume=True), Run(tmp_path, seed=1)]
    assert "lm" in refusal(capsys, "train", "dpr", "--out", tmp_path)
    assert run("train", "lm", "--out", tmp_path, "--corpus", "miniwiki") == 0
    corpus, questions = seen[-1].own
    assert (corpus.name, questions) == ("miniwiki", ())
    assert "--corpus" in refusal(
        capsys, "train", "lm", "--out", tmp_path, "--questions", "miniwiki"
    )
    own = ["--corpus", "miniwiki", "--questions", "miniwiki"]
    assert run("train", "lm", "--out", tmp_path, *own) == 0
    corpus, questions = seen[-1].own
    assert (corpus.name, questions.split) == ("miniwiki", "train")


def options_of(command: list[str]) -> dict[str, argparse.Action]:
    """A command's options by their names."""
    parser: Any = new_parser()
    for name in command:
        (group,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
        parser = group.choices[name]
    return {name: action for action in parser._actions for name in action.option_strings}


COMPUTE = {
    "train": "auto",
    "index build": "float32",
    "index search": "float32",
    "datastore build": "float32",
    "datastore search": "float32",
    "perplexity": "float32",
}


@pytest.mark.parametrize(("command", "precision"), COMPUTE.items())
def test_what_computes_says_where_and_how_precisely(command, precision):
    options = options_of(command.split())
    assert tuple(options["--device"].choices or ()) == DEVICES
    assert tuple(options["--precision"].choices or ()) == PRECISIONS
    assert (options["--device"].default, options["--precision"].default) == ("auto", precision)


SLOW = "ragbook: bfloat16 is slow on a processor that does not multiply in it"


def test_a_slow_format_is_used_and_said_to_be_slow(capsys, encoders, monkeypatch, rivers, tmp_path):
    """On standard error, in one sentence, and only if it was asked for by name."""
    monkeypatch.setattr("ragbook.models.devices.multiplies_bfloat16", lambda: False)
    build = ["index", "build", "--corpus", rivers, "--device", "cpu", "--out"]
    for precision, told in (("bfloat16", SLOW), ("auto", ""), ("float32", "")):
        assert run(*build, tmp_path / precision, "--precision", precision) == 0
        err = capsys.readouterr().err
        assert err.startswith(told)
        assert err.count("\n") == bool(told)
        used = "bfloat16" if told else "float32"
        assert encoders["minilm"].precision == used
        manifest = printed(capsys, "index", "info", tmp_path / precision, "--json")
        assert manifest["encoder"].get("precision", "float32") == used
    seen = []
    monkeypatch.setattr("ragbook.training.RECIPES", {"lm": seen.append})
    train = ["train", "lm", "--out", tmp_path, "--device", "cpu"]
    assert run(*train, "--precision", "bfloat16") == 0
    assert capsys.readouterr().err.startswith(SLOW)
    assert run(*train) == 0
    assert capsys.readouterr().err == ""
    assert [one.dtype for one in seen] == [torch.bfloat16, torch.float32]


def test_a_device_that_is_not_there_is_refused(capsys, monkeypatch, rivers, tmp_path):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    out = ["--out", tmp_path / "new", "--device", "cuda"]
    for command in (
        ["index", "build", "--corpus", rivers, *out],
        ["datastore", "build", "--corpus", rivers, *out],
        ["train", "rag", *out],
        ["perplexity", "--corpus", rivers, "--device", "cuda"],
    ):
        assert "no device 'cuda'" in refusal(capsys, *command)
    assert not (tmp_path / "new").exists()
    told = refusal(capsys, "train", "rag", "--out", tmp_path / "new", "--precision", "float16")
    assert "choose bfloat16" in told
    assert not (tmp_path / "new").exists()
    ray = ["index", "build", "--corpus", rivers, *out, "--engine", "ray", "--precision", "auto"]
    assert "name --precision" in refusal(capsys, *ray)


def test_what_is_stored_in_another_precision_says_so(capsys, rivers, tmp_path):
    """It is nearly the same, and can be searched in float32: the model is the same one."""
    build = ["datastore", "build", "--corpus", rivers, "--device", "cpu", "--out"]
    kept = {}
    for precision in ("float32", "bfloat16", "float16"):
        assert run(*build, tmp_path / precision, "--precision", precision) == 0
        made = printed(capsys, "datastore", "info", tmp_path / precision, "--json")
        told = made["language_model"]
        assert told.get("precision", "float32") == precision
        kept[precision] = told["sha256"], np.load(tmp_path / precision / "keys.npy").astype(float)
        search = ["datastore", "search", tmp_path / precision, "Danube. The Danube flows into the"]
        assert printed(capsys, *search, "--json")[0]["token"] == "black"
    for precision in ("bfloat16", "float16"):
        assert kept[precision][0] == kept["float32"][0]
        error = np.abs(kept[precision][1] - kept["float32"][1]).max()
        assert 0 < error < 0.2


def test_train_dpr_takes_a_similarity_and_a_loss(capsys, monkeypatch, tmp_path):
    seen = []
    recipes = {"lm": None, "dpr": lambda run, **varied: seen.append(varied)}
    monkeypatch.setattr("ragbook.training.RECIPES", recipes)
    assert run("train", "dpr", "--out", tmp_path) == 0
    assert run("train", "dpr", "--out", tmp_path, "--similarity", "l2", "--loss", "hinge") == 0
    assert seen == [{}, {"similarity": "l2", "loss": "hinge"}]
    assert "dpr takes --loss" in refusal(
        capsys, "train", "lm", "--out", tmp_path, "--loss", "hinge"
    )


def test_train_realm_builds_its_indexes_beside_it_if_asked(capsys, monkeypatch, tmp_path):
    seen = []
    recipes = {"lm": None, "realm": lambda run, **varied: seen.append(varied)}
    monkeypatch.setattr("ragbook.training.RECIPES", recipes)
    assert run("train", "realm", "--out", tmp_path) == 0
    assert run("train", "realm", "--out", tmp_path, "--background") == 0
    assert seen == [{}, {"background": True}]
    told = refusal(capsys, "train", "lm", "--out", tmp_path, "--background")
    assert "realm takes --background" in told


def test_the_language_model_takes_no_questions(capsys, tmp_path):
    own = ["--corpus", "miniwiki", "--questions", "miniwiki"]
    assert "leave --questions" in refusal(capsys, "train", "lm", "--out", tmp_path / "new", *own)
    assert not (tmp_path / "new").exists()


def test_export(capsys, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(
        "ragbook.models.checkpoints.export.export", lambda *given: seen.append(given)
    )
    assert run("export", "lm", "--out", tmp_path / "lm") == 0
    assert run("export", "fid", "--out", tmp_path / "fid", "--reader", "mine") == 0
    assert seen == [("lm", tmp_path / "lm", "bundled"), ("fid", tmp_path / "fid", "mine")]
    monkeypatch.undo()
    assert "reader, rag-sequence" in refusal(capsys, "export", "bart", "--out", tmp_path / "new")
    assert "exists already" in refusal(capsys, "export", "lm", "--out", tmp_path)


def test_doctor(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("RAGBOOK_CACHE", str(tmp_path))
    report = printed(capsys, "doctor", "--json")
    assert report["installed"]["torch"] == torch.__version__
    assert "passages" in report["data at hand"]["MiniWiki"]
    assert report["data at hand"][f"indexes kept in {tmp_path}"] == 0
    assert report["would need a download"]
    assert report["machine"]["cores"] == str(os.cpu_count())
    device = choose_device()
    assert report["machine"]["--device auto"] == device.type
    if device.type == "cpu":
        assert report["machine"]["--precision auto"] == name_of(choose_precision("auto", device))
    assert "mwparserfromhell" in report["optional"]
    assert run("doctor") == 0
    assert "MiniWiki" in capsys.readouterr().out


@pytest.mark.parametrize(
    "content", [None, b"", b"[]", b'{"files": []}', b'{"files": {"../x": {}}}', b"[" * 100_000]
)
def test_doctor_says_what_is_wrong_with_the_weights(tmp_path, content):
    path = tmp_path / "weights.json"
    if content is None:
        assert doctor._bundled(tmp_path) == {"bundled readers": None}
        return
    path.write_bytes(content)
    (sentence,) = doctor._bundled(tmp_path).values()
    assert sentence is not None
    assert re.fullmatch(rf"{path} is damaged \(.*\); reinstall ragbook", sentence)


def test_doctor_compares_sizes(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.safetensors").write_bytes(b"1234")
    write_manifest(tmp_path)
    (tmp_path / "a.safetensors").write_bytes(b"12")
    (tmp_path / "b.safetensors").unlink()
    found = doctor._bundled(tmp_path)
    assert found["bundled a.safetensors"] == ("2 bytes where there should be 4; reinstall ragbook")
    assert found["bundled b.safetensors"] is None


# --- with the embedded encoder --------------------------------------------------------------------


def test_real_encoder_finds_and_says_nothing_on_standard_error(rivers, tmp_path):
    out = str(tmp_path / "index")
    built = python("-m", "ragbook", "index", "build", "--corpus", str(rivers), "--out", out)
    assert (built.returncode, built.stderr) == (0, "")
    query = "Which waters lie at the Portuguese capital?"
    found = python("-m", "ragbook", "index", "search", out, query, "--json")
    assert (found.returncode, found.stderr) == (0, "")
    scores = {each["passage_id"]: each["score"] for each in json.loads(found.stdout)}
    assert next(iter(scores)) == "t-1"
    assert all(-1 <= score <= 1 for score in scores.values())


def test_index_build_by_budget_and_factory(capsys, encoders, tmp_path):
    lines = [
        {
            "id": str(i),
            "title": f"T{i}",
            "text": f"River {i} flows {i * i % 97} km to town {i % 13}.",
        }
        for i in range(3_000)
    ]
    source = write_lines(tmp_path / "many.jsonl", lines)
    out = tmp_path / "index"
    build = ("index", "build", "--corpus", source, "--out", out)
    assert run(*build, "--budget", "400kB") == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("Flat: ")
    assert "is more than 400.0 kB" in told[0]
    assert "IVF64,SQ8" in told[2]
    assert "fits into" in told[2]
    assert "recall@10" in told[3]
    info = printed(capsys, "index", "info", out, "--json")
    assert info["index"]["parameters"]["factory"] == "IVF64,SQ8"
    assert run("index", "verify", out) == 0
    assert "another kind" in refusal(capsys, *build)
    assert run(*build, "--overwrite", "--factory", "HNSW8", "--parts", "2") == 0
    assert printed(capsys, "index", "search", out, "River 77", "--json")[0]["score"] > 0
    assert "not both" in refusal(capsys, *build, "--factory", "Flat", "--budget", "1GB")
    assert "not a size" in refusal(capsys, *build, "--budget", "much")
    assert "do not fit" in refusal(capsys, *build, "--budget", "1kB")
    assert {path.name for path in tmp_path.iterdir()} == {"many.jsonl", "index"}


def test_index_build_streams_the_corpus_that_python_loads(capsys, encoders, tmp_path, rivers):
    from ragbook.index import build_index

    assert run("index", "build", "--corpus", rivers, "--out", tmp_path / "a") == 0
    index = build_index(load_corpus(rivers), tmp_path / "b", encoders["minilm"], progress=False)
    assert index.digest in capsys.readouterr().out


def test_verify_is_an_option_of_what_opens_an_index(capsys, index, tmp_path):
    """A letter changed within a text of an index without checksums is found by it alone."""
    copy = Path(shutil.copytree(index, tmp_path / "damaged"))
    manifest = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))
    del manifest["checksums"]
    (copy / "manifest.json").write_bytes(serialize(manifest))
    path = copy / "passages.arrow"
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"Danube") + 1] ^= 1
    path.write_bytes(raw)
    assert run("index", "info", copy) == 0
    commands: list[list[Any]] = [
        ["index", "info", copy],
        ["index", "search", copy, "a river"],
        ["ask", "Which river?", "--index", copy, "--method", "rag-token"],
        ["compare", "--index", copy, "--questions", "miniwiki"],
        ["perplexity", "--index", copy],
        ["datastore", "build", "--index", copy, "--out", tmp_path / "store"],
    ]
    for command in commands:
        capsys.readouterr()
        assert run(*command, "--verify") == 2
        assert "passages.arrow is not as it was written" in capsys.readouterr().err
