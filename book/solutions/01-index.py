# %% [markdown]
# # The Wikipedia index: solutions
#
# Solutions of the exercises of chapter 1 that are code.

# %%
import numpy as np
from exercises import index as check

# %% [markdown]
# ## Blocks of words
#
# A `range` with the step `size` gives the first word of each block. A slice that ends after the last word
# is shorter, so the last block needs no case of its own.


# %%
def my_blocks(text, size):
    words = text.split()
    return [
        " ".join(words[first : first + size])
        for first in range(0, len(words), size)
    ]


check.blocks(my_blocks)

# %% [markdown]
# ## Exact search in blocks
#
# The scores of a block are put behind the best so far, and a stable sort of the *negative* scores keeps the first
# k. The best so far come earlier in the corpus than the block, and a stable sort leaves equal scores in the order in
# which it finds them. In front of the best so far, a later passage would come before an earlier one of equal score.


# %%
def my_search(queries, vectors, k):
    scores = np.empty((len(queries), 0), dtype=np.float32)
    positions = np.empty((len(queries), 0), dtype=np.int64)
    for first in range(0, len(vectors), 64):
        new = queries @ vectors[first : first + 64].T
        at = np.broadcast_to(first + np.arange(new.shape[1]), new.shape)
        scores = np.concatenate([scores, new], axis=1)
        positions = np.concatenate([positions, at], axis=1)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores = np.take_along_axis(scores, best, axis=1)
        positions = np.take_along_axis(positions, best, axis=1)
    return scores, positions


check.search(my_search)
