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
    """The one reader of both models, which search with the retriever in `towers`, if there is one,
    and with the given one otherwise."""
    reader = SeqReader(seq_model("bart"), minilm_tokenizer(), "bart")
    towers = []
    kinds = {"rag-sequence": RagSequence, "rag-token": RagToken}

    def load(names, retriever, verbatim):
        assert verbatim
        return [kinds[n](reader, towers[0] if towers else retriever, verbatim=True) for n in names]

    monkeypatch.setattr(module, "load", load)
    monkeypatch.setattr(module, "KS", (1, 3))
    return reader, towers


def em(method, k):
    answers = method.answer(QUESTIONS, k)
    pairs = zip(answers, QUESTIONS, strict=True)
    return sum(exact_match(answer.text, question.answers) for answer, question in pairs) / 2


def test_each_model_is_measured_with_each_number_of_passages(tiny):
    reader, _ = tiny
    retriever = FixedRetriever(uneven=False)
    out = passages_read(retriever, QUESTIONS)
    assert out["n"] == 2
    assert [out["recall"][k]["mean"] for k in ("1", "3")] == [0.5, 1]
    for kind in (RagSequence, RagToken):
        method = kind(reader, retriever, verbatim=True)
        for k in (1, 3):
            assert out[kind.name][str(k)]["mean"] == em(method, k)


def test_decoding_compares_two_ways_and_two_towers(tiny, tmp_path):
    reader, towers = tiny
    retrievers = []
    torch.manual_seed(5)
    for name in ("frozen", "trained"):
        encoder = Encoder(tower(), minilm_tokenizer(), "tiny", name, 10.0)
        index = build_index(Corpus("four", PASSAGES), tmp_path / name, encoder, progress=False)
        retrievers.append(DenseRetriever(index, encoder))
    frozen, trained = retrievers
    towers.append(trained)
    out = decoding(frozen, QUESTIONS, k=3)

    ways = [RagSequence(reader, trained, verbatim=True, thorough=one) for one in (True, False)]
    texts = [[answer.text for answer in way.answer(QUESTIONS, 3)] for way in ways]
    same = sum(a == b for a, b in zip(*texts, strict=True)) / 2
    assert out["decoding"]["agreement"]["mean"] == same
    for name, way in zip(("thorough", "fast"), ways, strict=True):
        assert out["decoding"][name]["em"]["mean"] == em(way, 3)
    joint = out["joint"]
    assert joint["trained"]["em"] == out["decoding"]["thorough"]["em"]
    assert joint["frozen"]["em"]["mean"] == em(RagSequence(reader, frozen, verbatim=True), 3)
    for name, retriever in (("frozen", frozen), ("trained", trained)):
        found = retriever.retrieve(QUESTIONS, 1)
        first = [q.gold_passage == f.ids[0] for q, f in zip(QUESTIONS, found, strict=True)]
        assert joint[name]["recall"]["1"]["mean"] == sum(first) / 2
    for what, at in (("em", lambda one: one["em"]), ("recall", lambda one: one["recall"]["3"])):
        gap = at(joint["trained"])["mean"] - at(joint["frozen"])["mean"]
        assert joint[f"{what}_difference"]["difference"] == pytest.approx(gap)
