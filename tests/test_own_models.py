"""Models of one's own on the command line: every method that they serve, and refusals."""

import json
import shutil

import pytest

from ragbook.cli import main
from tests.checkpoints import write_checkpoint

PASSAGES = [
    {"id": "d-1", "title": "Danube", "text": "The Danube flows into the Black Sea."},
    {"id": "r-1", "title": "Rhine", "text": "The Rhine flows into the North Sea."},
    {"id": "t-1", "title": "Tagus", "text": "The Tagus meets the Atlantic Ocean near Lisbon."},
]
QUESTIONS = [
    {
        "question": "Into which sea flows the Danube?",
        "answer": ["Black Sea"],
        "gold_passage": "d-1",
    },
    {"question": "Which ocean meets the Tagus?", "answer": ["Atlantic"], "gold_passage": "t-1"},
    {"question": "Where does the Rhine end?", "answer": ["North Sea"], "gold_passage": "r-1"},
]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    for name, lines in (("passages", PASSAGES), ("questions", QUESTIONS[:2])):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{name}.jsonl").write_text(text)
    (folder / "train.jsonl").write_text(json.dumps(QUESTIONS[2]) + "\n")
    write_checkpoint(folder / "llama", "llama")
    write_checkpoint(folder / "t5", "t5")
    return folder


def compared(capsys, files, *options):
    """(results, standard error) of `ragbook compare --json` with BM25 on the small files."""
    status = main(
        ["compare", "--corpus", str(files / "passages.jsonl"), "--retriever", "bm25", "--k", "2",
         "--questions", str(files / "questions.jsonl"), "--json", "--max-length", "3",
         *map(str, options)]
    )  # fmt: skip
    out, err = capsys.readouterr()
    assert status == 0, err
    return json.loads(out), err


def test_without_methods_all_that_the_reader_serves_run_and_a_line_says_what_does_not(
    capsys, files
):
    results, err = compared(capsys, files, "--reader", files / "llama", "--device", "cpu")
    assert list(results["methods"]) == [
        "closed-book", "in-context", "knn-lm", "rag-sequence", "rag-token", "fid"
    ]  # fmt: skip
    assert [line for line in err.splitlines() if "without" in line] == [
        "without realm: it needs a span reader, which `ragbook train reader` writes"
    ]
    parameters = {entry["parameters"] for entry in results["methods"].values()}
    assert len(parameters) == 1  # one model behind all of them
    where = {(e["device"], e["precision"]) for e in results["methods"].values()}
    assert where == {("cpu", "float32")}


def test_a_prompt_file_with_demonstrations_changes_what_is_said(capsys, files):
    prompt = files / "prompt.toml"
    prompt.write_text('question = "Q {question}\\n"\nanswer = "A"\ndemonstrations = 1\n')
    options = ["--reader", files / "llama", "--methods", "closed-book,rag-token"]
    plain, _ = compared(capsys, files, *options)
    shown, _ = compared(
        capsys, files, *options, "--prompt", prompt, "--demonstrations", files / "train.jsonl"
    )
    for name, entry in plain["methods"].items():
        assert abs(entry["answer_nll"] - shown["methods"][name]["answer_nll"]) > 1e-3
    status = main(
        ["ask", "Why?", "--corpus", str(files / "passages.jsonl"), "--retriever", "bm25",
         "--reader", str(files / "llama"), "--prompt", str(prompt)]
    )  # fmt: skip
    assert status == 2
    assert "name the questions to draw them from" in capsys.readouterr().err


def test_beams_length_and_knn_settings_reach_the_methods(capsys, files):
    options = ["--reader", files / "llama", "--methods", "knn-lm", "--free"]
    base, _ = compared(capsys, files, *options, "--lambda", "0")
    alone, _ = compared(capsys, files, "--reader", files / "llama", "--methods", "closed-book")
    nll = base["methods"]["knn-lm"]["answer_nll"]
    assert nll == pytest.approx(alone["methods"]["closed-book"]["answer_nll"], abs=1e-4)
    mixed, _ = compared(capsys, files, *options, "--lambda", "0.9", "--temperature", "5")
    assert abs(mixed["methods"]["knn-lm"]["answer_nll"] - nll) > 1e-3

    def ask(*more):
        main(
            ["ask", "Into which sea?", "--corpus", str(files / "passages.jsonl"), "--retriever",
             "bm25", "--reader", str(files / "llama"), "--method", "fid", "--free", "--json", *more]
        )  # fmt: skip
        return json.loads(capsys.readouterr().out)["methods"]["fid"]

    greedy, wide = ask("--beams", "1"), ask("--beams", "6")
    assert wide["log_prob"] >= greedy["log_prob"]
    assert len(ask("--max-length", "1")["text"]) < len(ask("--length-penalty", "3")["text"])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--reader", "nowhere"], "there is no model 'nowhere'"),
        (["--reader", "{t5}", "--methods", "realm"], "realm cannot use"),
        (["--lm", "{t5}", "--methods", "knn-lm"], "not a decoder-only model"),
        (["--reader", "{llama}", "--prompt", "nothing"], "there is no prompt 'nothing'"),
        (["--reader", "{llama}", "--prompt", "chat"], "no chat template"),
        (["--prompt", "base"], "a prompt of its own"),
        (["--memory", "much"], "not a size"),
        (["--lambda", "2"], "from 0 to 1"),
        (["--temperature", "0"], "more than 0"),
        (["--beams", "0"], "1 or more"),
        (["--reader", "{pickle}"], "no other weights"),
    ],
)
def test_bad_input_is_one_sentence(capsys, files, options, sentence):
    pickle = files / "pickle"
    if not pickle.exists():
        shutil.copytree(files / "llama", pickle)
        (pickle / "model.safetensors").rename(pickle / "pytorch_model.bin")
    places = {name: str(files / name) for name in ("t5", "llama", "pickle")}
    status = main(
        ["compare", "--corpus", str(files / "passages.jsonl"), "--retriever", "bm25",
         "--questions", str(files / "questions.jsonl"), *(o.format(**places) for o in options)]
    )  # fmt: skip
    out, err = capsys.readouterr()
    assert status == 2
    assert out == ""
    assert sentence in err
    assert len([line for line in err.splitlines() if not line.startswith("without")]) == 1


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("reader", ["llama", "t5"])
def test_another_precision_says_nearly_the_same(capsys, files, reader, precision):
    options = ["--reader", files / reader, "--methods", "in-context,rag-token,fid"]
    exact, _ = compared(capsys, files, *options)
    rounded, _ = compared(capsys, files, *options, "--precision", precision, "--device", "cpu")
    for name, entry in rounded["methods"].items():
        assert (entry["device"], entry["precision"]) == ("cpu", precision)
        wanted = exact["methods"][name]["answer_nll"]
        assert entry["answer_nll"] != wanted
        assert entry["answer_nll"] == pytest.approx(wanted, rel=0.05)
