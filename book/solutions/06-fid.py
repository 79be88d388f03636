# %% [markdown]
# # Solutions: Fusion-in-Decoder
#
# The exercises of {doc}`../06-fid` that ask for code.

# %%
import torch
from exercises import fid as check

# %% [markdown]
# ## The fusion of one question
#
# Indexing with a mask keeps the order and leaves the padding out.


# %%
def my_pack(states, mask):
    """[k, L, d] and [k, L] -> [P, d] and int64 [P]."""
    real = mask.flatten() == 1
    owner = torch.arange(len(mask)).repeat_interleave(mask.shape[1])
    return states.flatten(0, 1)[real], owner[real]


check.pack(my_pack)

# %% [markdown]
# ## Shares of attention
#
# The softmax comes first, over the tokens of all passages. A softmax for each passage would give every passage the
# same share.


# %%
def my_shares(scores, owner, k):
    """[P], int64 [P] and the number of passages -> [k]."""
    return torch.zeros(k).index_add(0, owner, scores.softmax(0))


check.shares(my_shares)

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
# ## The gradient of distillation
#
# $\mathrm{KL}(\tilde G \,\|\, \tilde S)$ is a cross-entropy minus the entropy of $\tilde G$, which does not depend on
# the scores. The gradient of a cross-entropy with respect to the logits is the softmax minus the target.


# %%
def my_gradient(scores, targets):
    """alpha s and G / T, both [B, k] -> [B, k]."""
    return (scores.softmax(-1) - targets.softmax(-1)) / len(scores)


check.gradient(my_gradient)
