# %% [markdown]
# # The Wikipedia index
#
# Ask the index of this chapter *Which bridge was opened in 1883?*, and the passage that says so, on Brooklyn
# Bridge, comes fifth. Tower Bridge, which was opened eleven years later, comes first. Nothing is broken: every
# passage was compared with the question exactly, in a few lines of code that this chapter writes out. The
# chapter also discusses why the right passage may be only fifth, how often the first one is wrong, and why a method
# should read several.
#
# Every method in this book searches this index: about 1,800 short passages, each encoded as a vector and
# compared with the question by inner product. The chapter builds it, opens it, flips one bit in it and detects
# the damage. The same code and the same file format scale to 21 million passages ({doc}`09-scale`).
#
# ## The problem
#
# What a language model knows is spread over its weights, where it cannot be read, dated or corrected. A
# *non-parametric* memory keeps the knowledge as text and lets the model look it up. The unit of look-up
# is a design choice. {cite:t}`karpukhin2020dpr` cut Wikipedia into disjoint blocks of 100 words, and most
# later work does the same: a block is long enough to contain a fact with its context and short enough
# for one vector to represent it.

# %%
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from experiments import figures
from IPython.display import Markdown

from ragbook import load_corpus, load_questions
from ragbook.evaluation.statistics import cut_off
from ragbook.index import PassageIndex, build_index, verify
from ragbook.models import load_encoder

corpus = load_corpus("miniwiki")
print(f"{len(corpus)} passages from {len({p.title for p in corpus})} articles")
print(corpus[0].id, "|", corpus[0].title, "|", corpus[0].text[:80], "...")

# %% [markdown]
# The corpus is *MiniWiki*, an encyclopaedia written for this book. Its articles come in families of
# similar subjects, so a retriever asked about one film director has to tell that director from several
# others. Every question makes sense without its passage. Some describe their subject instead of naming it
# (*indirect*), some have a rival passage that says the same kind of thing about something else
# (*confusable*), and some need two passages. The questions are split **by article**: no question that
# trained the readers is about an article that the test split asks about.

# %%
for split in ("train", "dev", "test"):
    asked = load_questions("miniwiki", split)
    print(
        f"{split:<6}{len(asked):>5}",
        dict(Counter(question.kind for question in asked)),
    )

# %% [markdown]
# ### What a corpus needs
#
# The methods make a few demands on a corpus. A passage has to make sense by itself, because it is read
# without its neighbours; this is why every reader sees the title in front of the text. It has to fit into
# a reader's input. It needs a permanent id: without one, evidence could not be traced, nor passages
# replaced ({doc}`08-changed-knowledge`). To be found as an answer, a fact has to be stated in the words of
# at least one passage: a fact that appears only in a table is lost, and questions that need two passages
# are answered much less often ({doc}`07-side-by-side`). For REALM's pre-training, a fact has to occur
# *twice*, since a hidden word can be found only in a passage other than its own ({doc}`04-realm`).
# kNN-LM's memory helps most if it contains the same kind of text as the text to be predicted
# ({doc}`03-knn-lm`).
#
# ## The idea in one picture
#
# An encoder $E$ maps a passage $z$ and a question $x$ to vectors in the same space, and the score of
# the passage is their inner product,
#
# $$ s(x, z) = E(x)^\top E(z). $$ (score)
#
# Passages of one family lie close together, which makes them easy to confuse.

# %% mystnb={"figure": {"caption": "Inner products between the first passages of nine articles. The blocks along the diagonal, where the products are high, are families: kings, board games and canals. What makes a corpus hard to search is its near neighbours.", "alt": "Heat map of inner products between nine passages; passages of the same family score higher with each other"}}
encoder = load_encoder()
families = {
    "kings": ["Louis XIV", "Louis XVI", "Henry VIII"],
    "board games": ["Chess", "Go (game)", "Backgammon"],
    "canals": ["Suez Canal", "Panama Canal", "Corinth Canal"],
}
wanted = [title for titles in families.values() for title in titles]
chosen = [next(p for p in corpus if p.title == title) for title in wanted]
vectors = encoder.encode_passages(chosen)
products = vectors @ vectors.T
figures.heat_map(products, rows=wanted, columns=wanted, label="inner product")

# %% tags=["remove-input"]
family = np.repeat(np.arange(3), 3)
same = family[:, None] == family
others = ~np.eye(len(wanted), dtype=bool)
Markdown(
    "Two passages of one family have an inner product of at least "
    f"{np.floor(100 * products[same & others].min()) / 100:.2f}, two of different "
    f"families at most {np.ceil(100 * products[~same].max()) / 100:.2f}."
)

# %% [markdown]
# ## Exact search in ten lines
#
# Take three passages and one question as unit vectors in two dimensions. The scores can be checked by hand:
# $1 \cdot 0.6$, then $0.8 \cdot 0.6 + 0.6 \cdot 0.8$, then $1 \cdot 0.8$.

