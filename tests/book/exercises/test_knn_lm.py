"""The checks of chapter 3's exercises pass what is right and refuse plausible mistakes."""

import numpy as np
import pytest
from exercises import knn_lm as check


def pairs(states, tokens):
    return states[:-1], tokens[1:]


def with_the_token_itself(states, tokens):
    return states[:-1], tokens[:-1]


def all_states(states, tokens):
    return states, tokens


def one_state_late(states, tokens):
    return states[1:], tokens[1:]


def vote(keys, values, query, vocab_size, temperature, power=2, stable=True, add=True):
    distances = (np.abs(query - keys) ** 2).sum(1) ** (power / 2)
    shift = distances.min() if stable else 0
    weights = np.exp(-(distances - shift) / temperature)
    weights = weights / weights.sum()
    p = np.zeros(vocab_size)
    if add:
        np.add.at(p, values, weights)
    else:
        p[values] = weights
        p = p / p.sum()
    return p


def of_plain_distances(*given):
    return vote(*given, power=1)


def underflowing(*given):
    return vote(*given, stable=False)


def without_adding(*given):
    return vote(*given, add=False)


def without_temperature(keys, values, query, vocab_size, temperature):
    return vote(keys, values, query, vocab_size, 1.0)


def not_normalized(keys, values, query, vocab_size, temperature):
    p = np.zeros(vocab_size)
    np.add.at(p, values, np.exp(-((query - keys) ** 2).sum(1) / temperature))
    return p


def mix(lm_log_probs, knn_log_probs, lam):
    return np.logaddexp(np.log1p(-lam) + lm_log_probs, np.log(lam) + knn_log_probs)


def weight(lm, knn, lams, mixed=mix, pick=max):
    return pick(lams, key=lambda lam: np.nan_to_num(mixed(lm, knn, lam).mean(), nan=-np.inf))


def of_logarithms(lm, knn, lams):
    return weight(lm, knn, lams, lambda lm, knn, lam: (1 - lam) * lm + lam * knn)


def weights_exchanged(lm, knn, lams):
    return weight(lm, knn, lams, lambda lm, knn, lam: mix(lm, knn, 1 - lam))


def mean_of_probabilities(lm, knn, lams):
    return weight(lm, knn, lams, lambda lm, knn, lam: np.exp(mix(lm, knn, lam)))


def of_probabilities(lm, knn, lams):
    return weight(
        lm, knn, lams, lambda lm, knn, lam: np.log((1 - lam) * np.exp(lm) + lam * np.exp(knn))
    )


def highest_perplexity(lm, knn, lams):
    return weight(lm, knn, lams, pick=min)


def its_place(lm, knn, lams):
    return lams.index(weight(lm, knn, lams))


def unwritten(*_):
    raise NotImplementedError


@pytest.mark.parametrize(
    ("verdict", "answer"), [(check.pairs, pairs), (check.vote, vote), (check.weight, weight)]
)
def test_what_is_right_passes(verdict, answer, capsys):
    verdict(answer)
    assert capsys.readouterr().out == "Right.\n"


@pytest.mark.parametrize(
    ("verdict", "answer"),
    [
        (check.pairs, with_the_token_itself),
        (check.pairs, all_states),
        (check.pairs, one_state_late),
        (check.vote, of_plain_distances),
        (check.vote, underflowing),
        (check.vote, without_adding),
        (check.vote, without_temperature),
        (check.vote, not_normalized),
        (check.weight, of_logarithms),
        (check.weight, weights_exchanged),
        (check.weight, mean_of_probabilities),
        (check.weight, of_probabilities),
        (check.weight, highest_perplexity),
        (check.weight, its_place),
    ],
)
def test_a_mistake_is_refused_with_a_hint(verdict, answer, capsys):
    verdict(answer)
    assert capsys.readouterr().out.startswith("Not right yet: ")


@pytest.mark.parametrize("verdict", [check.pairs, check.vote, check.weight])
def test_the_unwritten_one_is_not_right(verdict, capsys):
    verdict(unwritten)
    assert capsys.readouterr().out == "Not written yet.\n"
