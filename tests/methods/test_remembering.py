"""What a method keeps of its last questions: nothing differs, but for how often it is made."""

from dataclasses import replace

import pytest

from ragbook.methods.fid import FiD
from ragbook.methods.in_context import InContext
from ragbook.methods.knn_lm import KnnLM
from ragbook.methods.rag import RagSequence, RagToken
from ragbook.methods.remembering import remembering
from tests.methods.conftest import QUESTIONS, FixedRetriever

ANSWERS = ["Danube", "the Rhine"]


class Counted(FixedRetriever):
    """Counts how often it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def retrieve(self, questions, k):
        self.calls += 1
        return super().retrieve(questions, k)


@pytest.fixture(params=["in-context", "knn-lm", "rag-sequence", "rag-token", "fid"])
def method(request, reader, language_model):
    make = {
        "in-context": lambda: InContext(reader, Counted()),
        "knn-lm": lambda: KnnLM(language_model, Counted(), 0.4, 5.0),
        "rag-sequence": lambda: RagSequence(reader, Counted()),
        "rag-token": lambda: RagToken(reader, Counted()),
        "fid": lambda: FiD(reader, Counted()),
    }
    return make[request.param]()


def everything(method, questions=QUESTIONS):
    """What a comparison asks of a method, without the seconds."""
    answers = [replace(each, seconds=0.0) for each in method.answer(questions, 3)]
    log_probs = method.log_prob(questions, ANSWERS, 3)
    falls = method.leave_one_out(questions, [each.text for each in answers], 3)
    return answers, log_probs.numpy().tobytes(), falls.numpy().tobytes()


def test_what_is_kept_changes_no_bit_and_is_made_once(method):
    expected = everything(method)
    assert method.retriever.calls == 3
    with remembering([method]):
        assert everything(method) == expected
        assert method.retriever.calls == 4
        assert everything(method, QUESTIONS[::-1]) != expected  # other questions are read
        assert everything(method) == expected
        assert method.retriever.calls == 6
        method.answer(QUESTIONS, 2)  # another k
        assert method.retriever.calls == 7
    assert everything(method) == expected  # nothing is kept any more
    assert method.retriever.calls == 10


def test_the_cross_attention_of_what_was_read_is_computed_once(reader, monkeypatch):
    method, computed = RagSequence(reader, FixedRetriever()), []
    forward = reader.forward

    def counted(states, mask, inputs, **kwargs):
        cache = kwargs["past_key_values"].cross_attention_cache
        if not cache.layers or not cache.get_seq_length(0):
            computed.append(len(states))
        return forward(states, mask, inputs, **kwargs)

    monkeypatch.setattr(reader, "forward", counted)
    everything(method)
    apart, computed[:] = len(computed), []
    with remembering([method]):
        everything(method)
    assert (apart, len(computed)) == (3, 1)


def test_one_result_is_kept_at_a_time(reader):
    counted = Counted()
    first, second = RagSequence(reader, counted), FiD(reader, Counted())
    with remembering([first, second, object()]):
        first.answer(QUESTIONS, 3)
        second.answer(QUESTIONS, 3)
        assert first._last is second._last
        assert first._last is not None
        assert len(first._last) == 1
        first.log_prob(QUESTIONS, ANSWERS, 3)
        assert counted.calls == 2
    assert first._last is None


def test_methods_with_one_reader_and_one_retriever_read_once(reader, monkeypatch):
    """No bit differs, and each counts the time that the first of them took for all."""
    counted, read = Counted(), []
    three = [kind(reader, counted) for kind in (RagSequence, RagToken, FiD)]
    expected = [everything(method) for method in three]
    plainly = reader.read
    monkeypatch.setattr(reader, "read", lambda *given: read.append(given) or plainly(*given))
    counted.calls = 0
    with remembering(three):
        found = [everything(three[0])]
        assert three[0]._last is not None
        (shared,) = three[0]._last
        taken = shared.seconds, shared.value[1].seconds
        found += [everything(method) for method in three[1:]]
    assert found == expected
    assert (counted.calls, len(read)) == (1, 1)
    assert min(taken) > 0
    first, second, third = (method._saved for method in three)
    assert first == 0
    assert second == pytest.approx(sum(taken))
    assert third == pytest.approx(taken[0])  # its own decoder's keys and values are of its one row


def test_another_reader_or_retriever_reads_anew(reader):
    one, other = Counted(), Counted()
    methods = [RagSequence(reader, one), RagToken(reader, other)]
    with remembering(methods):
        for method in methods:
            method.answer(QUESTIONS, 3)
    assert (one.calls, other.calls) == (1, 1)
    assert [method._saved for method in methods] == [0, 0]
