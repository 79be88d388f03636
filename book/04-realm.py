# %% [markdown]
# # REALM
#
# ## The problem
#
# If a passage is needed to predict an answer, then which passage is needed is itself something to
# learn, and nobody has labelled it. {cite:t}`guu2020realm` make the passage a latent variable and
# let the prediction's own likelihood teach the retriever.
#
# ## The idea
#
# *Retrieve, then predict*: draw a passage $z$ from $p(z \mid x)$, read it together with the question,
# and predict $y$. Since nobody sees which $z$ was drawn, sum over all of them (equation 1):
#
# $$ p(y \mid x) = \sum_z p(y \mid z, x)\, p(z \mid x). $$ (realm)
#
# For open question answering $y$ is a span: $p(y \mid z, x)$ adds up the probabilities of all spans of
# $z$ that read $y$ (section 3.2).

# %%
import inspect
import math
from pathlib import Path

import numpy as np
import torch

from ragbook import figures, load_corpus, load_questions
from ragbook.evaluation import exact_match
from ragbook.index import build_index
from ragbook.methods import posterior, realm
from ragbook.models import load_encoder, load_span_reader
from ragbook.retrieval import DenseRetriever

corpus, encoder, reader = load_corpus("miniwiki"), load_encoder(), load_span_reader(method="realm")
index = build_index(corpus, Path("../build/index"), encoder, progress=False)
retriever = DenseRetriever(index, encoder)
method = realm.Realm(reader, retriever)
questions = list(load_questions("miniwiki", "dev").head(32))

# %% [markdown]
# ## One question, step by step
#
# The prior $p(z \mid x)$ is a softmax over the retriever's scores, times the factor 20 that the
# encoder was trained with. The reader then gives each passage's spans a distribution of their own;
# its first entry says "the answer is not here".

# %%
question = questions[16]
found = retriever.retrieve([question], 5)[0]
prior = torch.log_softmax(torch.from_numpy(found.scores) * retriever.score_scale, dim=0)
print(question.text, "|", " / ".join(question.answers))
inputs, spans = reader.span_log_probs([question.text] * 5, found.passages)
for z, passage in enumerate(found.passages):
    flat = spans[z].flatten().clone()
    nothing = flat[0].exp().item()
    flat[0] = -math.inf
    start, width = divmod(int(flat.argmax()), spans.shape[2])
    first, last = inputs.offsets[z, start, 0], inputs.offsets[z, start + width, 1]
    print(
        f"p(z|x) = {prior[z].exp():.2f}  not here {nothing:.2f}  best span "
        f"{flat.max().exp():.2f} {inputs.texts[z][first:last]!r}  ({passage.id})"
    )

# %% [markdown]
# ## The mathematics, in code

# %%
print(inspect.getsource(realm.marginal_log_prob).split('"""')[-1])

# %% [markdown]
# With two passages of prior 0.8 and 0.2, of which only the second holds the answer, at probability
# 0.5, the answer has probability $0.2 \times 0.5$, and by Bayes' rule all of it came from the second:

# %%
prior_toy = torch.tensor([[0.8, 0.2]]).log()
given_toy = torch.tensor([[0.0, 0.5]]).log()
print(f"{realm.marginal_log_prob(given_toy, prior_toy).exp().item():.3f}")
print(posterior(prior_toy, given_toy).numpy())

# %% [markdown]
# ## What a passage is worth
#
# The paper's *retrieval utility* compares how probable the answer is with a passage and with none.
# A span reader cannot answer without a passage, so the passages are compared with their own average
# here: the logarithm of $p(y \mid z, x)$ over $p(y \mid x)$. It is positive where the passage helps, and
# the gradient of the likelihood raises exactly those passages' scores: it is posterior minus prior.

# %% mystnb={"figure": {"caption": "Prior and posterior of the five retrieved passages: the answer's likelihood says which passage was worth reading.", "alt": "Heat map of prior and posterior of five passages"}}
answer = method.answer([question], k=5)[0]
weights = {e.passage_id: e.weight for e in answer.evidence}
table = np.array([[math.exp(p) for p in prior.tolist()], [weights[i] for i in found.ids]])
print("answer:", answer.text)
figures.heat_map(table, rows=["p(z | x)", "p(z | x, y)"], columns=list(found.ids), label="")

# %% [markdown]
# ## Whole answers or single tokens
#
# The paper sums over passages with the *whole* answer's probability inside; the released code sums
# for each masked token by itself. For one token they agree. For two tokens on which two passages
# each know one, they do not:

# %%
tokens = torch.tensor([[[0.9, 0.1], [0.1, 0.9]]]).log()  # [1, two passages, two tokens]
even = torch.tensor([[0.5, 0.5]]).log()
whole = realm.marginal_log_prob(tokens.sum(-1), even).exp().item()
each = torch.stack([realm.marginal_log_prob(tokens[:, :, t], even) for t in range(2)]).sum(0)
print(f"whole answer {whole:.3f}, token by token {each.exp().item():.3f}")

# %% [markdown]
# The same fork in the road separates RAG-Sequence from RAG-Token in the next chapter.
#
# ## What moves it
#
# More passages raise the chance that the answer is among them, and the number of spans that can be
# mistaken for it.

# %% mystnb={"figure": {"caption": "Exact match of REALM on a sample of dev questions against the number of passages read.", "alt": "Exact match against k"}}
curve = {}
for k in (1, 2, 5, 10):
    answers = method.answer(questions, k=k)
    curve[k] = 100 * np.mean(
        [exact_match(a.text, q.answers) for a, q in zip(answers, questions, strict=True)]
    )
figures.lines({"REALM": curve}, "k, passages read", "exact match (%)", log=True)

# %% [markdown]
# ## What the paper had
#
# REALM reports 40.4 on NQ-open, against 33.3 of ORQA {cite:p}`lee2019orqa`, whose retriever it shares;
# its index is refreshed while it trains. The bundled reader stands on the encoder of this book's
# seq2seq reader and its retriever is not trained further, so what is measured here is the
# prediction step.
#
# Training that step on the marginal likelihood alone made it worse: exact match on dev (755
# questions, five passages) fell from 54.8 % to 51.4 %. A passage that does not hold the answer gives
# it no probability, gets no gradient, and is free to propose other spans with confidence. With a
# term that asks such passages to say that the answer is not here, exact match rose to 55.9 %.
#
# ## Exercises
#
# ```{exercise}
# :label: ex-realm-zero
# The comparison's table gives REALM no mean negative log-likelihood over all questions. Why?
# ```
#
# ```{solution} ex-realm-zero
# :class: dropdown
# An answer that stands in none of the k passages has no span, hence probability zero, hence an
# infinite negative logarithm. One such question makes the mean infinite.
# ```
#
# ```{exercise}
# :label: ex-realm-gradient
# Show that the derivative of $\log p(y \mid x)$ by the score of passage $z$ is
# $p(z \mid x, y) - p(z \mid x)$.
# ```
#
# ```{solution} ex-realm-gradient
# :class: dropdown
# With $p(z \mid x) = e^{s_z} / \sum e^{s}$, $\partial p(z') / \partial s_z = p(z')(\delta_{zz'} - p(z))$.
# Summed against $p(y \mid z', x)$ and divided by $p(y \mid x)$ this is
# $p(z)p(y \mid z, x)/p(y \mid x) - p(z)$.
# ```
