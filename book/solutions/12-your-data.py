# %% [markdown]
# # Your data: solutions
#
# Solutions of the exercises of chapter 12 that are code.

# %%
import csv
import json

from exercises import your_data as check

from ragbook.evaluation import normalize_answer

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
# ## The agreement
#
# Answers are compared as exact match compares them, after normalisation.


# %%
def my_agreement(first, second):
    """Two lists of texts -> the share of equal answers."""
    same = [
        normalize_answer(a) == normalize_answer(b)
        for a, b in zip(first, second, strict=True)
    ]
    return sum(same) / len(same)


check.agreement(my_agreement)

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
