"""Methods share models, tokenizers and what was read: threads must not see each other's work."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
import torch

from ragbook import methods
from ragbook.corpus import Corpus, miniwiki
from ragbook.index import build_index
from ragbook.models import (
    load_adapted_language_model,
    load_encoder,
    load_reader,
    load_span_reader,
    loading,
)
from ragbook.retrieval import DenseRetriever

QUESTIONS = list(miniwiki.questions("dev"))[:6]


@pytest.fixture(scope="module")
def retriever(tmp_path_factory):
    encoder = load_encoder()
    gold = {question.gold_passage for question in QUESTIONS}
    corpus = Corpus("some", [p for p in miniwiki.corpus() if p.id in gold])
    index = build_index(corpus, tmp_path_factory.mktemp("t") / "index", encoder, progress=False)
    return DenseRetriever(index, encoder)


def test_threads_get_what_one_after_the_other_would(retriever):
    """Every thread asks its own questions of every method, all at once, and scores them."""
    every = methods.load(methods.NAMES, retriever, verbatim=True)
    shares = [QUESTIONS[at : at + 1] for at in range(6)]
    together = Barrier(len(shares))

    def ask(share):
        said, scores = [], []
        for method in every:
            said += [(a.text, a.evidence) for a in method.answer(share, 3)]
            scores.append(method.log_prob(share, [q.answers[0] for q in share], 3))
        return said, torch.cat(scores)

    def ask_at_once(share):
        together.wait()
        return ask(share)

    wanted = [ask(share) for share in shares]
    with ThreadPoolExecutor(len(shares)) as pool:
        found = list(pool.map(ask_at_once, shares))
    for (said, scores), (wanted_said, wanted_scores) in zip(found, wanted, strict=True):
        assert [text for text, _ in said] == [text for text, _ in wanted_said]
        assert [[e.passage_id for e in one] for _, one in said] == [
            [e.passage_id for e in one] for _, one in wanted_said
        ]
        torch.testing.assert_close(scores, wanted_scores, rtol=1e-5, atol=1e-5)


def test_a_model_is_loaded_once_however_many_ask_for_it():
    loading._span_reader.__wrapped__.cache_clear()
    together = Barrier(4)

    def load(_):
        together.wait()
        return load_span_reader(), load_reader()

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(load, range(4)))
    assert len({id(span) for span, _ in found}) == len({id(seq) for _, seq in found}) == 1


@pytest.mark.parametrize("name", methods.NAMES)
def test_no_question_has_no_log_probability(retriever, name):
    (method,) = methods.load([name], retriever)
    assert method.name == name
    found = method.log_prob([], [])
    assert found.dtype == torch.float32
    assert found.shape == (0,)
    assert method.answer([]) == []


@pytest.mark.parametrize("verbatim", [True, False])
def test_every_method_that_writes_freely_can_be_held_to_the_passages(retriever, verbatim):
    found = methods.load(methods.NAMES, retriever, verbatim)
    assert [method.name for method in found] == list(methods.NAMES)
    held = {method.name: getattr(method, "verbatim", None) for method in found}
    writing = dict.fromkeys(("in-context", "knn-lm", "rag-sequence", "rag-token", "fid"), verbatim)
    assert held == writing | {"closed-book": None, "realm": None}


def test_every_method_reads_with_its_own_weights(retriever):
    """Those that its own objective trained; what is loaded is kept, so that one is the other."""
    found: dict[str, Any] = {one.name: one for one in methods.load(methods.NAMES, retriever)}
    assert found["closed-book"].reader is found["in-context"].reader is load_reader("bundled")
    assert found["knn-lm"].lm is load_adapted_language_model()
    assert found["realm"].reader is load_span_reader("bundled", "realm")
    own = [load_reader("bundled", name) for name in ("rag-sequence", "rag-token", "fid")]
    assert [found[name].reader for name in ("rag-sequence", "rag-token", "fid")] == own
    assert len({id(reader) for reader in [*own, load_reader("bundled")]}) == 4
