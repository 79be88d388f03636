# %% [markdown]
# # Side by side
#
# Six systems, one index, one retriever, one set of questions. This is the comparison the book
# exists for. The full run over MiniWiki's test split is made by `make book`, which writes its
# results beside this page; the page reads them, looks at them from several sides, and re-runs a
# sample of the questions to see that the stored predictions are what the methods say today.

# %%
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from ragbook import figures, load_corpus, load_questions, methods
from ragbook.evaluation import compare
from ragbook.index import build_index
from ragbook.models import load_encoder
from ragbook.retrieval import DenseRetriever

results = json.loads(Path("results/results.json").read_text())
lines = Path("results/predictions.jsonl").read_text().splitlines()
predictions = [json.loads(line) for line in lines]
names = list(results["methods"])
print(results["questions"]["n"], "questions, k =", results["k"])

# %% mystnb={"figure": {"caption": "Exact match and F1 with 95 % bootstrap intervals. The dotted line is what retrieval allows: how often the gold passage was there.", "alt": "Exact match and F1 of closed-book, kNN-LM, REALM, RAG-Sequence, RAG-Token and FiD"}}
figures.side_by_side(results)

# %% [markdown]
# ## What is held equal, and what is not
#
# The passages, the retriever, the questions and k are the same for all. Closed book, RAG-Sequence,
# RAG-Token and FiD share one seq2seq reader; REALM shares its encoder and puts a span scorer in
# place of the decoder; kNN-LM needs a left-to-right model and starts from the same embedded encoder.
# At last each method that reads passages was trained a few minutes further on its own likelihood,
# which moved nothing but the decoder's biases and layer norms, or the span scorer. REALM can only
# answer with a run of words of a passage; the comparison holds the methods that write to the same
# (`ragbook compare --free` lets them write what they like), so that a name with a piece missing is
# not counted as a difference between methods. What they believe, their probabilities, is left
# alone. The bundled readers are small and were trained in a good hour on two cores, so the levels
# say little about the methods' papers; the *differences on the same
# questions* are the point.

# %%
columns = ("em", "f1", "recall_at_k", "evidence_accuracy", "answer_nll", "parameters")
table = pd.DataFrame({name: {c: results["methods"][name][c] for c in columns} for name in names}).T
table.astype(float).round(3)

# %% [markdown]
# `answer_nll` is $-\log p(y \mid x)$ in nats for the first reference answer. A span reader gives an
# answer that no retrieved passage holds the probability zero; where that happens REALM has no mean,
# and `results.json` says the mean over the others and how many they are: where retrieval fails, a
# reader that extracts can only be wrong, while one that writes is merely unsure.

# %% [markdown]
# ## Is a difference real?
#
# Methods answer the same questions, so differences are tested in pairs: a bootstrap interval of the
# difference, and a permutation test that flips which method got which answer. Positive numbers
# favour the first name.

# %%
paired = pd.DataFrame([p for p in results["paired"] if p["metric"] == "em"])
paired["low"], paired["high"] = zip(*paired.pop("ci95"), strict=True)
paired[["a", "b", "difference", "low", "high", "p"]].round(3)

# %% [markdown]
# ## Who is right together?
#
# For each pair, the share of all questions on which both methods are right or both are wrong. High
# agreement means that a second method adds little; what is left over is what an ensemble could win.

# %% mystnb={"figure": {"caption": "Agreement: how often two methods are right or wrong together.", "alt": "Heat map of agreement between the six methods"}}
right = {m: np.array([p["methods"][m]["em"] for p in predictions], dtype=bool) for m in names}
agreement = np.array([[np.mean(right[a] == right[b]) for b in names] for a in names])
figures.heat_map(agreement, rows=names, columns=names, label="share of questions in agreement")

# %%
readers = ["realm", "rag-sequence", "rag-token", "fid"]
alone = Counter(
    next(m for m in readers if right[m][i])
    for i in range(len(predictions))
    if sum(right[m][i] for m in readers) == 1
)
for name in readers:
    print(f"{name:<14} alone right on {alone[name]} questions")
print(
    "none right on",
    int(sum(not any(right[m][i] for m in readers) for i in range(len(predictions)))),
)
print(
    "at least one on", int(sum(any(right[m][i] for m in readers) for i in range(len(predictions))))
)

