"""`ragbook retrieve`, `ragbook evaluate`, and rankings as retrievers in `compare` and `ask`."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ragbook.corpus import Passage
from ragbook.evaluation.ranking import read_qrels
from ragbook.models.cross_encoder import load_cross_encoder
from ragbook.retrieval.runs import Ranking, read_run, write_run
from tests.fakes import HashEncoder
from tests.models.test_cross_encoder import small, spread
from tests.test_cli import ENVIRONMENT, fake_load, printed, refusal, run, write_lines

PASSAGES = [
    {"id": "d 1", "title": "Danube", "text": "The Danube flows into the Black Sea."},
    {"id": "r-1", "title": "Rhine", "text": "The Rhine flows into the North Sea."},
    {"id": "t-1", "title": "Tagus", "text": "The Tagus meets the Atlantic Ocean near Lisbon."},
    {"id": "v-1", "title": "Volga", "text": "The Volga flows into the Caspian Sea."},
]
QUESTIONS = [
    {"question": "Into what flows the Danube?", "answer": ["Black Sea"], "gold_passage": "d 1"},
    {"question": "What meets the Tagus?", "answer": ["Atlantic"], "gold_passage": "t-1", "id": "t"},
    {"question": "Into what flows the Volga?", "answer": ["Caspian Sea"]},
]


@pytest.fixture(autouse=True)
def fakes(monkeypatch, tmp_path):
    monkeypatch.setattr("ragbook.models.load_encoder", lambda name, **how: HashEncoder(name))
    monkeypatch.setattr("ragbook.methods.load", fake_load)
    monkeypatch.setattr("ragbook.models.encoder.look_up_encoder", lambda *_: None)
    monkeypatch.setattr("ragbook.models.loading.look_up", lambda *_, **__: "trained")
    monkeypatch.setenv("RAGBOOK_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def rivers(tmp_path) -> Path:
    return write_lines(tmp_path / "rivers.jsonl", PASSAGES)


@pytest.fixture
def questions(tmp_path) -> Path:
    return write_lines(tmp_path / "questions.jsonl", QUESTIONS)


def of(path: Path, rankings: dict[str, list[str]]) -> Path:
    """A run file; the scores fall by 1 from place to place."""
    write_run(
        path,
        {
            question: Ranking(tuple(ids), -np.arange(len(ids), dtype=np.float32))
            for question, ids in rankings.items()
        },
    )
    return path


# --- retrieve -------------------------------------------------------------------------------------


def test_retrieve_writes_and_measures(capsys, tmp_path, rivers, questions):
    out, qrels = tmp_path / "new" / "bm25.trec.gz", tmp_path / "qrels"
    where = ("--corpus", rivers, "--questions", questions)
    found = printed(
        capsys, "retrieve", *where, "--retriever", "bm25", "--k", 2, "--out", out, "--qrels", qrels,
        "--json",
    )  # fmt: skip
    rankings = read_run(out)
    # A question without an id of its own has its number, as in predictions.jsonl.
    assert {q: one.ids[0] for q, one in rankings.items()} == {"1": "d 1", "t": "t-1", "3": "v-1"}
    assert all(len(one.ids) == 2 for one in rankings.values())
    assert read_qrels(qrels) == {"1": {"d 1": 1}, "t": {"t-1": 1}}
    assert found["files"] == {"bm25": str(out)}
    assert found["paired"] == []
    # No measure looks further down than k.
    assert list(found["runs"]["bm25"]) == ["RR", "AP"]
    assert found["runs"]["bm25"]["RR"] == {"mean": 1.0, "ci95": [1.0, 1.0]}
    # What is printed is what the written files give.
    again = printed(capsys, "evaluate", out, "--qrels", qrels, "--measures", "RR,AP", "--json")
    assert again == found["runs"]["bm25"]


def test_retrieve_with_several_retrievers_writes_a_folder(capsys, tmp_path, rivers, questions):
    out = tmp_path / "runs"
    argv = ["retrieve", "--corpus", rivers, "--questions", questions, "--out", out]
    assert run(*argv, "--retriever", "dense,bm25,hybrid", "--measures", "hit@1,R@1") == 0
    shown, err = capsys.readouterr()
    shown = " ".join(shown.split())
    assert sorted(path.name for path in out.iterdir()) == ["bm25.trec", "dense.trec", "hybrid.trec"]
    for words in ("hit@1", "dense − bm25", "3 queries. hit@k", "2 queries. Scores", "12 passages"):
        assert words in shown, words
    assert err == ""
    # One retriever writes into a folder that is there.
    assert run(*argv, "--retriever", "bm25", "--limit", "1") == 0
    assert list(read_run(out / "bm25.trec")) == ["1"]
    assert "1 questions" in capsys.readouterr().out


def test_retrieve_only_measures_without_out(capsys, tmp_path, rivers, questions):
    before = sorted(tmp_path.iterdir())
    found = printed(
        capsys, "retrieve", "--corpus", rivers, "--questions", questions, "--retriever", "bm25",
        "--json",
    )  # fmt: skip
    assert found["files"] == {}
    assert found["runs"]["bm25"]["hit@5"]["mean"] == 1.0
    assert sorted(tmp_path.iterdir()) == before


def test_retrieve_takes_others_rankings(capsys, tmp_path, rivers, questions):
    theirs = of(tmp_path / "theirs.trec", {"1": ["r-1", "gone", "d 1"], "9": ["d 1"]})
    out = tmp_path / "out.trec"
    argv = ("retrieve", "--corpus", rivers, "--questions", questions, "--run", theirs)
    assert run(*argv, "--out", out, "--json") == 0
    shown, err = capsys.readouterr()
    assert "has no passages for 2 of the questions; they have no lines." in err
    assert "1 passages of the run 'theirs' are not in corpus 'rivers' and are left out." in err
    assert json.loads(shown)["runs"]["theirs"]["RR"]["mean"] == 0.25
    assert {q: one.ids for q, one in read_run(out).items()} == {"1": ("r-1", "d 1")}


def test_retrieve_without_anything_to_measure(capsys, tmp_path, rivers):
    questions = write_lines(
        tmp_path / "open.jsonl", [{"question": "Which river?", "answer": ["?"]}]
    )
    argv = ("retrieve", "--corpus", rivers, "--questions", questions, "--retriever", "bm25")
    assert "No gold passage" in refusal(capsys, *argv, "--qrels", tmp_path / "q")
    assert "RR needs judgements" in refusal(capsys, *argv, "--measures", "RR")


# --- evaluate -------------------------------------------------------------------------------------


@pytest.fixture
def judged(tmp_path) -> Path:
    path = tmp_path / "qrels"
    path.write_text("1 0 a 2\n1 0 b 1\n2 0 c 1\n3 0 d 1\n")
    return path


def test_evaluate_one_run(capsys, tmp_path, judged):
    own = of(tmp_path / "own.trec", {"1": ["b", "a"], "2": ["x", "c"]})
    found = printed(
        capsys, "evaluate", own, "--qrels", judged, "--measures", "nDCG@10, R@100,MRR", "--json"
    )
    assert list(found) == ["nDCG@10", "R@100", "RR"]
    # b before a; c in the second place; the query 3 is missing and counts 0.
    ideal = 2 + 1 / np.log2(3)
    ndcg = ((1 + 2 / np.log2(3)) / ideal + 1 / np.log2(3)) / 3
    assert found["nDCG@10"]["mean"] == pytest.approx(ndcg)
    assert found["R@100"]["mean"] == pytest.approx(2 / 3)
    assert found["RR"]["mean"] == pytest.approx(1.5 / 3)
    low, high = found["RR"]["ci95"]
    assert 0 <= low < 0.5 < high <= 1
    left = printed(capsys, "evaluate", own, "--qrels", judged, "--skip-missing", "--json")
    assert left["RR"]["mean"] == pytest.approx(1.5 / 2)
    assert run("evaluate", own, "--qrels", judged) == 0
    shown = capsys.readouterr().out
    assert "3 queries. Queries that a run lacks count 0: own lacks 1." in shown
    assert all(name in shown for name in ("nDCG@10", "RR", "AP", "R@5", "R@20", "R@100"))


def test_evaluate_several_runs(capsys, tmp_path, judged):
    (tmp_path / "b").mkdir()
    one = of(tmp_path / "one.trec", {"1": ["a"], "2": ["c"], "3": ["d"]})
    two = of(tmp_path / "two.trec.gz", {"1": ["x", "a"], "2": ["c"], "3": ["x"]})
    found = printed(capsys, "evaluate", one, two, "--qrels", judged, "--measures", "RR", "--json")
    assert list(found) == ["runs", "paired"]
    assert found["runs"]["one"]["RR"]["mean"] == 1.0
    (test,) = found["paired"]
    assert (test["a"], test["b"], test["metric"]) == ("one", "two", "RR")
    assert test["difference"] == pytest.approx(0.5)
    assert test["p"] == test["p_holm"]
    assert run("evaluate", one, two, "--qrels", judged) == 0
    assert "one − two" in capsys.readouterr().out
    # Files of one name are told apart by their paths.
    other = of(tmp_path / "b" / "one.trec", {"1": ["a"]})
    found = printed(capsys, "evaluate", one, other, "--qrels", judged, "--json")
    assert list(found["runs"]) == [str(one), str(other)]
    assert "given twice" in refusal(capsys, "evaluate", one, one, "--qrels", judged)


def test_evaluate_by_questions(capsys, tmp_path, rivers, questions):
    own = of(tmp_path / "own.trec", {"1": ["r-1", "d 1"], "t": ["t-1"], "3": ["v-1"]})
    by_gold = printed(capsys, "evaluate", own, "--questions", questions, "--json")
    assert by_gold["RR"]["mean"] == 0.75
    assert "hit@5" not in by_gold
    both = printed(
        capsys, "evaluate", own, "--questions", questions, "--corpus", rivers, "--measures",
        "hit@1,hit@5,RR", "--json",
    )  # fmt: skip
    assert both["hit@1"]["mean"] == pytest.approx(2 / 3)
    assert both["hit@5"]["mean"] == 1.0
    assert both["RR"]["mean"] == 0.75


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["own.trec"], "not known what is right"),
        (["own.trec", "--qrels", "nowhere"], "no file nowhere"),
        (["nowhere.trec", "--qrels", "qrels"], "no file nowhere.trec"),
        (["own.trec", "--qrels", "qrels", "--measures", "nDGC@10"], "no measure 'nDGC@10'"),
        (["own.trec", "--qrels", "qrels", "--measures", "hit@5"], "hit@5 needs questions"),
        (["own.trec", "--qrels", "qrels", "--corpus", "miniwiki"], "--questions"),
        (["qrels", "--qrels", "qrels"], "line 1: 4 columns"),
        (["own.trec", "--qrels", "own.trec"], "line 1: 6 columns"),
        (["other.trec", "--qrels", "qrels"], "has none of the 3 queries, such as '1'"),
        (["own.trec", "--qrels", "qrels", "--seed", "-1"], "--seed"),
        ([], "required: RUN"),
    ],
)
def test_evaluate_refuses_in_one_sentence(capsys, monkeypatch, tmp_path, judged, argv, words):
    monkeypatch.chdir(tmp_path)
    of(tmp_path / "own.trec", {"1": ["a"]})
    of(tmp_path / "other.trec", {"x": ["a"]})
    assert words in refusal(capsys, "evaluate", *argv)


def test_evaluate_reads_standard_input(tmp_path, judged):
    own = of(tmp_path / "own.trec.gz", {"1": ["b", "a"], "2": ["c"]})
    done = subprocess.run(
        [sys.executable, "-m", "ragbook", "evaluate", "-", "--qrels", judged, "--measures", "RR",
         "--json"],
        env=ENVIRONMENT, capture_output=True, check=True, input=own.read_bytes(),
    )  # fmt: skip
    assert json.loads(done.stdout)["RR"]["mean"] == pytest.approx(2 / 3)


def test_evaluate_needs_no_model():
    code = "from ragbook.cli import main; import sys; main(sys.argv[1:]); print([*sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code, "evaluate", "nowhere", "--qrels", "nowhere"],
        env=ENVIRONMENT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "'ragbook.evaluation.ranking'" in done.stdout
    assert "'torch'" not in done.stdout


# --- compare and ask ------------------------------------------------------------------------------


def test_compare_takes_passages_from_a_run(capsys, tmp_path, rivers, questions):
    own = of(tmp_path / "own.trec", {"1": ["r-1", "d 1", "gone"], "t": ["t-1"]})
    out = tmp_path / "out"
    argv = ("compare", "--corpus", rivers, "--questions", questions, "--methods", "fid")
    assert run(*argv, "--run", own, "--out", out, "--json") == 0
    shown, err = capsys.readouterr()
    assert "the run 'own' has no passages for 1 of the questions; they are left out." in err
    results = json.loads(shown)
    assert results["questions"]["n"] == 2
    assert results["methods"]["fid"]["recall_at_k"] == 1.0
    lines = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == ["1", "t"]
    assert [p["passage_id"] for p in lines[0]["retrieved"]] == ["r-1", "d 1"]
    assert lines[0]["methods"]["fid"]["text"] == "Rhine"  # the first passage's title


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--retriever", "bm25"], "--retriever: not allowed with argument --run"),
        (["--encoder", "minilm"], "--run has no encoder, so --encoder would be ignored"),
        (["--pooling", "cls"], "--run has no encoder, so --pooling would be ignored"),
    ],
)
@pytest.mark.parametrize("command", [["compare"], ["ask", "Who?"], ["retrieve"]])
def test_a_run_takes_the_place_of_a_retriever(capsys, tmp_path, command, argv, words):
    own = of(tmp_path / "own.trec", {"1": ["a"]})
    assert words in refusal(capsys, *command, "--run", own, *argv)


def test_the_scale_is_that_of_a_run(capsys):
    assert "name a run file" in refusal(capsys, "compare", "--score-scale", "2")


def test_a_run_of_other_questions_or_passages_is_refused(capsys, tmp_path, rivers, questions):
    argv = ("compare", "--corpus", rivers, "--questions", questions, "--methods", "fid", "--run")
    other = of(tmp_path / "other.trec", {"q7": ["d 1"]})
    assert "has passages for none of the 3 questions" in refusal(capsys, *argv, other)
    other = of(tmp_path / "other.trec", {"1": ["x"]})
    assert "Not one of the 1 passages" in refusal(capsys, *argv, other)


def test_ask_takes_passages_from_a_run(capsys, tmp_path, rivers, questions):
    own = of(tmp_path / "own.trec", {"1": ["r-1"], "t": ["v-1", "t-1"], "u": ["x"]})
    argv = ("ask", "What meets the Tagus?", "--corpus", rivers, "--method", "fid", "--run", own)
    for named in (("--id", "t"), ("--questions", questions)):
        found = printed(capsys, *argv, *named, "--json")
        assert found["methods"]["fid"]["text"] == "Volga"
        evidence = found["methods"]["fid"]["evidence"]
        assert [one["passage_id"] for one in evidence] == ["v-1", "t-1"]
    assert "with --id, or with --questions" in refusal(capsys, *argv)
    assert "not both" in refusal(capsys, *argv, "--id", "t", "--questions", questions)
    assert "has no passage of corpus 'rivers'" in refusal(capsys, *argv, "--id", "u")
    assert "No question of" in refusal(capsys, "ask", "Who?", *argv[2:], "--questions", questions)
    assert "--id is for --run" in refusal(capsys, "ask", "Who?", "--id", "t")


# --- reranking ------------------------------------------------------------------------------------


@pytest.fixture
def reranker(tmp_path) -> Path:
    """A tiny random cross-encoder, as transformers writes it."""
    from transformers import BertConfig, BertForSequenceClassification

    from ragbook.models.embedded import minilm_tokenizer

    folder = tmp_path / "reranker"
    spread(BertForSequenceClassification(BertConfig(**small(1)))).save_pretrained(folder)
    minilm_tokenizer().save_pretrained(folder)
    return folder


def logits(reranker: Path, question: str, ids: list[str]) -> dict[str, float]:
    """The score of each passage."""
    own = [Passage(**one) for one in PASSAGES if one["id"] in ids]
    scores = load_cross_encoder(str(reranker)).scores(question, own)
    return dict(zip([one.id for one in own], scores.tolist(), strict=True))


def test_retrieve_reranks(capsys, tmp_path, rivers, questions, reranker):
    out = tmp_path / "out.trec"
    where = ("--corpus", rivers, "--questions", questions, "--reranker", reranker)
    argv = ("retrieve", *where, "--retriever", "bm25", "--k", 3, "--out", out)
    found = printed(capsys, *argv, "--rerank", 4, "--json")
    assert list(found["files"]) == ["bm25-reranked"]
    rankings = read_run(out)
    for question, entry in zip(("1", "t", "3"), QUESTIONS, strict=True):
        scores = logits(reranker, entry["question"], [one["id"] for one in PASSAGES])
        best = sorted(scores, key=lambda one: -scores[one])[:3]
        assert list(rankings[question].ids) == best
        np.testing.assert_allclose(rankings[question].scores, [scores[i] for i in best], atol=1e-6)
    assert out.read_text().splitlines()[0].endswith(" bm25-reranked")


def test_compare_and_ask_rerank_a_run(capsys, tmp_path, rivers, questions, reranker):
    ids = ["r-1", "d 1", "v-1"]
    own = of(tmp_path / "own.trec", {"1": ids, "t": ["t-1"], "3": ["v-1"]})
    out = tmp_path / "out"
    given = ("--corpus", rivers, "--run", own, "--reranker", reranker)
    argv = ("compare", *given, "--questions", questions, "--methods", "fid", "--k", 2)
    assert run(*argv, "--out", out) == 0
    line = json.loads((out / "predictions.jsonl").read_text().splitlines()[0])
    scores = logits(reranker, QUESTIONS[0]["question"], ids)
    best = sorted(scores, key=lambda one: -scores[one])[:2]
    assert [p["passage_id"] for p in line["retrieved"]] == best
    assert [p["score"] for p in line["retrieved"]] == pytest.approx([scores[i] for i in best])
    capsys.readouterr()
    argv = ("ask", QUESTIONS[0]["question"], *given, "--id", "1", "--method", "fid", "--k", 2)
    evidence = printed(capsys, *argv, "--json")["methods"]["fid"]["evidence"]
    assert [one["passage_id"] for one in evidence] == best


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--rerank", "5"], "--rerank is that of --reranker"),
        (["--reranker", "nowhere"], "there is no reranker 'nowhere'"),
        (["--reranker", "x", "--rerank", "3", "--k", "4"], "--rerank 3 reads fewer passages than"),
        (["--reranker", "x", "--run", "y", "--score-scale", "2"], "--score-scale would be ignored"),
    ],
)
@pytest.mark.parametrize("command", [["compare"], ["ask", "Who?"], ["retrieve"]])
def test_a_reranker_that_cannot_be_is_refused(capsys, command, argv, words):
    assert words in refusal(capsys, *command, *argv)
