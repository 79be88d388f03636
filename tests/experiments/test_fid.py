"""What is measured of FiD, on tiny random models: counts that can be checked against its parts."""

import json

import pytest
import torch
from experiments import fid as module
from experiments.fid import (
    damaged,
    distillation,
    distractors,
    evidence,
    many_and_few,
    passages_read,
)

from ragbook.corpus import Corpus, QuestionSet
from ragbook.index import build_index
from ragbook.methods.fid import FiD
from ragbook.methods.rag import RagSequence
from ragbook.models import SeqReader, load_encoder
from ragbook.models.embedded import minilm_tokenizer
from ragbook.retrieval import DenseRetriever, OracleRetriever
from ragbook.training.distil import Recipe
from tests.methods.conftest import PASSAGES, QUESTIONS, FixedRetriever, seq_model

CORPUS = Corpus("four", PASSAGES)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    reader = SeqReader(seq_model("bart"), minilm_tokenizer(), "bart")
    monkeypatch.setattr(module, "load_reader", lambda name="bundled", method=None: reader)
    kinds = {"rag-sequence": RagSequence, "fid": FiD}

    def load(names, retriever, verbatim):
        return [kinds[name](reader, retriever, verbatim=verbatim) for name in names]

    monkeypatch.setattr(module, "load", load)
    return reader


def test_many_and_few_differ_by_their_means(tiny):
    out = many_and_few(tiny, FixedRetriever(uneven=False), QUESTIONS, many=3, few=1)
    assert out["n"] == len(QUESTIONS)
    gap = out["em"]["3"]["mean"] - out["em"]["1"]["mean"]
    assert out["difference"]["difference"] == pytest.approx(gap)


def test_with_most_passages_both_methods_read_the_same_pairs_once(tiny, monkeypatch):
    monkeypatch.setattr(module, "KS", (1, 3))
    encoded = []
    monkeypatch.setattr(tiny.pairs, "_key", None)
    layout = tiny.pairs.layout

    def counted(tokenizer, questions, passages):
        encoded.append(len(passages))
        return layout(tokenizer, questions, passages)

    monkeypatch.setattr(tiny.pairs, "layout", counted)
    out = passages_read(FixedRetriever(uneven=False), QUESTIONS)
    assert encoded == [2, 6]
    assert [out["recall"][k]["mean"] for k in ("1", "3")] == [0.5, 1]
    assert set(out["fid"]) == set(out["seconds"]) == {"1", "3"}
    assert set(out["rag-sequence, fast"]) == {"3"}


def test_distractors_stand_beside_the_gold_passage(monkeypatch):
    monkeypatch.setattr(module, "DISTRACTORS", (0, 2))
    shown = []
    kept = OracleRetriever.retrieve

    def seen(self, questions, k):
        found = kept(self, questions, k)
        shown.append(
            [
                (q.gold_passage == f.ids[0], len(f.ids))
                for q, f in zip(questions, found, strict=True)
            ]
        )
        return found

    monkeypatch.setattr(OracleRetriever, "retrieve", seen)
    out = distractors(CORPUS, FixedRetriever(uneven=False), QUESTIONS)
    assert shown == [[(True, 1)] * 2, [(True, 3)] * 2]
    assert set(out["em"]) == {"0", "2"}


def test_evidence_counts_where_the_gold_passage_was_retrieved(tiny):
    """The second question's gold passage stands third and is not among its two passages."""
    retriever = FixedRetriever()
    out = evidence(retriever, QUESTIONS, k=3)
    assert (out["n"], out["retrieved"]) == (2, 1)
    assert out["heaviest"]["retriever"]["mean"] == 1
    method = FiD(tiny, retriever, verbatim=True)
    answers = [answer.text for answer in method.answer(QUESTIONS, 3)]
    for name, weights in (
        ("attention", method.attention(QUESTIONS, answers, 3)),
        ("first token", method.first_token_scores(QUESTIONS, 3)),
        ("leave one out", method.leave_one_out(QUESTIONS, answers, 3)),
    ):
        assert out["heaviest"][name]["mean"] == float(weights[0].argmax() == 0)
    first = [question.answers[0] for question in QUESTIONS]
    nll = -FiD(tiny, retriever).log_prob(QUESTIONS, first, 3).mean().item()
    assert out["nll"]["fid"]["mean"] == pytest.approx(nll, rel=1e-5)


def test_the_damaged_encoder_is_the_embedded_one_in_what_was_not_drawn_anew():
    whole, one = load_encoder(), damaged()
    assert one.sha256 == damaged().sha256 != whole.sha256
    before, after = whole.model.state_dict(), one.model.state_dict()
    for name, tensor in before.items():
        redrawn = any(f"encoder.layer.{layer}." in name for layer in module.REDRAWN)
        assert torch.equal(tensor, after[name]) == (not redrawn), name
    drawn = after["encoder.layer.5.output.dense.weight"]
    assert drawn.std().item() == pytest.approx(0.02, rel=0.02)


def test_distillation_reports_every_round(tiny, tmp_path):
    dev = QuestionSet("rivers", "dev", list(QUESTIONS))
    recipe = Recipe(rounds=1, questions=2, k=3, batch=2, steps=1)
    out = distillation(tiny, load_encoder(), CORPUS, dev, {"dev": dev}, tmp_path, recipe)
    json.dumps(out)
    assert len(out["rounds"]) == 2
    recall = [row["dev"]["recall"]["5"]["mean"] for row in out["rounds"]]
    assert recall == [1, 1]  # of four passages
    assert out["difference"]["dev"]["difference"] == 0
    index = build_index(CORPUS, tmp_path / "start", load_encoder(), progress=False)
    found = DenseRetriever(index, load_encoder()).retrieve(list(QUESTIONS), 1)
    first = sum(q.gold_passage == f.ids[0] for q, f in zip(QUESTIONS, found, strict=True)) / 2
    assert out["rounds"][0]["dev"]["recall"]["1"]["mean"] == first
