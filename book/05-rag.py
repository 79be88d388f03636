# %% [markdown]
# # RAG: the passage as a latent variable
#
# ## The problem
#
# A generator that is shown a passage can say things a span cannot; a generator that is shown the
# wrong passage says them with the same confidence. {cite:t}`lewis2020rag` weigh the generator's
# word by how likely each passage was to be the right one, and train both ends through that sum.
#
# ## The idea
#
# The retriever gives a prior $p(z \mid x)$ over k passages, the generator $p(y_t \mid x, z, y_{<t})$ for
# each of them. The sum over $z$ can stand in two places (section 2.1):
#
# $$ p_{\text{Sequence}}(y \mid x) = \sum_z p(z \mid x) \prod_t p(y_t \mid x, z, y_{<t}), $$ (sequence)
#
# $$ p_{\text{Token}}(y \mid x) = \prod_t \sum_z p(z \mid x)\, p(y_t \mid x, z, y_{<t}). $$ (token)
#
# RAG-Sequence takes one passage for the whole answer; RAG-Token may take another for every token.

# %%
import inspect
from pathlib import Path

import numpy as np
import torch

from ragbook import figures, load_corpus, load_questions
from ragbook.evaluation import exact_match
from ragbook.index import build_index
from ragbook.methods import posterior, rag
from ragbook.methods.base import doc_log_probs
from ragbook.models import load_encoder, load_reader
from ragbook.retrieval import DenseRetriever

corpus, encoder, reader = load_corpus("miniwiki"), load_encoder(), load_reader()
index = build_index(corpus, Path("../build/index"), encoder, progress=False)
retriever = DenseRetriever(index, encoder)
questions = list(load_questions("miniwiki", "dev").head(24))
print(inspect.getsource(rag.sequence_log_prob).split('"""')[-1])
print(inspect.getsource(rag.token_log_prob).split('"""')[-1])

# %% [markdown]
# ## Where does the log-sum-exp sit?
#
# Two passages, equally likely, and an answer of two tokens. Passage one is sure of the first token,
# passage two of the second. No single passage supports the answer; RAG-Token finds it all the same.

# %%
tokens = torch.tensor([[[0.9, 0.1], [0.1, 0.9]]]).log()
prior, mask = torch.tensor([[0.5, 0.5]]).log(), torch.ones(1, 2)
for name, core in (("sequence", rag.sequence_log_prob), ("token", rag.token_log_prob)):
    print(f"{name:<9} {core(tokens, prior, mask).exp().item():.3f}")

# %% [markdown]
# With one passage, or with an answer of one token, the two are the same model:

# %%
one_passage = tokens[:, :1], torch.zeros(1, 1), mask
one_token = tokens[:, :, :1], prior, mask[:, :1]
for given in (one_passage, one_token):
    print([round(core(*given).item(), 6) for core in (rag.sequence_log_prob, rag.token_log_prob)])

# %% [markdown]
# ## On the index
#
# A real question: the passages, the prior, the answer's log-probability under each passage, and by
# Bayes' rule the posterior, the evidence that RAG reports.

# %%
question = questions[16]
found = retriever.retrieve([question], 5)
log_prior = doc_log_probs(found, retriever.score_scale)
states, state_mask = reader.encode_documents([question], [found[0].passages])
labels = reader.pad_labels(reader.answer_ids([question.answers[0]]))
per_token = reader.token_log_probs(
    states[0], state_mask[0], labels.expand(5, -1)
)  # log p(y_t | x, z, y_<t), [5, T]
given = per_token.sum(-1)[None]
after = posterior(log_prior, given)
print(question.text, "|", question.answers[0])
for z, passage_id in enumerate(found[0].ids):
    print(
        f"{passage_id:<28} p(z|x) {log_prior[0, z].exp():.2f}   log p(y|x,z) {given[0, z]:7.2f}   "
        f"p(z|x,y) {after[0, z]:.2f}"
    )

