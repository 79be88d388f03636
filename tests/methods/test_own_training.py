"""Which weights a method uses: the shared reader's and the given retriever's, or those that its own
training changed."""

from typing import Any

import pytest
import torch

from ragbook.corpus import Question
from ragbook.index import build_index
from ragbook.methods import load
from ragbook.models import load_encoder, load_question_tower, load_reader, load_span_reader
from ragbook.retrieval import BM25Retriever, DenseRetriever
from tests.fakes import animals

READING = ("in-context", "realm", "rag-sequence", "rag-token", "fid")
SEARCHING = ("realm", "rag-sequence", "rag-token")
QUESTIONS = [Question("Where does the otter live?", ("Tagus",))]


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    out = tmp_path_factory.mktemp("own") / "index"
    encoder = load_encoder()
    return DenseRetriever(build_index(animals(8), out, encoder, progress=False), encoder)


def by_name(retriever, **how) -> dict[str, Any]:
    return {method.name: method for method in load(READING, retriever, True, **how)}


def encoder_of(method):
    return method.reader.pairs.encoder


def test_a_method_reads_and_searches_with_what_it_trained(dense):
    methods, shared = by_name(dense), load_reader()
    assert methods["in-context"].reader is shared
    assert methods["in-context"].retriever is methods["fid"].retriever is dense
    for name in READING[1:]:
        own = encoder_of(methods[name]).state_dict()
        same = shared.model.get_encoder().state_dict()
        moved = {key.split(".")[2] for key in own if not torch.equal(own[key], same[key])}
        assert moved == {"4", "5"}, name
    decoders = [methods[name].reader.model.decoder for name in READING[2:]]
    weights = [d.bert.encoder.layer[0].crossattention.self.query.weight for d in decoders]
    weights.append(shared.model.decoder.bert.encoder.layer[0].crossattention.self.query.weight)
    assert not any(torch.equal(a, b) for i, a in enumerate(weights) for b in weights[:i])
    towers = [methods[name].retriever.encoder.encode_queries(["a lynx"]) for name in SEARCHING]
    towers.append(dense.encoder.encode_queries(["a lynx"]))
    assert not any(abs(a - b).max() < 1e-6 for i, a in enumerate(towers) for b in towers[:i])
    for name in SEARCHING:
        assert methods[name].retriever.index is dense.index


def test_with_the_same_weights_methods_differ_in_nothing_else(dense):
    methods, shared = by_name(dense, shared=True), load_reader()
    assert all(method.retriever is dense for method in methods.values())
    assert all(methods[n].reader is shared for n in READING if n != "realm")
    assert methods["realm"].reader.scorer is load_span_reader().scorer
    assert encoder_of(methods["realm"]) is encoder_of(methods["fid"])
    # n = 1: one model, whatever combines the passages.
    log_probs = [
        methods[name].log_prob(QUESTIONS, ["Tagus"], k=1).item()
        for name in ("rag-sequence", "rag-token", "fid")
    ]
    assert log_probs == pytest.approx([log_probs[0]] * 3, abs=1e-5)


def test_retrieval_that_was_not_trained_with_a_method_stays_as_it_is(dense):
    """BM25; and a question tower that somebody chose."""
    bm25 = BM25Retriever(animals(8))
    assert all(method.retriever is bm25 for method in by_name(bm25).values())
    chosen = load_question_tower("bundled", "realm")
    assert chosen is not None
    other = DenseRetriever(dense.index, chosen.changed(query_sha256="another"))
    assert all(method.retriever is other for method in by_name(other).values())
