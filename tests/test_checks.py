"""Names are looked up before any work starts, and what would be ignored is refused or said."""

import json

import pytest

from ragbook import cli
from ragbook.cli import parts
from ragbook.cli.checks import check_reading, given_options
from tests.checkpoints import write_checkpoint


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for name in ("gpt2", "t5"):
        write_checkpoint(folder / name, name)
    return folder


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_text(json.dumps({"id": "1", "title": "A", "text": "A river."}) + "\n")
    return path


def refused(capsys, *arguments):
    """The sentence of a refusal."""
    capsys.readouterr()
    assert cli.main([str(one) for one in arguments]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    lines = [line for line in error.splitlines() if not line.startswith("without ")]
    assert len(lines) == 1
    return lines[0]


NAMES = [
    (["compare", "--encoder", "nope"], "there is no encoder 'nope'"),
    (["compare", "--query-encoder", "nope"], "there is no encoder 'nope'"),
    (["compare", "--reader", "nope"], "there is no model 'nope'"),
    (["compare", "--lm", "nope"], "there is no model 'nope'"),
    (["compare", "--lm", "{t5}"], "not a decoder-only model"),
    (["compare", "--methods", "nope"], "there is no method 'nope'"),
    (["compare", "--prompt", "nope"], "there is no prompt 'nope'"),
    (["compare", "--questions", "nope.tsv"], "There is no file nope.tsv"),
    (["compare", "--memory", "much"], "is not a size"),
    (["ask", "Who?", "--encoder", "nope"], "there is no encoder 'nope'"),
    (["ask", "Who?", "--reader", "nope"], "there is no model 'nope'"),
    (["perplexity", "--lm", "nope"], "there is no model 'nope'"),
    (["perplexity", "--lm", "{t5}"], "not an --lm"),
    (["perplexity", "--text", "nope.txt"], "nope.txt"),
    (["datastore", "build", "--out", "{out}", "--lm", "nope"], "there is no model 'nope'"),
    (["index", "build", "--out", "{out}", "--encoder", "nope"], "there is no encoder 'nope'"),
]


@pytest.mark.parametrize(("arguments", "sentence"), NAMES)
def test_a_name_is_looked_up_before_the_corpus_is_read(
    capsys, monkeypatch, corpus, models, tmp_path, arguments, sentence
):
    """Not even one line of the corpus is read, and nothing is left beside the output."""

    def read(*_, **__):
        raise AssertionError("the corpus was read")

    monkeypatch.setattr("ragbook.corpus.read_passages", read)
    monkeypatch.setattr("ragbook.corpus.load_corpus", read)
    monkeypatch.setattr("ragbook.corpus.readers.read_passages", read)
    before = sorted(tmp_path.iterdir())
    places = {"t5": models / "t5", "out": tmp_path / "out"}
    asked = [one.format(**places) for one in arguments]
    assert sentence in refused(capsys, *asked, "--corpus", corpus)
    assert sorted(tmp_path.iterdir()) == before


IGNORED = [
    (["--methods", "fid", "--lm", "bundled"], "--lm is not followed by fid"),
    (["--methods", "fid,realm", "--lambda", "0.5"], "--lambda is not followed by fid or realm"),
    (["--methods", "closed-book", "--temperature", "2"], "--temperature is not followed"),
    (["--methods", "realm", "--free"], "--free is not followed by realm"),
    (["--methods", "realm", "--beams", "5"], "--beams is not followed by realm"),
    (["--methods", "realm", "--max-length", "5"], "--max-length is not followed"),
    (["--methods", "realm", "--length-penalty", "1"], "--length-penalty is not followed"),
    (["--methods", "realm", "--prompt", "base"], "--prompt is not followed by realm"),
    (["--methods", "knn-lm", "--same-weights"], "--same-weights is not followed by knn-lm"),
    (["--prompt", "base"], "was trained on a prompt of its own"),
    (["--methods", "fid", "--demonstrations", "miniwiki"], "--demonstrations needs a --prompt"),
    (["--methods", "fid", "--memory", "2GiB"], "--memory is that of a causal model"),
    (["--reader", "{t5}", "--methods", "fid", "--memory", "2GiB"], "--memory is that of a causal"),
    (
        ["--reader", "{t5}", "--lm", "bundled", "--methods", "knn-lm"],
        "--reader would be ignored",
    ),
    (["--retriever", "bm25", "--encoder", "minilm"], "--encoder would be ignored"),
    (["--retriever", "bm25", "--query-prompt", "q"], "--query-prompt would be ignored"),
]


@pytest.mark.parametrize(("options", "sentence"), IGNORED)
def test_an_option_that_nothing_follows_is_refused(capsys, models, options, sentence):
    asked = [one.format(t5=models / "t5") for one in options]
    assert sentence in refused(capsys, "compare", *asked)


def test_a_datastore_has_its_own_passages(capsys, tmp_path, corpus):
    said = refused(capsys, "perplexity", "--datastore", tmp_path, "--corpus", corpus)
    assert "A datastore holds its passages" in said


def test_a_method_of_ones_own_is_said_to_follow_no_option(capsys):
    parser = cli.new_parser()
    asked = parser.parse_args(
        ["compare", "--methods", "ragbook.methods.rag:RagToken,fid", "--beams", "3"]
    )
    assert given_options(asked) == ["beams", "methods"]
    check_reading(asked, asked.methods, given_options(asked))
    assert (
        "ragbook.methods.rag:RagToken is given the retriever alone, and not --beams"
        in capsys.readouterr().err
    )


def test_a_reader_that_knn_lm_cannot_use_is_said(capsys, models):
    asked = cli.new_parser().parse_args(
        ["compare", "--methods", "knn-lm,fid", "--reader", str(models / "t5")]
    )
    check_reading(asked, asked.methods, given_options(asked))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ragbook: knn-lm uses the bundled language model, as ")


def test_what_is_followed_is_not_refused(models):
    parser = cli.new_parser()
    for options in (
        ["--methods", "knn-lm", "--lm", str(models / "gpt2"), "--prompt", "base"],
        ["--reader", str(models / "gpt2"), "--memory", "2GiB", "--methods", "fid"],
        ["--methods", "realm,fid", "--beams", "3", "--free", "--same-weights"],
        ["--retriever", "hybrid", "--encoder", "minilm"],
        [],
    ):
        asked = parser.parse_args(["compare", *options])
        names = parts.method_names(asked.methods, asked.reader)
        check_reading(asked, names, given_options(asked))
