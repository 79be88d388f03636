# %% [markdown]
# # RAG: solutions
#
# Solutions of the exercises of chapter 5 that are code.

# %%
import torch
from exercises import rag as check

# %% [markdown]
# ## A toy for each model
#
# In the first toy one passage knows the whole answer, and the other nothing: RAG-Sequence gives the answer about
# 1/2, RAG-Token about $(1/2)^3$. In the second each passage knows one token that the other does not: no passage
# gives the answer more than 0.001, and RAG-Token gives it about $(1/2)^2$.


# %%
def my_toys():
    one_knows_all = torch.tensor([[1.0, 1.0, 1.0], [0.01, 0.01, 0.01]])
    each_knows_one = torch.tensor([[1.0, 0.001, 1.0], [0.001, 1.0, 1.0]])
    return one_knows_all, each_knows_one


check.toys(my_toys)

# %% [markdown]
# ## The gradient with respect to the prior
#
# The derivative of $\log \sum_z p(z \mid x)\, p(y_t \mid x, z, y_{<t})$ with respect to one $p(z \mid x)$ is the
# token's probability under this passage, divided by the sum. A ratio of probabilities is never negative.


# %%
def my_prior_gradient(token_log_probs, doc_log_probs):
    mixture = (doc_log_probs[..., None] + token_log_probs).logsumexp(1)
    return (token_log_probs - mixture[:, None]).exp().sum(-1)


check.prior_gradient(my_prior_gradient)

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
