# %% [markdown]
# # REALM: solutions
#
# Solutions of the exercises of chapter 4 that are code.

# %%
from collections import defaultdict

from exercises import realm as check

# %% [markdown]
# ## The gradient of a score
#
# The gradient is posterior minus prior. A softmax of the sum of both log-probabilities is the posterior: it
# normalises by $p(y \mid x)$ without leaving the logarithms.


# %%
def my_gradient(answer_log_probs, doc_log_probs):
    after = (answer_log_probs + doc_log_probs).softmax(-1)
    return after - doc_log_probs.exp()


check.score_gradient(my_gradient)

# %% [markdown]
# ## The probability of a string
#
# Spans with the same tokens are the same string, so their probabilities are added.


# %%
def my_string_probs(tokens, probs):
    total = defaultdict(float)
    for start in range(len(tokens)):
        for width, probability in enumerate(probs[start]):
            end = start + width
            if end < len(tokens):
                total[tuple(tokens[start : end + 1])] += probability
    return total


check.string_probs(my_string_probs)

# %% [markdown]
# ## ORQA's prior
#
# In one softmax over all spans, a passage's share is the sum over its spans. In logarithms the sum is a
# log-sum-exp, added to the passage's own score before the passages are normalised.


# %%
def my_joint_prior(span_scores, doc_scores):
    return (doc_scores + span_scores.logsumexp(-1)).log_softmax(-1)


check.joint_prior(my_joint_prior)