# %% [markdown]
# ## Where did the answer come from?
#
# Each method names its evidence in its own way: REALM and RAG by the posterior
# $p(z \mid x, y) \propto p(z \mid x)\, p(y \mid x, z)$, FiD by the decoder's attention, kNN-LM by the
# mass of each passage's neighbours. When the heaviest passage is the gold one, is the answer more
# often right?

# %% mystnb={"figure": {"caption": "Exact match when the heaviest passage is the gold one, and when it is not. An answer can be right without the gold passage if another passage tells the same.", "alt": "Bars of exact match by whether the evidence is the gold passage"}}
bars = {}
for name in readers:
    found = np.array(
        [
            max(p["methods"][name]["evidence"], key=lambda e: e["weight"])["passage_id"]
            == p["gold_passage"]
            for p in predictions
        ]
    )
    bars[f"{name}, gold"] = 100 * float(right[name][found].mean())
    bars[f"{name}, other"] = 100 * float(right[name][~found].mean())
figures.bars(bars, xlabel="exact match (%)")

# %% [markdown]
# ## Is the probability honest?
#
# A method that says $p(y \mid x)$ can be asked whether it means it. Answers are sorted by the
# probability the method gave them and cut into five groups; in an honest method the share of right
# answers equals the mean probability (the diagonal).

# %% mystnb={"figure": {"caption": "Calibration: mean probability of the answer against the share that is right, in five groups of equal size.", "alt": "Calibration curves of REALM, RAG-Sequence, RAG-Token and FiD with the diagonal"}}
curves = {"honest": {0.0: 0.0, 1.0: 1.0}}
for name in readers:
    p = np.exp([q["methods"][name]["log_prob"] for q in predictions])
    groups = np.array_split(np.argsort(p, kind="stable"), 5)
    curves[name] = {float(p[g].mean()): float(right[name][g].mean()) for g in groups}
figures.lines(curves, "mean probability of the answer", "share right")

# %% [markdown]
# ## Numbers, names, and the rest
#
# Copying a year is easier than copying a name that the tokenizer cuts into five pieces.


# %%
def kind(answer):
    if any(c.isdigit() for c in answer):
        return "number"
    return "name" if answer[:1].isupper() else "word"


kinds = np.array([kind(p["answers"][0]) for p in predictions])
rows = {}
for which in ("name", "number", "word"):
    chosen = kinds == which
    rows[which] = {"n": int(chosen.sum())} | {
        m: float(right[m][chosen].mean().round(3)) for m in readers
    }
pd.DataFrame(rows).T

# %% [markdown]
# ## The same questions, live
#
# The first questions of the split again, through all six methods, here and now. Their answers must
# be the stored ones.

# %%
corpus, encoder = load_corpus("miniwiki"), load_encoder()
index = build_index(corpus, Path("../build/index"), encoder, progress=False)
retriever = DenseRetriever(index, encoder)
sample = load_questions("miniwiki", "test").head(16)
live = compare(methods.load(methods.NAMES, retriever), sample, k=results["k"], progress=False)
same = [
    now["methods"][m]["text"] == then["methods"][m]["text"]
    for now, then in zip(live.predictions, predictions, strict=False)
    for m in names
]
print(f"{sum(same)} of {len(same)} answers are the stored ones")
assert np.mean(same) > 0.95  # another processor may round a near tie the other way

# %%
for now in live.predictions[:4]:
    print(now["question"], "|", " / ".join(now["answers"][:2]))
    for name in names:
        entry = now["methods"][name]
        print(f"   {name:<14} {'+' if entry['em'] else '-'} {entry['text']}")

# %% [markdown]
# ## Exercises
#
# ```{exercise}
# :label: ex-interval
# The intervals of two methods overlap, and yet their paired test is significant. How can that be?
# ```
#
# ```{solution} ex-interval
# :class: dropdown
# The intervals hold the spread between questions, which both methods share: hard questions are hard
# for both. The paired difference has that spread taken out.
# ```
#
# ```{exercise}
# :label: ex-own-data
# Run the comparison on passages of your own: `ragbook compare --corpus P --questions Q --out R`.
# Which method loses most when k goes from 5 to 1, and which least?
# ```
