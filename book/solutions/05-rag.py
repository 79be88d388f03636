# %% [markdown]
# # RAG: solutions
#
# Solutions of the exercises of chapter 5 that are code.

# %%
import torch
from exercises import rag as check

# %% [markdown]
# ## The sum outside
#
# Each passage's log-probabilities are summed over the answer's own tokens. The prior is added once, before the
# log-sum-exp over the passages.


# %%
def my_sequence_log_prob(token_log_probs, doc_log_probs, mask):
    given = (token_log_probs * mask[:, None]).sum(-1)
    return (doc_log_probs + given).logsumexp(-1)


check.sequence_log_prob(my_sequence_log_prob)

# %% [markdown]
# ## The sum inside
#
# The prior is added at every token, and the passages are summed before the tokens. The mask then removes the
# padding's sums.


# %%
def my_token_log_prob(token_log_probs, doc_log_probs, mask):
    marginal = (doc_log_probs[..., None] + token_log_probs).logsumexp(1)
    return (marginal * mask).sum(-1)


check.token_log_prob(my_token_log_prob)

# %% [markdown]
# ## What RAG-Sequence remembers
#
# A cumulative sum includes the token at its own place; subtracting that token leaves the tokens before it.


# %%
def my_weights(token_log_probs, doc_log_probs):
    before = token_log_probs.cumsum(-1) - token_log_probs
    return (doc_log_probs[..., None] + before).softmax(1)


check.running_weights(my_weights)

# %% [markdown]
# ## The bound
#
# Where q is 0, the product with log 0 is nan; `torch.where` replaces it by its limit, 0.


# %%
def my_elbo(q, doc_log_probs, answer_log_probs):
    terms = q * (doc_log_probs + answer_log_probs - q.log())
    return torch.where(q > 0, terms, 0.0).sum(-1)


check.elbo(my_elbo)
