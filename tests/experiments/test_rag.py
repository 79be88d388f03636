"""What is measured of RAG, on tiny random models: figures that can be counted from its parts."""

import pytest
import torch
from experiments import rag as module
from experiments.rag import decoding, passages_read

from ragbook.corpus import Corpus
from ragbook.evaluation import exact_match
from ragbook.index import build_index
from ragbook.methods.rag import RagSequence, RagToken
from ragbook.models import Encoder, SeqReader
from ragbook.models.embedded import minilm_tokenizer
from ragbook.retrieval import DenseRetriever
from tests.methods.conftest import PASSAGES, QUESTIONS, FixedRetriever, seq_model, tower


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    reader = SeqReader(seq_model("bart"), minilm_tokenizer(), "bart")
    monkeypatch.setattr(module, "load_reader", lambda method: reader)
    monkeypatch.setattr(module, "KS", (1, 3))
    return reader


def em(method, k):
    answers = method.answer(QUESTIONS, k)
    pairs = zip(answers, QUESTIONS, strict=True)
    return sum(exact_match(answer.text, question.answers) for answer, question in pairs) / 2


def test_each_model_is_measured_with_each_number_of_passages(tiny):
    retriever = FixedRetriever(uneven=False)
    out = passages_read(retriever, QUESTIONS)
    assert out["n"] == 2
    assert [out["recall"][k]["mean"] for k in ("1", "3")] == [0.5, 1]
    for kind in (RagSequence, RagToken):
        method = kind(tiny, retriever, verbatim=True)
        for k in (1, 3):
            assert out[kind.name][str(k)]["mean"] == em(method, k)


def test_decoding_compares_two_ways_and_two_towers(tiny, monkeypatch, tmp_path):
    torch.manual_seed(5)
    encoders = [Encoder(tower(), minilm_tokenizer(), "tiny", "same", 10.0) for _ in range(2)]
    frozen, trained = encoders
    index = build_index(Corpus("four", PASSAGES), tmp_path / "index", frozen, progress=False)
    torch.manual_seed(6)
    generator = SeqReader(seq_model("bart"), minilm_tokenizer(), "bart")
    monkeypatch.setattr(module, "load_joint", lambda: (generator, trained))
    retriever = DenseRetriever(index, frozen)
    out = decoding(retriever, QUESTIONS, k=3)

    ways = [RagSequence(tiny, retriever, verbatim=True, thorough=one) for one in (True, False)]
    texts = [[answer.text for answer in way.answer(QUESTIONS, 3)] for way in ways]
    same = sum(a == b for a, b in zip(*texts, strict=True)) / 2
    assert out["decoding"]["agreement"]["mean"] == same
    for name, way in zip(("thorough", "fast"), ways, strict=True):
        assert out["decoding"][name]["em"]["mean"] == em(way, 3)
    joint = out["joint"]
    assert joint["frozen"]["em"] == out["decoding"]["thorough"]["em"]
    method = RagSequence(generator, DenseRetriever(index, trained), verbatim=True)
    assert joint["trained"]["em"]["mean"] == em(method, 3)
    for what, at in (("em", lambda one: one["em"]), ("recall", lambda one: one["recall"]["3"])):
        gap = at(joint["trained"])["mean"] - at(joint["frozen"])["mean"]
        assert joint[f"{what}_difference"]["difference"] == pytest.approx(gap)
