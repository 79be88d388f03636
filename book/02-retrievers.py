# %% [markdown]
# # Retrievers
#
# ## The problem
#
# A question and the passage that answers it share meaning, and often not words. Two families of
# retrievers take two views: *lexical* ones count shared words and weigh rare ones more, *dense* ones
# compare vectors that an encoder made. All five methods of the book stand on one of them, behind one
# call: `retrieve(questions, k)`.

# %% [markdown]
# ```{note}
# What this chapter reads from `dpr.json` was measured on the questions of MiniWiki's second edition, with
# the readers of that time. What is computed on the page, and the two tables of {doc}`chapter 7 <07-side-by-side>`, are of the third.
# ```

# %%
import inspect
import json
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from experiments import figures
from experiments.report import percent
from IPython.display import Markdown

from ragbook import load_corpus, load_questions
from ragbook.corpus import Corpus
from ragbook.evaluation import recall_at_k
from ragbook.evaluation.names import listed
from ragbook.index import build_index
from ragbook.models import Encoder, load_encoder
from ragbook.retrieval import BM25Retriever, DenseRetriever, OracleRetriever

corpus, encoder = load_corpus("miniwiki"), load_encoder()
index = build_index(corpus, Path("../build/index"), encoder, progress=False)
dense, bm25 = DenseRetriever(index, encoder), BM25Retriever(corpus)
oracle = OracleRetriever(corpus, dense)
questions = list(load_questions("miniwiki", "test").head(200))
# The first question that the two retrievers read differently: the gold passage is the first one for the
# dense retriever, and not for BM25.
question = next(
    q
    for q in questions
    if dense.retrieve([q], 1)[0].ids[0]
    == q.gold_passage
    != bm25.retrieve([q], 1)[0].ids[0]
)
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
    curves[retriever.name] = {
        k: recall_at_k(questions, found, k) for k in (1, 2, 5, 10, 20)
    }
figures.recall_curve(curves)

# %% [markdown]
# ## Counting words: TF-IDF and BM25
#
# Let $f(w, z)$ be how often the word $w$ stands in the passage $z$, and $n_w$ how many of the $N$
# passages hold it. A word that few passages hold tells more:
#
# $$ \mathrm{idf}(w) = \ln\left(1 + \frac{N - n_w + 1/2}{n_w + 1/2}\right). $$ (idf)
#
# **TF-IDF** gives a passage the vector with the entries $f(w, z)\,\mathrm{idf}(w)$, a question one
# likewise, and takes the cosine of the two. **BM25** {cite:p}`robertson2009bm25` changes what a count
# is worth: the second mention of a word adds less than the first, and a long passage must mention it
# more often,
#
# $$ s(x, z) = \sum_{w \in x} \mathrm{idf}(w) \, \frac{f(w, z)}{f(w, z) + k_1\left(1 - b + b\,|z| / \overline{|z|}\right)}, $$ (bm25)
#
# with $k_1 = 1.2$ and $b = 0.75$. (Many texts have a factor $k_1 + 1$ over the fraction. It is the
# same for every word and every passage, so no ranking changes with it; Lucene leaves it out, and so
# does the package.)

# %% mystnb={"figure": {"caption": "What a word's count is worth, as a multiple of its idf, in a passage of average length: the raw count grows without end, BM25's fraction never reaches 1.", "alt": "The raw count grows linearly with the number of mentions, BM25's weight flattens"}}
from ragbook.retrieval.bm25 import K1, B, terms

counts = range(0, 9)
figures.lines(
    {
        "count": {n: n for n in counts if n < 3},
        "BM25": {n: n / (n + K1) for n in counts},
    },
    "times the word stands in the passage",
    "worth",
)

# %% [markdown]
# Both in matrix form, over all passages, and BM25 against the package's own scores:

# %%
documents = terms([f"{passage.title} {passage.text}" for passage in corpus])
column = {
    word: n for n, word in enumerate(sorted({w for d in documents for w in d}))
}
f = np.zeros((len(corpus), len(column)), dtype=np.float32)
for row, document in enumerate(documents):
    for word in document:
        f[row, column[word]] += 1
n = (f > 0).sum(0)
idf = np.log1p((len(corpus) - n + 0.5) / (n + 0.5)).astype(np.float32)
length = f.sum(1, keepdims=True)
by_bm25 = idf * f / (f + K1 * (1 - B + B * length / length.mean()))
by_tfidf = f * idf
by_tfidf /= np.linalg.norm(by_tfidf, axis=1, keepdims=True)

