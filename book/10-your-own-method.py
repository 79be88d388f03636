# %% [markdown]
# # Your own method
#
# ## The problem
#
# You have an idea of how passages should be used. You want to know how it does beside the five of
# this book: on the same passages, with the same retriever, on the same questions, with intervals.
#
# ## The idea
#
# A method is an object that keeps four promises. Whatever keeps them can be compared.
#
# | promise | what it is |
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
# The worked example of this chapter is RAG with the smallest generator there is. Of a passage $z$ it
# says any of the names and dates in it, one as likely as another, but none that the question has:
#
# $$
# p(y \mid x) = \sum_z p(z \mid x)\, p(y \mid x, z), \qquad
# p(y \mid x, z) = \frac{\#\{\text{names of } z \text{ that read } y\}}{\#\{\text{names of } z\}}.
# $$
#
# The posterior $p(z \mid x, y)$ is the share that each passage has in that sum, and it is the
# evidence. Nothing is trained: what it gets right, retrieval and counting alone get right. So it is a
# baseline for every method that reads.
#
# ## The code
#
# One module, `book/experiments/names_method.py`. The mathematics is a pure function on its own; the class
# retrieves, calls it and keeps the promises. The prior and the posterior are the package's own.

# %%
import inspect
from pathlib import Path

import pandas as pd
from experiments import names_method as names

from ragbook import explorer, figures, load_corpus, load_questions, methods
from ragbook.evaluation import compare, words
from ragbook.index import build_index
from ragbook.models import load_encoder
from ragbook.retrieval import DenseRetriever

print(inspect.getsource(names.name_log_probs))
print(inspect.getsource(names.Names))

# %% [markdown]
# ## The method on the index
#
# It is named by the place of its code, `module:Class`, and needs to be entered nowhere. `load` calls
# the class with the retriever.

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

# %% mystnb={"figure": {"caption": "The new method beside two of the book's, on a hundred dev questions.", "alt": "Exact match and F1 of closed-book, REALM and the names method with 95 % intervals"}}
figures.side_by_side(comparison.results)

# %% [markdown]
# Retrieval hands the new method a few dozen names, and counting them is not reading. The table, the tests in
# pairs and the explorer take whatever methods the comparison has. From the command line it is the same:
#
# ```
# ragbook compare --methods closed-book,realm,experiments.names_method:Names --out results
# ```

# %%
paired = pd.DataFrame(
    [p for p in comparison.results["paired"] if p["metric"] == "em"]
)
paired["low"], paired["high"] = zip(*paired.pop("ci95"), strict=True)
paired[["a", "b", "difference", "low", "high", "p"]].round(3)

# %% [markdown]
# And in words, with the p-values adjusted for all pairs by Holm's method:

# %%
print(words.order(comparison.results))
print(words.in_words(comparison.results, "names", "realm"))

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
# ## One module, one notebook, one test file
#
# To bring a method into the book itself:
#
# 1. **The module**, `ragbook/methods/NAME.py`. The paper's equations in the docstring, in the paper's
#    symbols; the code under them uses the same names. What is mathematics is a pure function on
#    tensors.
# 2. **The test file**, `tests/methods/test_NAME.py`. It checks the mathematics against something
#    independent: a sum over all answers that must be 1, a case worked out by hand, another
#    implementation. Tiny random models are in `tests/methods/conftest.py`. The example's is
#    `tests/experiments/test_names_method.py`; it also runs `ragbook compare` with the method.
# 3. **The notebook**, `book/NN-name.py`. Copy the shape of a chapter: the problem, the idea, the
#    mathematics, the code, the method on the index, what moves it, what the paper had, exercises.
#    `python book/_tools/execute.py book/NN-name.py` runs it and writes the `.ipynb` beside it; add a
#    line to `book/_toc.yml`. Figures come from `ragbook.figures`, so that what they show is checked.
# 4. A method that everybody should compare by default also gets its name in `NAMES` and a line in
#    `load`, both in `ragbook/methods/__init__.py`. Nothing else knows the methods by name.
#
# `make test` then lints and types the code, runs the tests and executes every notebook again.
#
# ## Exercises
#
# ```{exercise}
# :label: ex-names-kind
# A question that begins with "When" wants a date, and one that begins with "Who" a person. Give the
# likelihood a factor that knows this. Which of the two sums in the equation stays a probability only
# if you divide again?
# ```
#
# ```{solution} ex-names-kind
# :class: dropdown
# The one inside a passage: $p(y \mid x, z)$ must sum to 1 over the names of $z$, so the weighted counts
# are divided by their own sum and not by the number of names. The sum over $z$ needs nothing, as the
# prior still sums to 1.
# ```
#
# ```{exercise}
# :label: ex-weights-sum
# Which of the four promises would a test break if the evidence of a method did not sum to 1?
# ```
#
# ```{solution} ex-weights-sum
# :class: dropdown
# None that `compare` checks: it only looks for the heaviest passage. The explorer would show bars
# that cannot be compared between methods. That is why the example's test asks for the weights
# themselves.
# ```
