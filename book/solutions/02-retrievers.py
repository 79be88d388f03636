# %% [markdown]
# # Retrievers: solutions
#
# Solutions of the exercises of chapter 2 that are code.

# %%
import math

import numpy as np
from exercises import retrievers as check

# %% [markdown]
# ## One word's part of BM25
#
# The idf does not depend on the passage; the fraction grows with the count and stays below 1.


# %%
def my_bm25(f, n, N, length, mean_length):
    idf = math.log(1 + (N - n + 0.5) / (n + 0.5))
    return idf * f / (f + 1.2 * (1 - 0.75 + 0.75 * length / mean_length))


check.bm25(my_bm25)

# %% [markdown]
# ## The gradient of DPR's loss
#
# The loss is $-s_g + \log \sum_j e^{s_j}$. The sum's derivative by $s_j$ is the softmax, and the first term
# subtracts 1 at $g$. Subtracting the largest score changes no ratio.


# %%
def my_gradient(scores, g):
    weights = np.exp(scores - scores.max())
    gradient = weights / weights.sum()
    gradient[g] -= 1
    return gradient


check.gradient(my_gradient)

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
