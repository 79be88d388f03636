# %% [markdown]
# # Side by side: solutions
#
# Solutions of the exercises of chapter 7 that are code.

# %%
import gzip
import json
from collections import Counter

import numpy as np
from exercises import side_by_side as check
from experiments.papers import FOUR
from experiments.sentences import compared

from ragbook.evaluation import breakdown
from ragbook.evaluation.metrics import exact_match, normalize_answer
from ragbook.evaluation.statistics import paired_test

with gzip.open(
    "../results/predictions.jsonl.gz", "rt", encoding="utf-8"
) as file:
    predictions = [json.loads(line) for line in file]
right = breakdown.right(predictions)

# %% [markdown]
# ## Kappa
#
# The share of agreement less what chance would give, divided by what chance leaves.


# %%
def my_kappa(a, b):
    a, b = np.array(a), np.array(b)
    observed = (a == b).mean()
    chance = a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean())
    return (observed - chance) / (1 - chance)


check.kappa(my_kappa)
for one, other in (("rag-sequence", "fid"), ("closed-book", "fid")):
    print(one, other, round(my_kappa(right[one], right[other]), 2))

# %% [markdown]
# ## Holm's correction
#
# `order` has the places of the p-values by size. A running maximum keeps each adjusted value at least as large as the
# one before.


# %%
def my_holm(p_values):
    p = np.array(p_values)
    order = np.argsort(p)
    factors = len(p) - np.arange(len(p))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * p[order]), 1)
    return adjusted


check.holm(my_holm)

# %% [markdown]
# ## Calibration error
#
# A group's size times its distance is the absolute value of a sum, so no mean has to be taken. Raising the
# probabilities to the power $1/\tau$ changes the error and not the order of the answers.


# %%
def my_error(probability, right, groups):
    order = np.argsort(probability, kind="stable")
    parts = np.array_split((probability - right)[order], groups)
    return sum(abs(part.sum()) for part in parts) / len(probability)


check.calibration_error(my_error)
p = breakdown.probabilities(predictions, "realm")
for temperature in (1, 1.5, 2, 3):
    error = my_error(p ** (1 / temperature), right["realm"], 10)
    print(f"τ = {temperature}: error {error:.3f}")

# %% [markdown]
# ## A vote
#
# `Counter` keeps the order in which answers came, and so does `max` among equals.


# %%
def my_vote(texts):
    given = [normalize_answer(text) for text in texts]
    votes = Counter(given)
    return texts[given.index(max(votes, key=votes.__getitem__))]


check.vote(my_vote)
voted = [
    exact_match(
        my_vote([line["methods"][name]["text"] for name in FOUR]),
        line["answers"],
    )
    for line in predictions
]
best = max(FOUR, key=lambda name: right[name].mean())
test = paired_test(voted, right[best])
print(
    compared(
        {"difference": test.difference, "ci95": test.ci95}, "the vote", best
    )
)
