# %% [markdown]
# # Your own method
#
# ## The problem
#
# You have an idea of how to use retrieved passages, and you want to compare it with the methods of this book: on the
# same passages and questions, with the same retriever, and with intervals.
#
# ## The idea
#
# A method is an object with an interface of four parts. Every such object can be compared.
#
# | part | what it is |
# |---|---|
# | `name`, `parameters` | what the table calls it, and how many weights it has |
# | `retriever` | where its passages come from, or `None` |
# | `answer(questions, k)` | an `Answer` for each question: text, log probability, evidence, seconds |
# | `log_prob(questions, answers, k)` | $\log p(y \mid x)$ in nats, for any answer $y$ |
#
# The evidence is the method's own account of where its answer came from: a weight for each passage,
# and the weights sum to 1.
#
# ## The mathematics
#
# The worked example of this chapter is RAG with the simplest possible generator. Every occurrence of a name or date
# in a passage $z$ has the same probability, unless the name is also in the question:
#
# $$
# \begin{aligned}
# p(y \mid x) &= \sum_z p(z \mid x)\, p(y \mid x, z), \\
# p(y \mid x, z) &= \frac{\#\{\text{names of } z \text{ equal to } y\}}{\#\{\text{names of } z\}}.
# \end{aligned}
# $$ (names-method)
#
# The evidence is the posterior $p(z \mid x, y)$, the share of each passage in the sum of {eq}`names-method`. Nothing is
# trained: all right answers come from retrieval and counting, which makes the method a baseline for methods that
# read.
#
# ## The core in ten lines
#
# The toy example has two passages. One has the names Dresden and, twice, Hamburg; the other has Basel and
# Dresden.

# %% tags=["hide-input"]
import inspect
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from experiments import names_method as names
from experiments.source import source

from ragbook import explorer, figures, load_corpus, load_questions, methods
from ragbook.evaluation import compare, words
from ragbook.evaluation.names import row_name
from ragbook.evaluation.statistics import adjusted, cut_off
from ragbook.index import build_index
from ragbook.models import load_encoder
from ragbook.retrieval import DenseRetriever

# %%
prior = torch.tensor([0.6, 0.4])  # p(z | x), [n]
counted = [Counter(Dresden=1, Hamburg=2), Counter(Basel=1, Dresden=1)]
for y in ("Dresden", "Hamburg", "Basel"):
    shares = torch.tensor([c[y] / c.total() for c in counted])  # p(y | x, z)
    joint = prior * shares  # [n]
    evidence = joint / joint.sum()  # p(z | x, y), [n]
    weights = [round(w, 2) for w in evidence.tolist()]
    print(f"{y:<8} p(y | x) = {joint.sum():.1f}, evidence {weights}")

# %% [markdown]
# By hand, the sum for Dresden is $0.6 \cdot \frac13 + 0.4 \cdot \frac12 = 0.2 + 0.2$. The three probabilities
# sum to 1. Hamburg has the same probability as Dresden, but all of it comes from one passage.
#
# ## The code
#
# The method is one module, `book/experiments/names_method.py`. The mathematics is a pure function; the class
# retrieves, calls this function and implements the interface. Everything depends on what counts as a name:
# `SalientSpans` finds names and dates in a text, and those of the question are removed.

# %%
print(source(names.names))
print()
print(source(names.name_log_probs))
for y in ("Dresden", "Hamburg", "Basel"):
    given = names.name_log_probs(counted, y).exp()
    by_hand = torch.tensor([c[y] / c.total() for c in counted])
    print(y, "equal:", torch.allclose(given, by_hand))

# %% [markdown]
# The class uses the package's prior and posterior: `check`, `doc_log_probs`, `evidence` and `posterior` are in
# `ragbook.methods.base`.

# %%
print(inspect.getsource(names.Names))

# %% [markdown]
# ## The method on the index
#
# A method is named by its module and class, `module:Class`, and does not have to be registered. `load` calls the
# class with the retriever.

# %%
encoder = load_encoder()
index = build_index(
    load_corpus("miniwiki"), Path("../build/index"), encoder, progress=False
)
retriever = DenseRetriever(index, encoder)
questions = load_questions("miniwiki", "dev").head(100)
chosen = methods.load(
    ["closed-book", "realm", "experiments.names_method:Names"],
    retriever,
    verbatim=True,
)
comparison = compare(chosen, questions, k=5, progress=False)
comparison

