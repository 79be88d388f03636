# %% [markdown]
# # Fusion-in-Decoder
#
# ## The problem
#
# Sums over passages ask each passage for the whole answer. Evidence is often spread out, or said
# twice in different words, and a reader that sees all of it at once could use that. Laying 100
# passages end to end into one encoder is out of the question: self-attention costs the square of the
# length.
#
# ## The idea
#
# {cite:t}`izacard2021fid` encode each passage **apart**, together with the question, and let the
# decoder attend over all states **at once**. The encoder's cost grows linearly with the number of
# passages; the decoder's attention makes the fusion.

# %%
import inspect
from pathlib import Path

import numpy as np

from ragbook import figures, load_corpus, load_questions
from ragbook.evaluation import exact_match
from ragbook.index import build_index
from ragbook.methods import fid, rag
from ragbook.models import load_encoder, load_reader
from ragbook.retrieval import DenseRetriever, Retrieved

corpus, encoder, reader = load_corpus("miniwiki"), load_encoder(), load_reader()
index = build_index(corpus, Path("../build/index"), encoder, progress=False)
retriever = DenseRetriever(index, encoder)
questions = list(load_questions("miniwiki", "dev").head(24))
print(inspect.getsource(fid.fuse).split('"""')[-1])

# %% [markdown]
# ## The mathematics
#
# With $H_i \in \mathbb{R}^{L \times d}$ the states of (question, passage $i$), the decoder conditions
# on their concatenation,
#
# $$ p(y \mid x, z_1, \dots, z_n) = \prod_t p\left(y_t \mid y_{<t}, [H_1; \dots; H_n]\right). $$ (fid)
#
# Attention has no notion of where in the concatenation a state stands, and the passages' positions
# were given out apart: so the order of the passages does not matter. Here it is, on a real question,
# in three orders:


# %%
class Reordered:
    """A retriever's passages in another order."""

    name, score_scale = "reordered", 1.0

    def __init__(self, order):
        self.order = order

    def retrieve(self, questions, k):
        return [
            Retrieved(
                tuple(r.ids[i] for i in self.order),
                r.scores[list(self.order)],
                tuple(r.passages[i] for i in self.order),
            )
            for r in retriever.retrieve(questions, k)
        ]


question = questions[16]
for order in ((0, 1, 2, 3, 4), (4, 3, 2, 1, 0), (2, 0, 4, 1, 3)):
    method = fid.FiD(reader, Reordered(order))
    answer = method.answer([question], k=5)[0]
    print(order, answer.text, f"{answer.log_prob:.2f}")

# %% [markdown]
# ## Where the decoder looks
#
# FiD has no distribution over passages. What comes nearest is the decoder's cross-attention: the
# share of it that falls on each passage while the answer is written.

# %% mystnb={"figure": {"caption": "Share of the decoder's cross-attention on each retrieved passage, for one question.", "alt": "Bars of attention by passage"}}
method = fid.FiD(reader, retriever)
answer = method.answer([question], k=5)[0]
print(question.text, "|", answer.text)
figures.bars({e.passage_id: e.weight for e in answer.evidence}, "share of cross-attention")

# %%
answers = method.answer(questions, k=5)
heaviest = [
    a.evidence[0].passage_id == q.gold_passage for a, q in zip(answers, questions, strict=True)
]
print(f"the heaviest passage is the gold one for {sum(heaviest)} of {len(heaviest)} questions")

# %% [markdown]
# ## The same reader, two ways to use it
#
# RAG-Token and FiD share their weights here, without what each method's own training adds to them in
# {doc}`07-side-by-side`. How probable is the right answer under each?

# %%
gold = [q.answers[0] for q in questions]
for other in (rag.RagToken(reader, retriever), method):
    nll = -other.log_prob(questions, gold, k=5).double().mean().item()
    print(f"{other.name:<10} {nll:.2f} nats")

# %% [markdown]
# ## What moves it
#
# The paper's finding is that FiD goes on gaining from passages long after others stop. Whether a
# small reader that was trained with five and ten passages does is another matter. So is how it writes: held
# to the words of its passages, as in {doc}`07-side-by-side`, it cannot lose a piece of a long name.

# %% mystnb={"figure": {"caption": "Exact match on a sample of dev questions against the number of passages: FiD held to the passages' words and writing freely, beside RAG-Token.", "alt": "Exact match against k for FiD, FiD writing freely, and RAG-Token"}}
curves = {}
for name, other in (
    ("fid", fid.FiD(reader, retriever, verbatim=True)),
    ("fid, free", method),
    ("rag-token", rag.RagToken(reader, retriever, verbatim=True)),
):
    curves[name] = {}
    for k in (1, 2, 5, 10):
        found = other.answer(questions, k=k)
        right = [exact_match(a.text, q.answers) for a, q in zip(found, questions, strict=True)]
        curves[name][k] = 100 * float(np.mean(right))
figures.lines(curves, "k, passages read", "exact match (%)", log=True)

# %% [markdown]
# ## What it costs
#
# Counting multiplications only: an encoder layer over n passages of L tokens at width d spends
# $12 n L d^2$ on its matrices and $2 n L^2 d$ on attention; one encoder over the concatenation would
# spend $2 (nL)^2 d$ on attention.

# %%
d, L = 384, 150
for n in (1, 5, 25, 100):
    apart = 12 * n * L * d**2 + 2 * n * L**2 * d
    together = 12 * n * L * d**2 + 2 * (n * L) ** 2 * d
    print(f"n = {n:>3}: apart {apart / 1e9:7.1f}, together {together / 1e9:7.1f} GFLOP a layer")

# %% [markdown]
# ## What the paper had
#
# FiD reports 48.2 (base) and 51.4 (large) on NQ-open with 100 passages. Its successor distils the
# reader's attention into the retriever {cite:p}`izacard2021distilling`, which the evidence figure
# above hints at: the reader knows which passage it needed.
#
# ## Exercises
#
# ```{exercise}
# :label: ex-fid-one
# What are FiD, RAG-Sequence and RAG-Token when there is one passage?
# ```
#
# ```{solution} ex-fid-one
# :class: dropdown
# The same plain reader: there is nothing to fuse and nothing to sum over.
# ```
#
# ```{exercise}
# :label: ex-fid-posterior
# Leave one passage out and score the answer again. Which passages' absence hurts, and is the order
# of those losses the order of the attention?
# ```
