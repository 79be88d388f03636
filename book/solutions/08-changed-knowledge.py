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
# ## The share of questions followed
#
# Both answers must be right for the same question, so the two exact matches are multiplied before the mean is taken.


# %%
def my_follows(then, now, earlier, current):
    """Texts, texts, accepted answers, accepted answers -> a share."""
    both = [
        exact_match(a, right_then) and exact_match(b, right_now)
        for a, b, right_then, right_now in zip(
            then, now, earlier, current, strict=True
        )
    ]
    return sum(both) / len(both)


check.follows(my_follows)

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
# ## The sum and the best passage
#
# Two passages of lower prior outvote the best one in the sum, and never in a method that reads the best one alone.


# %%
def my_votes(prior, likelihood):
    """[n] and [n, answers] -> (of the sum, of the best passage), two numbers."""
    return (prior @ likelihood).argmax(), likelihood[prior.argmax()].argmax()


check.votes(my_votes)
prior = torch.tensor([0.4, 0.3, 0.3])
agree = torch.tensor([[0.1, 0.8], [0.7, 0.1], [0.7, 0.1]])
print("the sum, the best passage:", *(int(at) for at in my_votes(prior, agree)))
