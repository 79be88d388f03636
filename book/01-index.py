# %% [markdown]
# # The Wikipedia index
#
# Every method in this book looks for its evidence in the same place: some two thousand short
# passages, each turned into a vector, searched by inner product. This chapter builds that index, opens it,
# breaks it and finds the damage. The same code and the same files carry 21 million passages
# ({doc}`09-scale`).
#
# ## The problem
#
# A language model's knowledge sits in its weights: it cannot be read, dated or corrected there. A
# *non-parametric* memory keeps the knowledge as text and gives the model a way to look things up.
# What the unit of look-up should be is a choice. {cite:t}`karpukhin2020dpr` cut Wikipedia into
# disjoint blocks of 100 words, and nearly everyone has followed: a block is long enough to hold a
# fact with its context, and short enough that one vector can stand for it.

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
# near neighbours, so that a question about one film director has five other directors to get lost
# among. Every question can be understood without its passage; some describe what they ask about and do
# not name it, and some need two passages. Questions are split **by article**: what is asked in the test
# split was never asked, in any wording, while the readers were trained.

# %%
for split in ("train", "dev", "test"):
    asked = load_questions("miniwiki", split)
    print(
        f"{split:<6}{len(asked):>5}",
        dict(Counter(question.kind for question in asked)),
    )

# %% [markdown]
# ### What a corpus must be
#
# The methods ask little of a corpus, but they ask it. A passage has to make sense by itself, for it is
# read without its neighbours: hence the title, which every reader sees in front of the text. It has
# to fit into what a reader reads at once. It needs a name that stays, or no evidence could be traced
# and nothing replaced ({doc}`08-changed-knowledge`). For answering, a fact must stand somewhere once,
# in words; what is only in a table or in two passages together is out of reach for most methods
# ({doc}`07-side-by-side`). For REALM's pre-training it must stand *twice*, since a hidden word can only
# be found in another passage than its own ({doc}`04-realm`). And the memory of kNN-LM profits from
# text of the same kind as what is to be predicted ({doc}`03-knn-lm`).
#
# ## The idea in one picture
#
# An encoder $E$ maps a passage $z$ and a question $x$ to vectors of the same space, and the score of
# the passage is their inner product,
#
# $$ s(x, z) = E(x)^\top E(z). $$ (score)
#
# Passages of one family lie close together, which is what makes them easy to confuse.

# %% mystnb={"figure": {"caption": "Inner products between the first passages of nine articles. The bright blocks are families: what makes a corpus hard is not its size but its near neighbours.", "alt": "Heat map of inner products between nine passages; passages of the same family score higher with each other"}}
encoder = load_encoder()
wanted = [
    "Louis XIV", "Louis XVI", "Henry VIII", "Chess", "Go (game)", "Backgammon",
    "Suez Canal", "Panama Canal", "Corinth Canal",
]  # fmt: skip
chosen = [next(p for p in corpus if p.title == title) for title in wanted]
vectors = encoder.encode_passages(chosen)
figures.heat_map(
    vectors @ vectors.T, rows=wanted, columns=wanted, label="inner product"
)

# %% [markdown]
# ## Building it
#
# The encoder is `all-MiniLM-L6-v2` {cite:p}`reimers2019sbert`: a small BERT whose last states are
# averaged over the text and scaled to length 1. It comes as a file, and a file can be wrong; so its
# SHA-256 is checked before it is used, and written into the index's manifest.

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
# The folder is written under a hidden name and renamed when it is whole, so a build that is killed
# leaves nothing that opens, and the next build goes on from its last shard. Opening an index checks
# sizes, versions and checksums of what is small; `verify` reads every byte. One flipped bit in the middle of the passages is
# found:

# %%
print("problems before:", verify(folder))
passages = folder / "passages.arrow"
content = bytearray(passages.read_bytes())
content[len(content) // 2] ^= 1
passages.write_bytes(content)
print("problems after: ", len(verify(folder)))
content[len(content) // 2] ^= 1
passages.write_bytes(content)
print("mended:         ", verify(folder))

# %% [markdown]
# ## Searching it
#
# For the bundled corpus the search is *exact*: every passage is compared. Approximate indexes trade
# recall for speed and belong to millions of passages; with two thousand they would only blur the
# comparison of methods. What Faiss returns is what a plain matrix product gives:

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

# %% [markdown]
# An index can only be searched with the encoder that built it; another one would give numbers
# without meaning. Trying it is refused with both names.

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
# ## What moves it
#
# How often does the gold passage come first, and how much do the next ones add? This is the ceiling
# of every method that reads k passages.

# %% mystnb={"figure": {"caption": "Share of MiniWiki's dev questions whose gold passage is among the k best.", "alt": "Recall at k rising with k"}}
dev = load_questions("miniwiki", "dev")
_, positions = whole.search(encoder.encode_queries([q.text for q in dev]), 20)
gold = [whole.corpus.position(str(q.gold_passage)) for q in dev]
recall = {
    k: float(
        np.mean(
            [
                g in row[:k]
                for g, row in zip(gold, positions.tolist(), strict=True)
            ]
        )
    )
    for k in (1, 2, 5, 10, 20)
}
figures.recall_curve({"dense": recall})

# %% tags=["remove-input"]
found_later = (recall[5] - recall[1]) / (1 - recall[1])
Markdown(
    f"Near neighbours cost the first place: of the {cut_off(1 - recall[1])} % of questions that miss it, "
    f"{cut_off(found_later)} % find their passage by the fifth."
)

# %% [markdown]
# ## What the papers had
#
# {cite:t}`karpukhin2020dpr` index 21,015,324 passages of 100 words and find an answer among the 20
# best for four NQ questions in five; at one vector of 768 float32 numbers a passage, that is 64 GB
# before any compression. Our index fits into three megabytes, and its questions were written from its
# passages: numbers here compare *methods*, not retrievers across corpora.
#
# ## Exercises
#
# ```{exercise}
# :label: ex-cosine
# The vectors have length 1. Which other two similarity functions would give exactly the same
# ranking, and why?
# ```
#
# ```{solution} ex-cosine
# :class: dropdown
# Cosine, which is the inner product itself at length 1, and negative squared L2 distance, since
# $\lVert a - b \rVert^2 = 2 - 2 a^\top b$.
# ```
#
# ```{exercise}
# :label: ex-bytes
# How many bytes do the vectors of 21,015,324 passages take with 384 dimensions in float32?
# ```
#
# ```{solution} ex-bytes
# :class: dropdown
# $21{,}015{,}324 \times 384 \times 4 = 32{,}279{,}537{,}664$, about 32 GB.
# ```
