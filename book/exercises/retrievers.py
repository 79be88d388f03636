"""Checks of chapter 2's exercises: a search that stops early, what moves a question, fusion."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from . import exercise

Lists = Mapping[str, Mapping[int, float]]
"""Inverted lists: for each word, what it adds to the scores of the passages that contain it."""


@exercise
def best(
    search: Callable[[Lists, Sequence[str]], tuple[int, set[int]]],
) -> None:
    """`search(lists, words)` is the best passage and the passages that were scored."""
    lists: Lists = {
        "deep": {7: 0.5, 3: 0.1, 1: 1.5},
        "river": {9: 2.0, 3: 0.4, 7: 1.8, 8: 1.2},
        "congo": {3: 5.0, 7: 4.5},
        "sea": {8: 9.0},
    }
    first, scored = search(lists, ["deep", "river", "congo"])
    assert first != 8, "sea is in the lists, but it was not asked for"
    assert first == 7, (
        "passage 7 has 4.5 + 1.8 + 0.5 = 6.8, and 3 only 5.5: no new passage may "
        f"be taken in, but those you have still rise; you returned {first}"
    )
    assert set(scored) == {3, 7}, (
        "after congo the best score is 5.0, and river and deep add at most 2.0 + "
        f"1.5 to a new passage; you scored {sorted(scored)}"
    )
    _, scored = search(
        {"a": {1: 2.0}, "b": {2: 1.5}, "c": {2: 1.4}}, ["a", "b", "c"]
    )
    assert set(scored) == {1, 2}, (
        "each of the words b and c adds less than 2.0, but together they may add "
        f"2.9: passage 2 must be taken in; you scored {sorted(scored)}"
    )
    first, _ = search(lists, ["congo", "atlantis"])
    assert first == 3, "a word that no passage contains has no list"
    drawn = random.Random(0)
    for _ in range(50):
        words = [f"w{n}" for n in range(5)]
        some: Lists = {
            word: {
                z: drawn.random() * (n + 1)
                for z in drawn.sample(range(30), drawn.randint(1, 12))
            }
            for n, word in enumerate(words)
        }
        sums = {
            z: sum(one.get(z, 0.0) for one in some.values())
            for z in set().union(*some.values())
        }
        first, scored = search(some, words)
        assert math.isclose(sums[first], max(sums.values()), abs_tol=1e-9), (
            "on random lists another passage has a higher score than yours"
        )
        assert set(scored) == _taken_in(some), (
            "on random lists you scored other passages than one has to; compare the "
            "sum of the remaining lists' largest entries with the best score so far"
        )


def _taken_in(lists: Lists) -> set[int]:
    """The passages that a search for all words of `lists` has to score."""
    order = sorted(lists.values(), key=lambda own: -max(own.values()))
    total: dict[int, float] = {}
    for at, own in enumerate(order):
        remaining = sum(max(later.values()) for later in order[at:])
        is_open = remaining > max(total.values(), default=0.0)
        for z, adds in own.items():
            if is_open or z in total:
                total[z] = total.get(z, 0.0) + adds
    return set(total)


@exercise
def pull(
    of_question: Callable[[np.ndarray, np.ndarray, int, float], np.ndarray],
) -> None:
    """`of_question(x, passages, g, scale)` is the loss's gradient [d] by the question's vector."""
    import torch

    from ragbook.training.contrastive import cross_entropy

    drawn = np.random.default_rng(0)
    for scale, g in ((1.0, 0), (20.0, 2), (500.0, 1)):
        passages = drawn.normal(size=(4, 3))
        x = torch.tensor(drawn.normal(size=3), requires_grad=True)
        scores = scale * (torch.from_numpy(passages) @ x)[None]
        negatives = torch.ones(1, 4, dtype=torch.bool)
        negatives[0, g] = False
        cross_entropy(scores, torch.tensor([g]), negatives).backward()
        assert x.grad is not None
        expected = x.grad.numpy()
        with np.errstate(all="ignore"):
            found = np.asarray(
                of_question(x.detach().numpy(), passages, g, scale)
            )
        assert found.shape == (3,), (
            "the gradient has an entry for each dimension of the question's vector: "
            f"[3], and not {list(found.shape)}"
        )
        assert np.isfinite(found).all(), (
            f"with the scale {scale:g} a score's exponential is infinite in floating "
            "point; subtract the largest score first"
        )
        assert not np.allclose(found, -expected, atol=1e-6), (
            "the sign: descent moves the question against the gradient, and it must "
            "come nearer to the right passage"
        )
        assert scale == 1 or not np.allclose(scale * found, expected), (
            "the scale is a factor of the scores, so it is one of the gradient too"
        )
        assert np.allclose(found, expected, rtol=1e-5, atol=1e-6), (
            f"for g = {g} and the scale {scale:g} autograd finds "
            f"{expected.round(3).tolist()}, and you {found.round(3).tolist()}; each "
            "passage's vector counts with the derivative by its score"
        )


@exercise
def fusion(
    fuse: Callable[[Sequence[Sequence[str]]], Mapping[str, float]],
) -> None:
    """`fuse(rankings)` gives each id its sum of reciprocal ranks."""
    found = fuse([["a", "b", "c"], ["c", "b", "d"]])
    assert set(found) == set("abcd"), (
        "every passage that some ranking contains has a score; yours are "
        f"{sorted(found)}"
    )
    assert math.isclose(found["a"], 1 / 61, abs_tol=1e-7), (
        "a is first in one ranking and missing in the other, so its score is "
        f"1 / (60 + 1) = {1 / 61:.5f}; you returned {found['a']:.5f}"
    )
    assert math.isclose(found["b"], 2 / 62, abs_tol=1e-7), (
        "b is second in both rankings: 1 / 62 + 1 / 62"
    )
    assert max(found, key=lambda name: found[name]) == "c", (
        "c is third in one ranking and first in the other: 1 / 63 + 1 / 61, a "
        "little more than b"
    )