asked = np.zeros((len(questions), len(column)), dtype=np.float32)
for row, words in enumerate(terms([q.text for q in questions])):
    for word in words:
        if word in column:
            asked[row, column[word]] += 1
print(
    "BM25 agrees:",
    np.allclose(
        asked[0] @ by_bm25.T, bm25.scores(questions[0].text), atol=1e-4
    ),
)
gold = np.array([corpus.position(str(q.gold_passage)) for q in questions])
for name, scores in (
    ("TF-IDF", (asked * idf) @ by_tfidf.T),
    ("BM25", asked @ by_bm25.T),
):
    better = (scores > scores[np.arange(len(gold)), gold][:, None]).sum(1)
    print(
        f"{name:<7} gold passage first: {(better < 1).mean():.2f}, in five: {(better < 5).mean():.2f}"
    )

# %% [markdown]
# ## The dual encoder
#
# A *dual encoder* has two towers: $E_P$ reads passages, $E_Q$ reads questions, and neither sees the
# other's text. That is what makes an index possible: $E_P$ has read all passages before anyone asks.
# The score is a similarity of two vectors,
#
# $$ s(x, z) = \mathrm{sim}\bigl(E_Q(x), E_P(z)\bigr). $$ (dual)
#
# The encoder that this book uses throughout, MiniLM, has one tower for both. DPR
# {cite:p}`karpukhin2020dpr` has two, each a BERT whose state over `[CLS]` is the vector:
# `load_encoder("facebook/dpr-ctx_encoder-single-nq-base")` loads them, once they are downloaded.

# %%
print("one tower:", encoder.passage_model is encoder.query_model)
print(encoder.pooling, "of the states,", encoder.similarity, "of the vectors")

# %% [markdown]
# ### Three similarities
#
# With $e_x = E_Q(x)$ and $e_z = E_P(z)$,
#
# $$ \text{dot: } e_x^\top e_z, \qquad \text{cosine: } \frac{e_x^\top e_z}{\lVert e_x\rVert \lVert e_z\rVert}, \qquad \text{L2: } -\lVert e_x - e_z\rVert^2. $$ (similarities)
#
# For vectors of length 1 the three give one ranking, since $\lVert e_x - e_z \rVert^2 = 2 - 2\,e_x^\top e_z$.
# For others they do not: dot products prefer long passage vectors, and L2 is
# $2\,e_x^\top e_z - \lVert e_z \rVert^2$ up to a constant per question; the squared norm penalises long
# vectors. Faiss has an index of inner products, which serves the first two (for the cosine the
# encoder scales its vectors first), and one of L2 distances. The index's manifest says which it is,
# and greater is better under all three. Here MiniLM's own vectors, before they are scaled to length 1,
# for the same 96 passages:

# %%
small = Corpus("miniwiki-extract", corpus[:96])
near = [
    q
    for q in load_questions("miniwiki", "train")
    if str(q.gold_passage) in {p.id for p in small}
]
first, folder = {}, Path(tempfile.mkdtemp())
for similarity in ("dot", "cosine", "l2"):
    plain = Encoder(
        encoder.model,
        encoder.tokenizer,
        encoder.id,
        encoder.sha256,
        1.0,
        similarity=similarity,
    )
    built = build_index(small, folder / similarity, plain, progress=False)
    vectors = plain.encode_queries([q.text for q in near])
    scores, positions = built.search(vectors, 1)
    stored = built.vectors(np.arange(len(small))).astype(np.float64)
    if similarity == "l2":
        exact = -((vectors[:, None] - stored[None]) ** 2).sum(-1)
    else:
        exact = vectors @ stored.T
    first[similarity] = positions[:, 0]
    print(
        f"{similarity:<7}", built.manifest["index"]["type"],
        f" as numpy's: {np.allclose(scores[:, 0], exact.max(1), atol=1e-3)}",
        f" first place as by dot: {(first[similarity] == first['dot']).mean():.2f}",
    )  # fmt: skip

# %% [markdown]
# MiniLM was trained for the cosine. Whichever similarity an encoder was trained for is the one to
# search with, and an index refuses an encoder that would compare otherwise.
#
# ## DPR's training
#
# Nobody has labelled which passages are *wrong* for a question, so wrong ones have to be found.
# DPR takes them from two places. The other questions' passages in a batch come at no cost, since
# they are encoded anyway: these are the *in-batch negatives*. They are mostly about something else,
# and easily told apart. So each question brings one *hard negative*: a passage that BM25 ranks high
# and that does not hold an answer.

