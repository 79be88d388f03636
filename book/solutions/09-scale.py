# %% [markdown]
# # From this laptop to all of Wikipedia: solutions
#
# Solutions of the exercises of chapter 9 that are code.

# %%
import numpy as np
from exercises import scale as check

# %% [markdown]
# ## The number of cells
#
# The derivative of $c + n \ell / c$ is $1 - n \ell / c^2$, which is zero at $c = \sqrt{n \ell}$: as many
# comparisons with centroids as with vectors. So $4\sqrt{n}$ cells are best with 16 probes, and
# $16\sqrt{n}$ with 256.


# %%
def my_cells(n, probes):
    return (n * probes) ** 0.5


check.cells(my_cells)

# %% [markdown]
# ## A product quantizer
#
# Every piece has its own values, so piece $j$ is compared with, and looked up in, `values[j]`.


# %%
def my_encode(vectors, values):
    m, _, width = values.shape
    pieces = vectors.reshape(len(vectors), m, 1, width)
    return ((pieces - values) ** 2).sum(-1).argmin(-1)


def my_decode(codes, values):
    m = len(values)
    return values[np.arange(m), codes].reshape(len(codes), -1)


check.product_code((my_encode, my_decode))

# %% [markdown]
# ## Merging parts
#
# `np.lexsort` sorts by its last key first: the negative score, then the position. A test on a single part
# can't notice a merge that keeps the lowest scores, because the part returns no more than k.


# %%
def my_merge(found, k):
    scores = np.concatenate([each[0] for each in found], axis=1)
    positions = np.concatenate([each[1] for each in found], axis=1)
    order = np.lexsort((positions, -scores), axis=1)[:, :k]
    return (
        np.take_along_axis(scores, order, 1),
        np.take_along_axis(positions, order, 1),
    )


check.merge(my_merge)
