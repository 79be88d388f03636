# %% [markdown]
# # Five places to combine passages, on one pretrained model: solutions
#
# Solutions of the exercises of chapter 11 that are code.

# %%
import torch
from exercises import one_pretrained_model as check

# %% [markdown]
# ## Attention over fused caches
#
# The keys and values of all passages are concatenated, and one softmax goes over all tokens. A long passage and
# a short one compete token by token, and their order does not matter.


# %%
def my_fused(query, passages):
    keys = torch.cat([keys for keys, _ in passages])
    values = torch.cat([values for _, values in passages])
    weights = torch.softmax(keys @ query / len(query) ** 0.5, dim=0)
    return weights @ values


check.fused(my_fused)

# %% [markdown]
# ## The two layouts
#
# Apart, a token attends only within its passage, and every passage has the positions that it would have alone:
# its keys and values can be computed once and reused beside any other passages.


# %%
def my_layout(lengths, apart):
    total = sum(lengths)
    causal = torch.ones(total, total, dtype=torch.bool).tril()
    if not apart:
        return causal, torch.arange(total)
    passage = torch.repeat_interleave(
        torch.arange(len(lengths)), torch.tensor(lengths)
    )
    positions = torch.cat([torch.arange(length) for length in lengths])
    return causal & (passage[:, None] == passage), positions


check.layout(my_layout)

# %% [markdown]
# ## Moved keys
#
# Turning by $p\,\omega_i$ and then by $s\,\omega_i$ is turning by $(p + s)\,\omega_i$, so the position at which a
# key was computed need not be known.


# %%
def my_move(keys, by, frequencies):
    half = keys.shape[1] // 2
    first, second = keys[:, :half], keys[:, half:]
    cos, sin = torch.cos(by * frequencies), torch.sin(by * frequencies)
    return torch.cat(
        [first * cos - second * sin, second * cos + first * sin], dim=1
    )


check.move(my_move)
