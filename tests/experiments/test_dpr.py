"""DPR's figures: every retriever is measured as recall is defined, and a trained encoder once."""

import json

import pytest
from experiments import dpr
from experiments.report import write_sections

from ragbook.corpus import load_corpus, load_questions
from ragbook.evaluation.metrics import recall_at_k
from ragbook.evaluation.statistics import mean_ci
from ragbook.retrieval import BM25Retriever
from ragbook.training.dpr import Recipe


@pytest.fixture
def own_files(tmp_path):
    lakes = {"Velm": "Ordania", "Sorn": "Tavia", "Ket": "Norland", "Aru": "Melisia"}
    (tmp_path / "passages.jsonl").write_text(
        "".join(
            json.dumps({"id": name, "title": f"Lake {name}", "text": f"It lies in {land}."}) + "\n"
            for name, land in lakes.items()
        )
    )
    for split in ("train", "dev"):
        (tmp_path / f"{split}.jsonl").write_text(
            "".join(
                json.dumps({"question": f"Where is Lake {name}?", "answer": [land]}) + "\n"
                for name, land in lakes.items()
            )
        )
    return [str(tmp_path / f"{name}.jsonl") for name in ("passages", "train", "dev")]


def test_own_passages_are_measured_and_the_trained_encoder_is_kept(
    own_files, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dpr, "VARIANTS", {"short": Recipe(steps=1, batch=2, dtype="float32")})
    monkeypatch.setattr(dpr, "SCALES", {"cosine": 20.0})
    out = tmp_path / "dpr.json"
    dpr.main(str(out), *own_files)
    figures = json.loads(out.read_text())
    assert list(figures) == ["bm25", "untrained, cosine", "short"]
    corpus, questions = load_corpus(own_files[0]), load_questions(own_files[2], "dev")
    found = BM25Retriever(corpus).retrieve(questions, 4)
    assert figures["bm25"]["dev"]["n"] == 4
    for k in (1, 5):
        measured = figures["bm25"]["dev"]["recall"][str(k)]["mean"]
        assert measured == pytest.approx(recall_at_k(questions, found, k))

    def forbidden(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr(dpr, "train_dpr", forbidden)
    again = json.loads(out.read_text())
    del again["short"]
    out.write_text(json.dumps(again))
    dpr.main(str(out), *own_files)
    assert json.loads(out.read_text()) == figures


def test_differences_are_the_bases_hits_minus_the_others(own_files):
    corpus, questions = load_corpus(own_files[0]), load_questions(own_files[2], "dev")
    bm25 = BM25Retriever(corpus)

    class Reversed:
        name, score_scale = "reversed", 1.0

        def retrieve(self, questions, k):
            return bm25.retrieve(list(questions)[::-1], k)

    found = dpr.differences(
        lambda name: bm25 if name == dpr.BASE else Reversed(), {"dev": questions}
    )
    assert set(found) == set(dpr.AGAINST)
    for tests in found.values():
        right, wrong = (
            recall_at_k(questions, one.retrieve(questions, 1), 1) for one in (bm25, Reversed())
        )
        assert right > wrong
        assert tests["dev"]["1"]["difference"] == pytest.approx(right - wrong)
        assert set(tests["dev"]["1"]) == {"difference", "ci95", "p"}
        assert set(tests["dev"]) == {str(k) for k in dpr.KS}


def test_sections_are_measured_once_and_kept_when_a_later_one_fails(tmp_path):
    out = tmp_path / "new" / "figures.json"
    calls = []

    def first():
        calls.append("first")
        return mean_ci([1.0, 0.0, 1.0, 1.0])

    with pytest.raises(ZeroDivisionError):
        write_sections(out, {"first": first, "second": lambda: 1 / 0})
    write_sections(out, {"first": first, "second": lambda: 2})
    figures = json.loads(out.read_text())
    assert calls == ["first"]
    assert figures["second"] == 2
    assert figures["first"]["mean"] == 0.75
    low, high = figures["first"]["ci95"]
    assert low <= 0.75 <= high
