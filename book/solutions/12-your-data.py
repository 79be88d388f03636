# %% [markdown]
# # Your data: solutions
#
# Solutions of the exercises of chapter 12 that are code.

# %%
import csv
import json
from collections import Counter
from pathlib import Path

from exercises import your_data as check

from ragbook.evaluation import Comparison, normalize_answer
from ragbook.evaluation.metrics import exact_match
from ragbook.evaluation.statistics import cut_off

# %% [markdown]
# ## What agreement says about accuracy
#
# Both methods can be right where they agree, and at most one of them where they differ: $2 a + (1 - a) = 1 + a$.


# %%
def my_bound(agreement):
    """The share of equal answers -> the greatest sum of two exact matches."""
    return 1 + agreement


check.bound(my_bound)

# %% [markdown]
# ## A vote
#
# Answers are counted as exact match compares them, after normalisation.


# %%
def my_majority(answers):
    """For each question a list of texts, one a method -> texts or None."""
    out = []
    for texts in answers:
        plain = [normalize_answer(text) for text in texts]
        ((most, count),) = Counter(plain).most_common(1)
        won = count > len(texts) / 2
        out.append(texts[plain.index(most)] if won else None)
    return out


check.majority(my_majority)

# %% [markdown]
# On MiniWiki's test questions, with the four that are trained to read passages, each trained by its own
# objective:

# %%
names = ("realm", "rag-sequence", "rag-token", "fid")
known = Comparison.load(Path("../results")).predictions
voted = my_majority([[q["methods"][m]["text"] for m in names] for q in known])
decided = [
    exact_match(text, q["answers"])
    for text, q in zip(voted, known, strict=True)
    if text is not None
]
print(f"a majority on {len(decided):,} of {len(known):,} questions")
print(f"right on {cut_off(sum(decided) / len(decided))} % of these")
for m in names:
    each = [
        q["methods"][m]["em"]
        for text, q in zip(voted, known, strict=True)
        if text is None
    ]
    print(f"{m} where there is none: {cut_off(sum(each) / len(each))} %")

# %% [markdown]
# ## Questions in a CSV file
#
# The `csv` module quotes what needs it. A list of answers is one cell, written as JSON.


# %%
def my_csv(path, rows):
    """Write (question, [answers], gold) rows to `path`."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["question", "answer", "gold"])
        for question, answers, gold in rows:
            table.writerow([question, json.dumps(answers), gold])


check.csv(my_csv)
