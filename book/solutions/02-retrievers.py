# %% [markdown]
# # Retrievers: solutions
#
# Solutions of the exercises of chapter 2 that are code.

# %%
import numpy as np
from exercises import retrievers as check

# %% [markdown]
# ## A search that stops early
#
# A passage that is in none of the lists read so far can get at most the sum of the greatest entries of the lists
# that remain. Once that sum is not above the best score, no such passage can win, and most of the long lists of
# frequent words need not be scored. The passages already taken in go on: in the first of the check's examples the
# one that leads at that moment does not win. Search engines call this MaxScore and apply it to the k best, with
# the score of the k-th in place of the best.


# %%
def my_best(lists, words):
    own = [lists[word] for word in words if word in lists]
    own.sort(key=lambda one: max(one.values()), reverse=True)
    total = {}
    for at, one in enumerate(own):
        at_most = sum(max(later.values()) for later in own[at:])
        takes_new = at_most > max(total.values(), default=0)
        for passage, adds in one.items():
            if takes_new or passage in total:
                total[passage] = total.get(passage, 0) + adds
    return max(total, key=lambda z: total[z]), set(total)


check.best(my_best)

# %% [markdown]
# ## What moves a question
#
# The score of passage $j$ is $\alpha\, e_x^\top e_j$, so $e_x$ gets the derivative by each scaled score times
# $\alpha\, e_j$. The sum is $\alpha\,(\sum_j p_j e_j - e_g)$, with $p$ the softmax: a step down moves the question
# from the mean of all passages, weighted by what it believes now, towards the right passage. It stops when all
# weight is on the right one. A negative pushes in proportion to its weight, so a hard negative pushes most and an
# easy one hardly at all.


# %%
def my_pull(x, passages, g, scale):
    scores = scale * passages @ x
    weights = np.exp(scores - scores.max())
    weights /= weights.sum()
    return scale * (weights @ passages - passages[g])


check.pull(my_pull)

# %% [markdown]
# With one hard negative and one easy negative, the hard one has nearly all of the negatives' weight:

# %%
x = np.array([1.0, 0.0])
passages = np.array([[0.8, 0.6], [0.9, -0.436], [-1.0, 0.0]])
weights = np.exp(5 * passages @ x)
print("weights ", (weights / weights.sum()).round(3))
print("gradient", my_pull(x, passages, 0, 5).round(3))

# %% [markdown]
# ## Reciprocal rank fusion
#
# Only ranks are used, so BM25's scores and inner products need no common scale. A passage that is good in both
# rankings wins against one that is first in a single one.


# %%
def my_fusion(rankings):
    fused = {}
    for ranking in rankings:
        for rank, name in enumerate(ranking, 1):
            fused[name] = fused.get(name, 0) + 1 / (60 + rank)
    return fused


check.fusion(my_fusion)