# %% [markdown]
# RAG-Token has a posterior of its own at every token:
# $p(z \mid x, y_{\le t}) \propto p(z \mid x)\, p(y_t \mid x, z, y_{<t})$.

# %% mystnb={"figure": {"caption": "RAG-Token: which passage each token of the answer came from. The last column is the end of the answer, which any passage can supply.", "alt": "Heat map of document posteriors by token"}}
pieces = [*reader.tokenizer.convert_ids_to_tokens(labels[0, :-1].tolist()), "(end)"]
by_token = torch.softmax(log_prior[0][:, None] + per_token, dim=0)
figures.heat_map(by_token.numpy(), rows=list(found[0].ids), columns=pieces, label="p(z | x, token)")

# %% [markdown]
# ## The likelihood and its bound
#
# For any distribution $q(z)$ over the passages,
#
# $$ \log p(y \mid x) = \underbrace{\mathbb{E}_q\left[\log \frac{p(y, z \mid x)}{q(z)}\right]}_{\text{ELBO}} + \mathrm{KL}\left(q \,\|\, p(z \mid x, y)\right), $$ (elbo)
#
# so the bound is tight exactly when $q$ is the posterior. $q$ may not give weight to a passage whose
# joint probability is zero, and the nearer it is to the posterior the tighter the bound. With k
# passages the sum is affordable and nothing has to be bounded; the identity shows what a bound would
# cost.

# %%
joint = (log_prior + given)[0].double()
exact = torch.logsumexp(joint, 0)
for name, q in (
    ("prior", log_prior[0].exp().double()),
    ("uniform", torch.full((5,), 0.2).double()),
    ("posterior", torch.softmax(joint, 0)),
):
    elbo = (q * (joint - q.clamp_min(1e-30).log())).sum()
    print(f"q = {name:<10} ELBO {elbo:8.2f}   log p {exact:.2f}   gap {max(0.0, exact - elbo):.2f}")

# %% [markdown]
# ## What moves it
#
# With more passages the right one is more often among them, and more wrong ones must be outvoted.
# Both models read with the same weights here, without what each one's own training adds to them in
# {doc}`07-side-by-side`.

# %% mystnb={"figure": {"caption": "Exact match of both models on a sample of dev questions against the number of passages.", "alt": "Exact match against k for RAG-Sequence and RAG-Token"}}
curves = {}
for model in (rag.RagSequence, rag.RagToken):
    method = model(reader, retriever, verbatim=True)  # answers are runs of words of the passages
    curves[method.name] = {}
    for k in (1, 2, 5):
        answers = method.answer(questions, k=k)
        right = [exact_match(a.text, q.answers) for a, q in zip(answers, questions, strict=True)]
        curves[method.name][k] = 100 * float(np.mean(right))
figures.lines(curves, "k, passages read", "exact match (%)", log=True)

# %% [markdown]
# ## What the paper had
#
# RAG-Sequence reports 44.5 exact match on NQ-open. A well-known implementation loses the prior for
# answers of one token and cannot change k at generation time; here both follow the definition, and
# tests hold the losses equal to that implementation's everywhere else.
#
# ## RAG against REALM
#
# Both sum over a latent passage. REALM reads masked or extracts spans and, in training, moves its
# whole index; RAG generates, freezes the passages' side and trains the question's. REALM's sum has
# the whole answer inside; RAG offers both forms.
#
# ## Exercises
#
# ```{exercise}
# :label: ex-rag-order
# Which of the two models can give a higher probability to the same answer than its best passage
# does? Which can never?
# ```
#
# ```{solution} ex-rag-order
# :class: dropdown
# RAG-Token can, as the toy shows. RAG-Sequence is an average over passages of the answer's
# probability, and an average is never above its largest term.
# ```
#
# ```{exercise}
# :label: ex-rag-length
# Why does thorough decoding score every candidate under *every* passage?
# ```
#
# ```{solution} ex-rag-length
# :class: dropdown
# A candidate that one passage's beam did not propose may still have some probability under it, and
# the sum over passages counts it. Leaving it out is the fast approximation.
# ```
