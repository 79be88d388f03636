"""A passage left out, against the method over a retriever that never found it."""

import math

import numpy as np
import pytest
import torch

from ragbook.errors import InputError
from ragbook.methods.fid import FiD
from ragbook.methods.in_context import InContext
from ragbook.methods.knn_lm import KnnLM
from ragbook.methods.leave_one_out import losses, prior_without_each
from ragbook.methods.rag import RagSequence, RagToken
from ragbook.methods.realm import Realm
from ragbook.retrieval import Retrieved
from tests.methods.conftest import QUESTIONS, FixedRetriever

ANSWERS = ["Danube", "the Rhine"]
NAMES = ["in-context", "knn-lm", "realm", "orqa", "rag-sequence", "rag-token", "fid"]


class Without:
    """What another retriever finds, the scores as they were, but for the passage at one place."""

    name, score_scale = "without", FixedRetriever().score_scale

    def __init__(self, place: int) -> None:
        self.place = place

    def retrieve(self, questions, k):
        return [
            Retrieved(
                tuple(id for z, id in enumerate(found.ids) if z != self.place),
                np.delete(found.scores, [self.place] if self.place < len(found.ids) else []),
                tuple(p for z, p in enumerate(found.passages) if z != self.place),
            )
            for found in FixedRetriever().retrieve(questions, k)
        ]


@pytest.fixture(params=NAMES)
def make(request, reader, span_reader, language_model):
    """The method over any retriever."""
    return {
        "in-context": lambda retriever: InContext(reader, retriever),
        "knn-lm": lambda retriever: KnnLM(language_model, retriever, 0.4, 5.0),
        "realm": lambda retriever: Realm(span_reader, retriever),
        "orqa": lambda retriever: Realm(span_reader, retriever, orqa=True),
        "rag-sequence": lambda retriever: RagSequence(reader, retriever),
        "rag-token": lambda retriever: RagToken(reader, retriever),
        "fid": lambda retriever: FiD(reader, retriever),
    }[request.param]


@pytest.mark.parametrize("answers", [ANSWERS, ["and", "and the Danube passes"]])
def test_it_is_what_the_method_loses_that_never_found_the_passage(make, answers):
    method = make(FixedRetriever())
    found = method.leave_one_out(QUESTIONS, answers, k=4)
    assert found.dtype == torch.float32
    assert found.shape == (2, 4)
    whole = method.log_prob(QUESTIONS, answers, k=4)
    for z in range(4):
        without = make(Without(z)).log_prob(QUESTIONS, answers, k=4)
        for b, count in enumerate((4, 3)):
            if z >= count:
                assert found[b, z] == -math.inf  # the second question has three passages
                continue
            a, c = whole[b].item(), without[b].item()
            wanted = 0.0 if a == c == -math.inf else a - c
            assert found[b, z].item() == pytest.approx(wanted, abs=2e-4)


def test_a_passage_that_alone_holds_the_answer_is_worth_infinitely_much(span_reader):
    """The Danube stands in the first passage only, the word "and" in the second too."""
    realm = Realm(span_reader, FixedRetriever(uneven=False))
    alone, shared = realm.leave_one_out(QUESTIONS, ["Danube", "and"], k=2)
    assert alone[0] == math.inf
    assert math.isfinite(alone[1])
    assert shared.isfinite().all()


def test_what_is_impossible_with_and_without_loses_nothing(span_reader):
    realm = Realm(span_reader, FixedRetriever(uneven=False))
    assert realm.leave_one_out(QUESTIONS, ["zebra"] * 2, k=3).tolist() == [[0.0] * 3] * 2


def test_a_single_passage_cannot_be_left_out(make):
    with pytest.raises(InputError, match="question 1 has one passage"):
        make(FixedRetriever()).leave_one_out(QUESTIONS, ANSWERS, k=1)
    assert make(FixedRetriever()).leave_one_out([], [], k=3).shape == (0, 0)


def test_the_prior_of_the_rest():
    prior = torch.tensor([[0.5, 0.3, 0.2], [0.9, 0.1, 0.0]]).log()
    torch.testing.assert_close(
        prior_without_each(prior).exp(),
        torch.tensor(
            [
                [[0, 0.6, 0.4], [5 / 7, 0, 2 / 7], [0.625, 0.375, 0]],
                [[0, 1, 0], [1, 0, 0], [0.9, 0.1, 0]],
            ]
        ),
    )


def test_infinities():
    inf = math.inf
    whole = torch.tensor([-1.0, -inf, -inf])
    without = torch.tensor([[-3.0, -0.5, -inf], [-inf, -inf, -inf], [-inf, -2.0, -inf]])
    prior = torch.tensor([[-1.0, -1.0, -1.0], [-1.0, -1.0, -inf], [-1.0, -1.0, -1.0]])
    assert losses(whole, without, prior).tolist() == [
        [2.0, -0.5, inf],
        [0.0, 0.0, -inf],
        [0.0, -inf, 0.0],
    ]
