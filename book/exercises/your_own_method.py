"""The exercises of chapter 10: a method with the whole interface, and a likelihood that sums to 1."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ragbook.corpus import Passage, Question
from ragbook.retrieval import Retrieved

from . import exercise

PASSAGES = (
    Passage("a", "Elbe", "The Elbe passes Dresden."),
    Passage("b", "Oder", "The Oder rises in Moravia."),
    Passage("c", "Elbe", "The Elbe reaches the sea."),
)


class Three:
    """A retriever that always finds the same three passages, with prior 3/10, 5/10 and 2/10."""

    name = "three"
    score_scale = 2.0

    def retrieve(
        self, questions: Sequence[Question], k: int
    ) -> list[Retrieved]:
        scores = (
            np.log(np.array([3, 5, 2], dtype=np.float32)) / self.score_scale
        )
        found = Retrieved(
            tuple(p.id for p in PASSAGES[:k]), scores[:k], PASSAGES[:k]
        )
        return [found for _ in questions]


@exercise
def titles(method: Callable[[Three], Any]) -> None:
    """Has the whole interface: 1/2 for either title of three passages, 3/8 for one of the first two."""
    retriever = Three()
    made = method(retriever)
    assert made.retriever is retriever, (
        "`retriever` is the one that it was given"
    )
    assert isinstance(made.name, str), "`name` is a text"
    assert made.parameters == 0, "it has no weights: `parameters` is 0"
    questions = [
        Question(text, ()) for text in ("Which river?", "Which other?")
    ]
    found = made.log_prob(questions, ["Oder", "Rhine"], 3).tolist()
    assert math.isclose(math.exp(found[0]), 0.5, rel_tol=1e-4), (
        "p(Oder | x) is the prior of its passage, 5/10: a softmax of the scores times `score_scale`"
    )
    assert found[1] == -math.inf, (
        "no passage has the title Rhine: log 0 is -inf"
    )
    (elbe,) = made.log_prob(questions[:1], ["Elbe"], 3).exp().tolist()
    assert math.isclose(elbe, 0.5, rel_tol=1e-4), (
        "two passages have the title Elbe: 3/10 and 2/10 are summed"
    )
    given = made.answer(questions, 2)
    assert [a.question for a in given] == [q.text for q in questions], (
        "one `Answer` for each question, with the question's text"
    )
    assert given[0].text == "Oder", (
        "of the first two passages, with priors 3/8 and 5/8, the answer is Oder"
    )
    assert math.isclose(math.exp(given[0].log_prob), 5 / 8, rel_tol=1e-4), (
        "`log_prob` of an answer is what `log_prob` says of its text, here log 5/8"
    )
    weights = {e.passage_id: e.weight for e in given[0].evidence}
    assert math.isclose(sum(weights.values()), 1, rel_tol=1e-4), (
        "the weights of the evidence sum to 1: it is the posterior and not the joint"
    )
    assert weights.get("a", 0) == 0, (
        "a passage with another title has no part in the answer"
    )


@exercise
def weighted(
    answer: Callable[
        [Mapping[str, int], Mapping[str, float]], Mapping[str, float]
    ],
) -> None:
    """Divides weighted counts by their own sum."""
    counts = {"1945": 1, "Dresden": 2, "Hamburg": 1}
    plain = answer(counts, {})
    assert math.isclose(plain["Dresden"], 1 / 2), (
        "without factors: Dresden is 2 of 4"
    )
    found = answer(counts, {"1945": 5})
    assert math.isclose(sum(found.values()), 1), (
        "p(y | x, z) must sum to 1: divide by the sum of the weighted counts"
    )
    assert math.isclose(found["1945"], 5 / 8), (
        "1945 has the weight 5 of 5 + 2 + 1"
    )
