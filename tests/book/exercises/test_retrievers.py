"""The checks of chapter 2's exercises pass what is right and refuse plausible mistakes."""

import numpy as np
import pytest
from exercises import retrievers as check


def search(lists, words, *, by=lambda own: -max(own.values()), bound=sum, stops=False, prunes=True):
    """The right answer, and by its keywords plausible wrong ones."""
    order = sorted((lists[word] for word in words if word in lists), key=by)
    total = {}
    for at, own in enumerate(order):
        at_most = bound([max(later.values()) for later in order[at:]])
        takes_new = not prunes or at_most > max(total.values(), default=0)
        if stops and not takes_new:
            break
        for z, adds in own.items():
            if takes_new or z in total:
                total[z] = total.get(z, 0) + adds
    return max(total, key=lambda z: total[z]), set(total)


def every_passage(lists, words):
    return search(lists, words, prunes=False)


def stops_altogether(lists, words):
    return search(lists, words, stops=True)


def in_the_questions_order(lists, words):
    return search(lists, words, by=lambda own: 0)


def one_list_at_a_time(lists, words):
    return search(lists, words, bound=max)


def all_words_of_the_index(lists, words):
    return search(lists, lists)


def pull(x, passages, g, scale):
    scores = scale * passages @ x
    weights = np.exp(scores - scores.max())
    return scale * (weights / weights.sum() @ passages - passages[g])


def towards(*given):
    return -pull(*given)


def without_the_scale(x, passages, g, scale):
    return pull(x, passages, g, scale) / scale


def right_passage_only(x, passages, g, scale):
    return -scale * passages[g]


def unscaled_softmax(x, passages, g, scale):
    return scale * pull(x, passages, g, 1.0)


def by_scores(x, passages, g, scale):
    out = np.exp(scale * passages @ x)
    out /= out.sum()
    out[g] -= 1
    return out


def overflowing(x, passages, g, scale):
    weights = np.exp(scale * passages @ x)
    return scale * (weights / weights.sum() @ passages - passages[g])


def fusion(rankings, start=1, constant=60):
    fused = {}
    for ranking in rankings:
        for rank, name in enumerate(ranking, start):
            fused[name] = fused.get(name, 0) + 1 / (constant + rank)
    return fused


def from_zero(rankings):
    return fusion(rankings, start=0)


def without_the_constant(rankings):
    return fusion(rankings, constant=0)


def last_ranking_only(rankings):
    return {name: 1 / (60 + rank) for ranking in rankings for rank, name in enumerate(ranking, 1)}


def in_all_rankings(rankings):
    both = set.intersection(*map(set, rankings))
    return {name: score for name, score in fusion(rankings).items() if name in both}


def unwritten(*_):
    raise NotImplementedError


@pytest.mark.parametrize(
    ("verdict", "answer"),
    [(check.best, search), (check.pull, pull), (check.fusion, fusion)],
)
def test_what_is_right_passes(verdict, answer, capsys):
    verdict(answer)
    assert capsys.readouterr().out == "Right.\n"


@pytest.mark.parametrize(
    ("verdict", "answer"),
    [
        (check.best, every_passage),
        (check.best, stops_altogether),
        (check.best, in_the_questions_order),
        (check.best, one_list_at_a_time),
        (check.best, all_words_of_the_index),
        (check.pull, towards),
        (check.pull, without_the_scale),
        (check.pull, right_passage_only),
        (check.pull, unscaled_softmax),
        (check.pull, by_scores),
        (check.pull, overflowing),
        (check.fusion, from_zero),
        (check.fusion, without_the_constant),
        (check.fusion, last_ranking_only),
        (check.fusion, in_all_rankings),
    ],
)
def test_a_mistake_is_refused_with_a_hint(verdict, answer, capsys):
    verdict(answer)
    assert capsys.readouterr().out.startswith("Not right yet: ")


@pytest.mark.parametrize("verdict", [check.best, check.pull, check.fusion])
def test_the_unwritten_one_is_not_right(verdict, capsys):
    verdict(unwritten)
    assert capsys.readouterr().out == "Not written yet.\n"


def test_three_similarities_choose_three_passages():
    """The solution's example."""
    question = np.array([1, 0])
    passages = np.array([[3, 4], [0.1, 0], [0.9, 0.1]])
    dot = passages @ question
    cosine = dot / np.linalg.norm(passages, axis=1)
    nearness = -((passages - question) ** 2).sum(axis=1)
    assert [each.argmax() for each in (dot, cosine, nearness)] == [0, 1, 2]
    np.testing.assert_allclose(cosine, [0.6, 1, 0.99], atol=5e-3)
    np.testing.assert_allclose(nearness, [-20, -0.81, -0.02])


def test_a_double_scale_leaves_the_easy_question_without_a_gradient():
    """The derivatives by the right passage's scaled score, before and after, in the solution."""
    scores = np.array([[4.0, 1.0, 0.0], [0.5, 2.0, 1.8]])
    for scale, wanted in ((1, [-0.06, -0.51]), (2, [-0.003, -0.42])):
        weights = np.exp(scale * scores)
        weights /= weights.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(weights[[0, 1], [0, 1]] - 1, wanted, rtol=0.07)