# %% mystnb={"figure": {"caption": "The new method beside two of the book's, on a hundred dev questions, with 95 % intervals. It answers some questions that the closed-book reader does not, and far fewer than REALM.", "alt": "Exact match and F1 of closed-book, REALM and the names method with 95 % intervals"}}
em = {
    name: scores["ci95"]["em"]
    for name, scores in comparison.results["methods"].items()
}
assert em["closed-book"][1] < em["names"][0]  # as the caption says
assert em["names"][1] < em["realm"][0] / 2
figures.side_by_side(comparison.results)

# %% [markdown]
# How many names does it choose from?

# %%
asked = list(questions)
sizes = [
    len(set().union(*names.names(q.text, found.passages)))
    for q, found in zip(asked, retriever.retrieve(asked, 5), strict=True)
]
print(
    f"names and dates in five passages: {np.mean(sizes):.0f} on average, "
    f"{min(sizes)} to {max(sizes)}"
)

# %% [markdown]
# A count cannot tell which of these names the question asks for. The table, the paired tests, the explorer and the
# command line work with any methods:
#
# ```
# ragbook compare --methods closed-book,realm,experiments.names_method:Names --out results
# ```


# %%
def small(p):
    """A p-value with three digits."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


paired = [p for p in comparison.results["paired"] if p["metric"] == "em"]
holm = adjusted(paired, "em")
pd.DataFrame(
    {
        "a": row_name(test["a"]),
        "b": row_name(test["b"]),
        "a - b, points": cut_off(test["difference"], "+"),
        "95 % interval": "[{}, {}]".format(
            *(cut_off(bound, "+") for bound in test["ci95"])
        ),
        "p": small(test["p"]),
        "p, Holm": small(holm[frozenset((test["a"], test["b"]))]),
    }
    for test in paired
)

# %% [markdown]
# The differences are in exact match. The last column is adjusted for all three pairs by Holm's method; the package's
# tables and sentences use it. In words:

# %%
print(words.order(comparison.results))
print(words.in_words(comparison.results, "names", "realm"))

# %% [markdown]
# The explorer shows the new method as well. These are its right answers, each with the passage of greatest
# weight:

# %%
found = explorer.index(comparison.predictions, {q.text: q for q in questions})
print("the explorer's methods:", ", ".join(found["methods"]))
for line in comparison.predictions:
    entry = line["methods"]["names"]
    if entry["em"]:
        print(
            line["question"],
            "|",
            entry["text"],
            "|",
            entry["evidence"][0]["passage_id"],
        )

# %% [markdown]
# ## A method that reads
#
# The names method has no model. A method that uses the bundled reader can start from `ragbook/methods/rag.py`:
# `read` encodes each question with each of its passages, and `token_log_probs` gives the log-probability of each
# token of an answer. RAG-Sequence sums the joint probabilities over the passages; with `max` in place of `logsumexp`,
# a new method believes a single passage:

# %%
from ragbook.methods import rag
from ragbook.methods.base import doc_log_probs
from ragbook.models import load_reader
from ragbook.models.generator import labels_of

reader, few, k = load_reader(), list(questions)[:4], 5
retrieved = retriever.retrieve(few, k)
prior = doc_log_probs(retrieved, retriever.score_scale)  # log p(z|x), [B, k]
memory = reader.read(few, [each.passages for each in retrieved])  # B * k rows
labels = labels_of(reader, [q.answers[0] for q in few])  # [B, T]
each = reader.token_log_probs(memory, labels.repeat_interleave(k, 0))
print("log-probabilities of tokens [B * k, T]:", tuple(each.shape))
joint = prior + each.sum(1).reshape(-1, k)  # log p(y, z | x), [B, k]
summed, best = joint.logsumexp(1), joint.max(1).values  # log p(y | x), [B]
package = rag.sequence_log_prob(
    each.reshape(len(few), k, -1), prior, labels != -100
)
torch.testing.assert_close(summed, package)
print("log p(y | x), sum over passages:", summed.numpy().round(3))
print("log p(y | x), best passage only:", best.numpy().round(3))
assert (summed - best).abs().max() < 0.01  # as the text says

# %% [markdown]
# Here the two agree, because for each of these answers one passage outweighs all others; they differ where
# several count.
# To search for an answer instead of scoring a given one, pass `reader.continuation(memory)` to the beam search in `ragbook.methods.decoding`, as `rag.py` does.
#
# ## One module, one notebook, one test file
#
# To add a method to the book itself:
#
# 1. **The module**, `ragbook/methods/NAME.py`. The docstring has the equations in the paper's symbols, and the code
#    uses the same names. The mathematics is in pure functions on tensors.
# 2. **The test file**, `tests/methods/test_NAME.py`. It checks the mathematics against something
#    independent: a sum over all answers that must be 1, a case worked out by hand, another
#    implementation. Tiny random models are in `tests/methods/conftest.py`. The example's test is
#    `tests/experiments/test_names_method.py`; it also runs `ragbook compare` with the method.
# 3. **The notebook**, `book/NN-name.py`. Follow the structure of a chapter: the problem, the idea, the
#    mathematics, the core in ten lines, the method on the index, ablations, the paper's results, exercises.
#    `python book/_tools/execute.py book/NN-name.py` runs it and writes the `.ipynb` beside it; add a
#    line to `book/_toc.yml`. Use the figures of `ragbook.figures`, so that what they show is checked.
# 4. **The list of methods**. To compare the method by default, add its name to `NAMES` and a line to `load`,
#    both in `ragbook/methods/__init__.py`.
#
# `make test` then lints and type-checks the code, runs the tests and executes every notebook again.
#
# ## What to remember
#
# A method is any object with `name` and `parameters`, `retriever`, `answer` and `log_prob`; the tables, the paired
# tests, the explorer and the command line accept it without any other change. Write its mathematics as a pure
# function and test it against something independent, such as probabilities that must sum to 1. A baseline
# without weights shows how much of a score comes from retrieval and counting alone.
#
# ## Exercises
#
# <!-- exercise: ex-own-titles -->
# **Exercise.** Write a whole method: RAG whose generator returns the passage's title and nothing else, so that
# $p(y \mid x)$ is the sum of $p(z \mid x)$ over the passages with the title $y$. Its answer is the most probable title,
# and its evidence the posterior. Implement the whole interface.
#
# <!-- end of exercise -->

# %%
from exercises import your_own_method as check


class MyTitles:
    """Answers with the most probable title."""

    name = "titles"
    parameters = 0

    def __init__(self, retriever):
        self.retriever = retriever

    def answer(self, questions, k=5):
        """An Answer for each question."""
        raise NotImplementedError

    def log_prob(self, questions, answers, k=5):
        """log p(answer | question), float32 [B]."""
        raise NotImplementedError


check.titles(MyTitles)

# %% [markdown]
# <!-- solution: ex-own-titles -->
# <details>
# <summary>Solution</summary>
#
# `doc_log_probs` in `ragbook.methods.base` makes the prior, and `evidence` there pairs passages with
# weights. Both methods need the prior restricted to the passages with a title, so write that once. It is written
# out in `book/solutions/10-your-own-method.py`; `methods.load(["__main__:MyTitles"], retriever)` compares
# yours.
#
# </details>
#
# <!-- exercise: ex-names-kind -->
# **Exercise.** A question that begins with "When" asks for a date, and one that begins with "Who" for a
# person. Multiply the likelihood by a factor for this. What must then be normalised again, the sum over passages or
# the shares within a passage? Return $p(y \mid x, z)$ of all names of a passage.
#
# <!-- end of exercise -->


# %%
def my_shares(counts, factor):
    """How often each name occurs, and its factor (a dict; 1 if it has
    none) -> p(y | x, z) of each name (a dict)."""
    raise NotImplementedError


check.weighted(my_shares)

# %% [markdown]
# <!-- solution: ex-names-kind -->
# <details>
# <summary>Solution</summary>
#
# The sum within a passage: $p(y \mid x, z)$ must sum to 1 over the names of $z$, so the weighted counts
# are divided by their own sum and not by the number of names. The sum over $z$ needs no change, because the
# prior still sums to 1. It is written out in `book/solutions/10-your-own-method.py`.
#
# </details>
#
# <!-- exercise: ex-weights-sum -->
# **Exercise.** Which test of the comparison fails if the evidence of a method does not sum to 1?
#
# <details>
# <summary>Solution</summary>
#
# None: `compare` only looks for the passage with the greatest weight, and the explorer would show bars that cannot be
# compared between methods. This is why the example's own test checks the weights themselves.
#
# </details>

# %% [markdown]
# ## Where next
#
# * *In this book:* {doc}`chapter 7 <07-side-by-side>` says how to read the comparison that your method now takes
#   part in, and {doc}`chapter 11 <11-one-pretrained-model>` where else passages can be combined.
# * *Later work* that you could implement: {cite:t}`shi2024replug` sum over passages with a model that stays as it is.
#   {cite:t}`asai2024selfrag` let the model say whether it needs a passage and whether that supports its answer.
#   {cite:t}`jiang2023flare` retrieve again whenever the next sentence contains tokens of low probability, and
#   {cite:t}`trivedi2023ircot` use each step of a chain of thought as the next query.
