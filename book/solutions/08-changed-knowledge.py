# %% [markdown]
# # Knowledge that changes: solutions
#
# Solutions of the exercises of chapter 8 that are code.

# %%
import math

import torch
from exercises import changed_knowledge as check

from ragbook.evaluation import normalize_answer
from ragbook.evaluation.metrics import exact_match

# %% [markdown]
# ## Followed, stale, ahead
#
# Each of the two answers is compared with both editions. The closed-book reader, whose two answers are the same, cannot follow.


# %%
def my_outcomes(then, now, earlier, current):
    """Texts, texts, accepted answers, accepted answers ->
    (followed, stale, ahead, rest)."""
    kinds = {(True, False, False, True): 0, (True, False, True, False): 1}
    kinds[False, True, False, True] = 2
    counts = [0, 0, 0, 0]
    for a, b, old, new in zip(then, now, earlier, current, strict=True):
        right = (
            exact_match(a, old), exact_match(a, new),
            exact_match(b, old), exact_match(b, new),
        )  # fmt: skip
        counts[kinds.get(right, 3)] += 1
    return tuple(counts)


check.outcomes(my_outcomes)

# %% [markdown]
# ## Answers that moved
#
# Two answers are the same if they are equal after normalisation. The third possibility, from wrong to wrong, is in the
# number of moves only.


# %%
def my_moves(before, after, accepted):
    """Texts, texts, accepted answers -> (moved, to right, to wrong)."""
    moved = sum(
        normalize_answer(a) != normalize_answer(b)
        for a, b in zip(before, after, strict=True)
    )
    right = [
        (exact_match(a, known), exact_match(b, known))
        for a, b, known in zip(before, after, accepted, strict=True)
    ]
    return moved, right.count((False, True)), right.count((True, False))


check.moves(my_moves)

# %% [markdown]
# ## Silence after a deletion
#
# At least nine in ten of the $n$ right answers must pass, so at most $\lfloor n / 10 \rfloor$ of them may be below the
# threshold: it is the next one in order.


# %%
def my_silenced(before, right, after):
    """Probabilities before, whether each answer was right, probabilities
    after -> the share of the latter below the threshold."""
    sure = sorted(p for p, good in zip(before, right, strict=True) if good)
    threshold = sure[math.floor(len(sure) / 10)]
    return sum(p < threshold for p in after) / len(after)


check.silenced(my_silenced)

# %% [markdown]
# ## What a false passage needs
#
# Both leads are differences of likelihoods, and $(1 - q) d = q f$ gives $q = d / (d + f)$. A second true passage does
# not raise $d$ if it is as sure as the first, since the two share the prior. It does so in place of a passage that
# does not know the answer.


# %%
def my_share(prior, likelihood, false):
    """[n], [n, 2] and [2] -> the q at which both answers are equal."""
    true_lead = prior @ (likelihood[:, 0] - likelihood[:, 1])
    false_lead = false[1] - false[0]
    return true_lead / (true_lead + false_lead)


check.share(my_share)
prior, false = torch.tensor([0.5, 0.5]), torch.tensor([0.0, 0.8])
for knowing in (1, 2):
    likelihood = torch.zeros(2, 2)
    likelihood[:knowing, 0] = 0.8
    needed = float(my_share(prior, likelihood, false))
    print(f"{knowing} of 2 passages know the answer: q = {needed:.3f}")
