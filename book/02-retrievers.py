# %% [markdown]
# # Retrievers
#
# ## The problem
#
# A question and the passage that answers it share meaning, and often not words. Two families of
# retrievers take two views: *lexical* ones count shared words and weigh rare ones more, *dense* ones
# compare vectors that an encoder made. All five methods of the book stand on one of them, behind one
# call: `retrieve(questions, k)`.

# %%
from pathlib import Path

import numpy as np
import torch

from ragbook import figures, load_corpus, load_questions
from ragbook.evaluation import recall_at_k
from ragbook.index import build_index
from ragbook.models import load_encoder
from ragbook.retrieval import BM25Retriever, DenseRetriever, OracleRetriever

corpus, encoder = load_corpus("miniwiki"), load_encoder()
index = build_index(corpus, Path("../build/index"), encoder, progress=False)
dense, bm25 = DenseRetriever(index, encoder), BM25Retriever(corpus)
oracle = OracleRetriever(corpus, dense)
questions = list(load_questions("miniwiki", "test").head(200))
question = questions[0]
print(question.text)
for retriever in (bm25, dense, oracle):
    found = retriever.retrieve([question], 3)[0]
    print(f"{retriever.name:<7}", *found.ids)

# %% [markdown]
# ## The idea in one picture
#
# The *oracle* puts the gold passage first: it is no retriever, it is the ceiling. Between it and a
# lexical match lies what retrieval has to win.

# %% mystnb={"figure": {"caption": "Recall of the gold passage among the k best, on 200 test questions.", "alt": "Recall curves of BM25, dense and oracle retrieval"}}
curves = {}
for retriever in (oracle, dense, bm25):
    found = retriever.retrieve(questions, 20)
    curves[retriever.name] = {k: recall_at_k(questions, found, k) for k in (1, 2, 5, 10, 20)}
figures.recall_curve(curves)

# %% [markdown]
# ## The mathematics
#
# **BM25** {cite:p}`robertson2009bm25` adds up, over the question's words $w$, how rare the word is and
# how often it stands in the passage, with diminishing returns and a correction for length:
#
# $$ s(x, z) = \sum_{w \in x} \mathrm{idf}(w) \, \frac{f(w, z)\,(k_1 + 1)}{f(w, z) + k_1\left(1 - b + b\,|z| / \overline{|z|}\right)}. $$ (bm25)
#
# A **dual encoder** learns $s(x, z) = E(x)^\top E(z)$ from pairs. In DPR's training
# {cite:p}`karpukhin2020dpr` the other passages of a batch are the negatives, and the loss is the
# cross-entropy of the right one:
#
# $$ \mathcal{L} = -\log \frac{e^{s(x_i, z_i)}}{\sum_j e^{s(x_i, z_j)}}. $$ (dpr)
#
# On a small matrix of scores, the diagonal holding the right pairs, beside the *hinge* loss
# $\max(0, 1 - s(x_i, z_i) + \max_{j \ne i} s(x_i, z_j))$ that only asks for a margin:

# %%
scores = torch.tensor([[4.0, 1.0, 0.0], [0.5, 2.0, 1.8], [0.0, 1.0, 3.0]])
cross_entropy = torch.nn.functional.cross_entropy(scores, torch.arange(3), reduction="none")
wrong = scores.masked_fill(torch.eye(3, dtype=torch.bool), -torch.inf)
hinge = (1 - scores.diagonal() + wrong.max(1).values).clamp_min(0)
print("cross-entropy", cross_entropy.numpy().round(3))
print("hinge        ", hinge.numpy().round(3))

# %% [markdown]
# The second question is barely right and both losses see it; the hinge is content with the other
# two, the cross-entropy never is.
#
# ## Dot product, cosine, L2
#
# For vectors of length 1 the three give the same ranking, since
# $\lVert a - b \rVert^2 = 2 - 2\,a^\top b$. For DPR's vectors, which are not scaled, they differ: a long
# passage vector wins dot products. Here both cases, on real vectors and on the same vectors with
# lengths drawn at random:

# %%
queries = encoder.encode_queries([q.text for q in questions[:50]])
passages = encoder.encode_passages(list(corpus[:150]))
lengths = np.random.default_rng(0).uniform(0.5, 2.0, size=(len(passages), 1)).astype(np.float32)
for name, z in (("unit length", passages), ("mixed lengths", passages * lengths)):
    dot = queries @ z.T
    cosine = dot / np.linalg.norm(z, axis=1)
    l2 = -((queries[:, None] - z[None]) ** 2).sum(-1)
    first = [s.argmax(1) for s in (dot, cosine, l2)]
    print(
        f"{name:<14} first place agrees: dot and cosine {np.mean(first[0] == first[1]):.2f}, "
        f"dot and L2 {np.mean(first[0] == first[2]):.2f}"
    )

# %% [markdown]
# ## From scores to a distribution
#
# RAG and REALM need $p(z \mid x)$, not scores: a softmax over the k passages. The scale matters. Inner
# products of unit vectors lie between -1 and 1, and a softmax over them is nearly flat; the encoder
# was trained with a factor of 20, and with that factor the distribution means what it was trained to
# mean.

# %% mystnb={"figure": {"caption": "p(z | x) over the five best passages of one question, without and with the factor the encoder was trained with.", "alt": "Heat map of two priors over five passages"}}
found = dense.retrieve([question], 5)[0]
rows = {"scale 1": 1.0, "scale 20": dense.score_scale}
prior = np.stack([torch.softmax(torch.from_numpy(found.scores) * s, 0) for s in rows.values()])
figures.heat_map(prior, rows=list(rows), columns=list(found.ids), label="p(z | x)")

# %% [markdown]
# ## What the paper had
#
# DPR finds an answer among the first 20 passages for 79.97 % of NQ's test questions, among 21 million
# passages; BM25 for some twenty points fewer. MiniWiki is small and its questions were written with
# the passage in view, which favours both.
#
# ## Exercises
#
# ```{exercise}
# :label: ex-hard
# Why does DPR add one BM25 passage that does *not* hold the answer to each question's negatives?
# ```
#
# ```{solution} ex-hard
# :class: dropdown
# The other passages of a batch are about other things and easy to tell apart. A passage that shares
# the question's words and not its answer teaches what words alone cannot.
# ```
