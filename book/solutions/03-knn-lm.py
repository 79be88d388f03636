# %% [markdown]
# # kNN-LM: solutions
#
# Solutions of the exercises of chapter 3 that are code.

# %%
import numpy as np
from exercises import knn_lm as check

# %% [markdown]
# ## The pairs of a text
#
# `states[i]` represents the context that ends with token i, and token i + 1 follows it. After the last token
# nothing follows: n tokens give n - 1 pairs.


# %%
def my_pairs(states, tokens):
    return states[:-1], tokens[1:]


check.pairs(my_pairs)

# %% [markdown]
# ## The vote
#
# With the smallest distance subtracted, the nearest neighbour has the weight 1 before the normalisation,
# however far away it is. `np.add.at` adds the weights of neighbours with the same token.


# %%
def my_vote(keys, values, query, vocab_size, temperature):
    distances = ((query - keys) ** 2).sum(axis=1)
    weights = np.exp(-(distances - distances.min()) / temperature)
    p = np.zeros(vocab_size)
    np.add.at(p, values, weights / weights.sum())
    return p


check.vote(my_vote)

# %% [markdown]
# ## The weight of the memory
#
# The lowest perplexity is the highest mean of $\log p$. A product of probabilities is a sum of logarithms, and
# `np.logaddexp` adds two probabilities without leaving the logarithms. With $\lambda = 1$ the mean is $-\infty$ as
# soon as the memory lacks one of the tokens, so that weight can never win then.


# %%
def my_weight(lm_log_probs, knn_log_probs, lams):
    def mean_log_prob(lam):
        return np.logaddexp(
            np.log1p(-lam) + lm_log_probs, np.log(lam) + knn_log_probs
        ).mean()

    with np.errstate(divide="ignore"):  # log 0 is -inf, as it should be
        return max(lams, key=mean_log_prob)


check.weight(my_weight)