# %%
from ragbook.training import contrastive, dpr

train = load_questions("miniwiki", "train")
shown = dpr.pairs(corpus, train.head(400), hard_negatives=1)
for pair in shown[:4]:
    print(pair.question.text)
    print(f"   right {pair.passage.id}, hard negative {pair.negatives[0].id}")

# %% [markdown]
# A batch of $B$ questions then has up to $2B$ passages, and every question is scored with all of them.
# A passage that holds an answer to another's question is not counted as its negative: pushing it
# away would teach what is wrong. (Two questions of a batch may even have one right passage.)

# %% mystnb={"figure": {"caption": "Cosines of six questions with the passages of their batch. The first of each pair of columns is the question's own passage, the second its hard negative: the diagonal has to win, and its right neighbour is what disputes it.", "alt": "Heat map of scores, brightest near the diagonal"}}
batch = dpr.batch_of(shown[:6])
with torch.no_grad():
    cosines = encoder.scores(
        encoder.query_vectors(batch.questions),
        encoder.passage_vectors(batch.passages),
    )
figures.heat_map(
    cosines.numpy(), rows=[q[:34] for q in batch.questions], columns=[p.id for p in batch.passages],
    label="cosine",
)  # fmt: skip

# %% [markdown]
# ### Cross-entropy and hinge
#
# With $g$ the right column and $Z^-$ the negatives of a row of scores, DPR's loss is the cross-entropy
# of the right passage,
#
# $$ \mathcal{L} = -\log \frac{e^{s_g}}{e^{s_g} + \sum_{j \in Z^-} e^{s_j}}, \qquad
#    \frac{\partial \mathcal{L}}{\partial s_j} = \mathrm{softmax}(s)_j - [j = g], $$ (dpr)
#
# and the *hinge* (or triplet) loss asks for a margin $m$ over the hardest negative and for nothing
# more,
#
# $$ \mathcal{L} = \max\bigl(0,\; m - s_g + \max_{j \in Z^-} s_j\bigr). $$ (hinge)

# %%
print(inspect.getsource(contrastive.cross_entropy).split('"""')[-1])
print(inspect.getsource(contrastive.hinge).split('"""')[-1])

# %% [markdown]
# Three questions with their three passages. The first and the last lead by far, the second barely:

# %%
scores = torch.tensor(
    [[4.0, 1.0, 0.0], [0.5, 2.0, 1.8], [0.0, 1.0, 3.0]], requires_grad=True
)
gold, negatives = torch.arange(3), ~torch.eye(3, dtype=torch.bool)
for name, loss in contrastive.LOSSES.items():
    (gradient,) = torch.autograd.grad(loss(scores, gold, negatives), scores)
    each = [
        loss(scores[[i]], gold[[i]], negatives[[i]]).item() for i in range(3)
    ]
    print(f"{name:<14} losses {np.round(each, 3)}")
    print(np.round(3 * gradient.numpy(), 2))

# %% [markdown]
# Each row of gradients sums to zero: what the right passage gains, the others lose. The cross-entropy
# moves all scores, the more the likelier a mistake; the hinge is content with the first and the last
# question and moves two scores of the second.
#
# ### A short run
#
# The package's own recipe, cut to what a notebook can bear: two towers, of which the two upper layers
# train, and some 250 questions, each seen once. `ragbook train dpr` is the same function with all of
# MiniWiki's questions, a matter of minutes. The loss below is that of 32 *dev*
# questions among their passages and hard negatives, which the run does not see.

# %%
recipe = dpr.Recipe(
    steps=15, batch=16, frozen_layers=4, rate=1e-4, dtype="float32"
)
trained = dpr.train_dpr(shown, folder / "dpr", recipe, progress=False)
print("one tower:", trained.passage_model is trained.query_model)
held_out = dpr.batch_of(
    dpr.pairs(corpus, load_questions("miniwiki", "dev").head(32))
)
for name, towers in (("MiniLM", encoder), ("trained", trained)):
    with torch.no_grad():
        loss, _ = dpr.batch_loss(towers, held_out, recipe)
    print(f"{name:<8} loss {loss.item():.1f}")