# %%
toy_passages = np.array([[1, 0], [0.8, 0.6], [0, 1]], dtype=np.float32)
toy_question = np.array([[0.6, 0.8]], dtype=np.float32)
toy_scores = toy_question @ toy_passages.T
nearest = np.argsort(-toy_scores, axis=1, kind="stable")[:, :2]
print("passages [N, d] =", toy_passages.shape)
print("question [B, d] =", toy_question.shape)
print("scores   [B, N] =", toy_scores.shape, toy_scores[0].round(2))
print("the best two    =", nearest[0])

# %% [markdown]
# That is all an exact index computes. The package leaves the multiplication to Faiss
# {cite:p}`johnson2021faiss`, which searches in blocks and never holds all scores in memory. Here is its
# index of the same three vectors:

# %%
import faiss

flat = faiss.IndexFlatIP(2)
flat.add(toy_passages)
for found in flat.search(toy_question, 2):
    print(found.round(2))

# %% [markdown]
# ## Building it
#
# The encoder is `all-MiniLM-L6-v2` {cite:p}`reimers2019sbert`: a small BERT whose final states are
# averaged over the text and scaled to length 1, so that the inner product of two vectors is their cosine. The file
# of its weights could be incomplete or altered, so its SHA-256 is checked before use and recorded in the index's
# manifest.

# %%
print(encoder.id, encoder.dimension, encoder.pooling, encoder.metric)
print(encoder.sha256)

# %%
folder = Path(tempfile.mkdtemp()) / "index"
small = type(corpus)("miniwiki-extract", corpus[:48])
index = build_index(small, folder, encoder, progress=False)
for name, entry in index.manifest["files"].items():
    print(f"{name:<16} {entry['bytes']:>8} bytes")
print(
    index.manifest["corpus"]["passages"],
    "passages,",
    index.manifest["index"]["type"],
)

# %% [markdown]
# The folder is written under a hidden name and renamed once it is complete. A build that is killed
# therefore leaves nothing that could be opened, and the next build resumes after its last finished shard.
# Opening an index checks the sizes, the versions and the checksums of the small files; `verify` reads
# every byte. It finds a single flipped bit in the middle of the passages:

# %%
print("problems before:", verify(folder))
passages = folder / "passages.arrow"
content = bytearray(passages.read_bytes())
content[len(content) // 2] ^= 1
passages.write_bytes(content)
print("problems after: ", len(verify(folder)))
content[len(content) // 2] ^= 1
passages.write_bytes(content)
print("restored:       ", verify(folder))

# %% [markdown]
# ## Searching it
#
# The search in the bundled corpus is *exact*: every passage is compared with the question. Approximate
# indexes trade recall for speed, which pays off with millions of passages. With 1,800, they would only add
# noise to the comparison of methods. Faiss returns what the ten lines above return:

# %%
index = PassageIndex.open(folder)
questions = [
    "Which bridge was opened in 1883?",
    "Which game is played with black and white stones?",
]
queries = encoder.encode_queries(questions)
scores, positions = index.search(queries, 3)
by_hand = np.argsort(
    -(queries @ encoder.encode_passages(list(small)).T), axis=1
)[:, :3]
print((positions == by_hand).all())

# %%
whole = build_index(corpus, Path("../build/index"), encoder, progress=False)
scores, positions = whole.search(
    encoder.encode_queries(["Which bridge was opened in 1883?"]), 5
)
for score, position in zip(scores[0], positions[0], strict=True):
    passage = whole.corpus[int(position)]
    print(f"{score:.3f}  {passage.title}: {passage.text[:60]}...")

# %% tags=["remove-input"]
texts = [whole.corpus[int(position)].text for position in positions[0]]
place = 1 + ["1883" in text for text in texts].index(True)
bridges = sum("bridge" in text.lower() for text in texts)
Markdown(
    f"The passage that states the year 1883 is number {place} of the list. The encoder compares "
    f"meanings, and {bridges} of the five passages mention a bridge. The year is one token of many whose "
    "states are averaged into the vector, which may be why it counts for little (this was not tested)."
)

# %% [markdown]
# An index can be searched only with the encoder that built it, because vectors of different encoders are not
# comparable. It refuses another encoder and names both:

# %%
from ragbook.errors import InputError

stranger = load_encoder()
stranger.id, stranger.sha256 = "somebody/else", "0" * 64
try:
    whole.check_encoder(stranger)
except InputError as error:
    print(
        "refused, naming both:",
        stranger.id in str(error) and encoder.id in str(error),
    )

# %% [markdown]
# ## What affects it
#
# The *gold passage* is the one that a question was written from. How often is it among the first $k$? A
# method that reads $k$ passages can hardly answer a larger share of the questions.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Share of MiniWiki's dev questions whose gold passage is among the k best. Most of what one passage misses, five passages contain.", "alt": "Recall at k rising with k"}}
dev = load_questions("miniwiki", "dev")
_, positions = whole.search(encoder.encode_queries([q.text for q in dev]), 20)
gold = np.array([whole.corpus.position(str(q.gold_passage)) for q in dev])
recall = {
    k: float((positions[:, :k] == gold[:, None]).any(1).mean())
    for k in (1, 2, 5, 10, 20)
}
figures.recall_curve({"dense": recall})

# %% tags=["remove-input"]
found_later = (recall[5] - recall[1]) / (1 - recall[1])
assert found_later > 0.5  # the caption
first, missed = positions[:, 0], positions[:, 0] != gold
same_article = float(
    np.mean(
        [
            corpus[int(a)].title == corpus[int(b)].title
            for a, b in zip(first[missed], gold[missed], strict=True)
        ]
    )
)
Markdown(
    f"n = {len(dev)} questions. Of the {cut_off(1 - recall[1])} % whose gold passage is not ranked first, "
    f"{cut_off(found_later)} % have it among the first five, and for {cut_off(same_article)} % the "
    "first passage is another passage of the same article: near neighbours cost the first place."
)

# %% [markdown]
# ## What the papers report
#
# {cite:t}`karpukhin2020dpr` index 21,015,324 passages of 100 words. For four of five questions of Natural Questions,
# the 20 best passages contain an answer. With one vector of 768 float32 numbers per passage, the
# index takes 64 GB before any compression. Ours takes three megabytes, and the questions were written from
# its passages: use the numbers here to compare *methods*, not retrievers across corpora.
#
# ## What to remember
#
# The corpus is cut into passages of at most about 100 words, each with a permanent id and its title.
# An encoder turns each passage into one vector, once; a question is encoded when it is asked, and the
# passages with the largest inner products are returned. An index belongs to one encoder, which its manifest
# names. Where the gold passage is not first, the first is mostly another of the same article, which is one reason to
# read several passages.
#
# ## Exercises
#
# <!-- exercise: ex-blocks -->
# **Exercise.** Write the function that cuts a text into disjoint blocks of at most `size` words. No word may be lost,
# and only the last block may be shorter.
#
# <!-- end of exercise -->


# %%
from exercises import index as check


def my_blocks(text, size):
    raise NotImplementedError


check.blocks(my_blocks)

# %% [markdown]
# <!-- solution: ex-blocks -->
# <details>
# <summary>Solution</summary>
#
# The words from 0 to size, from size to 2 size, and so on: a `range` with the step `size`, and a slice
# at each of its numbers. It is written out in `book/solutions/01-index.py`.
#
# </details>
#
# <!-- exercise: ex-search -->
# **Exercise.** Faiss never holds all scores in memory. Write exact search in blocks: given the vectors of the
# questions [B, d] and of the passages [N, d], of which at most 64 may be read at a time, return the scores [B, k]
# and the positions [B, k] of the k passages with the largest inner product, the largest first. Hold no more than
# [B, k + 64] scores. Of passages with equal scores, the first in the corpus comes first. Why does the order in
# which you join a block to the best so far matter for this?
#
# <!-- end of exercise -->


# %%
def my_search(queries, vectors, k):
    raise NotImplementedError


check.search(my_search)

# %% [markdown]
# <!-- solution: ex-search -->
# <details>
# <summary>Solution</summary>
#
# Read `vectors[first : first + 64]`, put its scores *behind* the best so far, and keep the first k of a *stable*
# `argsort` of the negative scores. The best so far come earlier in the corpus, so they have to be in front: a
# stable sort leaves equal scores in the order in which they were joined. It is written out in
# `book/solutions/01-index.py`.
#
# </details>
#
# <!-- exercise: ex-distance -->
# **Exercise.** The vectors have length 1, and a passage's inner product with a question is 0.8. What is their
# squared L2 distance? What is the inner product of a passage at distance 1? Why may the index use either measure?
#
# <details>
# <summary>Solution</summary>
#
# $\lVert a - b \rVert^2 = 2 - 2 a^\top b$, so the squared distance is 0.4, and the inner product is 0.5. The
# distance falls as the inner product rises, so the ranking is the same.
#
# </details>
#
# <!-- exercise: ex-bits -->
# **Exercise.** How many bits per number are left if the vectors of 21,015,324 passages, with 384 dimensions, have
# to fit into 8 GB?
#
# <details>
# <summary>Solution</summary>
#
# $8 \cdot 10^9 \cdot 8 / (21{,}015{,}324 \cdot 384) = 7.93$, not quite one byte per number instead of four.
# {doc}`09-scale` needs far less than that.
#
# </details>

# %% [markdown]
# ## Where next
#
# * *In the paper:* section 4.1 of {cite:t}`karpukhin2020dpr` says how Wikipedia became 21 million passages.
# * *In this book:* {doc}`02-retrievers` sets BM25 beside this encoder and trains the encoder;
#   {doc}`09-scale` compresses the vectors and searches only some of them.
# * *Later work:* {cite:t}`douze2024faiss` describe Faiss's indexes and how to choose one.
#   KILT {cite:p}`petroni2021kilt` gives many tasks one common index of Wikipedia, as this book does with its methods.
