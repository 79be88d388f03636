# %% [markdown]
# # Fusion-in-Decoder: solutions
#
# Solutions of the exercises of chapter 6 that are code.

# %%
import torch
from exercises import fid as check

# %% [markdown]
# ## A padded batch
#
# The mask acts on the scores, before the softmax. Multiplying the weights by it afterwards leaves the padding's
# share in the denominator, and a score of 0 is one like any other: its exponential is 1.


# %%
def my_read(queries, states, mask):
    """[B, d], [B, k, L, d] and [B, k, L] -> [B, d]."""
    states, real = states.flatten(1, 2), mask.flatten(1, 2) == 1
    scores = torch.einsum("bd,bpd->bp", queries, states)
    attention = scores.masked_fill(~real, -torch.inf).softmax(-1)
    return torch.einsum("bp,bpd->bd", attention, states)


check.read(my_read)

# %% [markdown]
# ## A passage struck out
#
# Without the passage, the softmax has the same exponentials and fewer terms in its denominator. So the weights
# that are left keep their ratios and are divided by their sum.


# %%
def my_struck(attention, owner, passage):
    """[P], int64 [P] and the passage left out -> [P]."""
    left = attention * (owner != passage)
    return left / left.sum()


check.struck(my_struck)

# %% [markdown]
# For a whole decoder this is true of its first layer only: what that layer reads changes, and with it the queries of
# the next. So what FiD answers without a passage cannot be computed from its attention, and leaving one out means
# reading again.

# %% [markdown]
# ## Where attention costs more than the matrices
#
# Dividing $2 (kL)^2 d > 12 k L d^2$ by $2 k L d$ leaves $k L > 6 d$. With equality the two cost the same, so the
# smallest $k$ is one more than the whole part of $6 d / L$.


# %%
def my_crossover(length, width):
    """The smallest k with 2 (k L)^2 d > 12 k L d^2."""
    return 6 * width // length + 1


check.crossover(my_crossover)
print("L = 150, d = 384: from", my_crossover(150, 384), "passages on")

# %% [markdown]
# ## Which target is REALM's?
#
# Distillation's gradient is $(\tilde S - \tilde G) / B$ and that of $-\log p(y \mid x)$, averaged over the batch, is
# prior minus posterior over $B$. $\tilde S$ is the prior, so $\tilde G$ has to be the posterior, the softmax of the
# sum of both logarithms.


# %%
def my_targets(scores, answer_log_probs):
    """alpha s and log p(y | x, z), both [B, k] -> [B, k]."""
    return scores + answer_log_probs


check.targets(my_targets)

# %% [markdown]
# FiD's target comes from attention and is fixed while the retriever learns. The posterior moves with the retriever:
# it adds the reader's log-likelihoods to whatever the retriever believes now. Without the first term the target is
# the reader's view alone, which Atlas calls perplexity distillation.