# %% [markdown]
# Fifteen steps are a demonstration and no training; what whole runs give stands below. What the run
# wrote is an encoder like any other, with two towers: `ragbook index build --encoder DIR`
# makes its index, `ragbook compare --encoder DIR` compares the methods on it.

#
# ### What training gives
#
# Runs over all training questions, each shown once, one variant a run; recall on the test
# split's questions with 95 % bootstrap intervals. `python -m book.experiments.dpr
# book/results/dpr.json` trains them all.

# %%
measured = json.loads(Path("results/dpr.json").read_text(encoding="utf-8"))
rows = {}
for name, splits in measured.items():
    recall = splits["test"]["recall"]
    rows[name] = {
        f"recall@{k} (%)": percent(value) for k, value in recall.items()
    }
print("n =", measured["bm25"]["test"]["n"])
pd.DataFrame(rows).T


# %% tags=["remove-input"]
def by_recall(name):
    return measured[name]["test"]["recall"]["5"]["mean"]


gains = {
    name: 100
    * (by_recall(f"cross-entropy, {name}") - by_recall(f"untrained, {name}"))
    for name in ("cosine", "dot", "l2")
}
hinge, without, base = (
    100 * by_recall(name)
    for name in (
        "hinge, cosine",
        "cross-entropy, cosine, in-batch negatives only",
        "cross-entropy, cosine",
    )
)
Markdown(
    "By recall@5, training moves the encoder by "
    + listed([f"{gain:+.1f} points ({name})" for name, gain in gains.items()])
    + f". Beside the cross-entropy for the cosine, the hinge stands at {hinge - base:+.1f} points, and "
    f"in-batch negatives alone, without hard ones, at {without - base:+.1f}. The intervals above are "
    "those of single runs on one set of questions."
)

# %% [markdown]
# MiniLM was trained for the cosine and was never meant to be searched by the dot product, so there is most to
# learn there. The paper found hard negatives worth several points. Among 1,806 passages, many of them on
# related things, a batch of 32 may hold negatives that are hard enough without them.

# %% mystnb={"figure": {"caption": "Recall of the gold passage, test split. The trained encoders have seen all training questions with their passages; BM25 has seen none.", "alt": "Recall curves of BM25, the untrained encoder and three trained ones"}}
figures.recall_curve(
    {
        name: {
            int(k): v["mean"]
            for k, v in measured[name]["test"]["recall"].items()
        }
        for name in (
            "bm25",
            "untrained, cosine",
            "cross-entropy, cosine",
            "hinge, cosine",
            "cross-entropy, cosine, in-batch negatives only",
        )
    }
)

# %% [markdown]
# ## From scores to a distribution
#
# RAG and REALM need $p(z \mid x)$, not scores: a softmax over the k passages retrieved, of the scores
# times a scale $\alpha$,
#
# $$ p(z \mid x) = \frac{\exp\bigl(\alpha\, s(x, z)\bigr)}{\sum_{z'} \exp\bigl(\alpha\, s(x, z')\bigr)}. $$ (prior)
#
# The scale matters. Inner
# products of unit vectors lie between -1 and 1, and a softmax over them is nearly flat; the encoder
# was trained with a factor of 20, and with that factor the distribution means what it was trained to
# mean.

# %% mystnb={"figure": {"caption": "p(z | x) over the five best passages of one question, without and with the factor the encoder was trained with.", "alt": "Heat map of two priors over five passages"}}
found = dense.retrieve([question], 5)[0]
rows = {"scale 1": 1.0, "scale 20": dense.score_scale}
prior = np.stack(
    [
        torch.softmax(torch.from_numpy(found.scores) * s, 0)
        for s in rows.values()
    ]
)
figures.heat_map(
    prior, rows=list(rows), columns=list(found.ids), label="p(z | x)"
)

# %% [markdown]
# ## What the paper had
#
# DPR's released retriever finds an answer among the first 20 passages for 79.97 % of Natural
# Questions' test questions, among 21 million passages, and among the first 5 for 68.14 %; the same
# with negatives that the retriever itself found hard, 81.33 % and 72.24 %. MiniWiki is small and its
# questions were written from its passages, which favours every retriever, BM25 most.
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
#
# ```{exercise}
# :label: ex-lengths
# An encoder was trained for the dot product, and its index is searched by cosine. Which passages lose?
# ```
#
# ```{solution} ex-lengths
# :class: dropdown
# Those with long vectors. Training for the dot product can store in a vector's length how often its
# passage is right whatever is asked; the cosine divides it away.
# ```
