# %% [markdown]
# # Your data
#
# ## The problem
#
# You have documents and questions about them, and you want to know how well the methods of this book answer
# these questions. Three commands are enough:
#
# ```
# ragbook index build --corpus notes --out my-index
# ragbook compare --index my-index --questions questions.csv --out results
# open results/explorer/explorer.html         # on Linux: xdg-open
# ```
#
# This chapter runs such commands in a temporary folder and shows the file layouts that they read and write.

# %% tags=["hide-input"]
import io
import os
import shlex
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from html import escape
from pathlib import Path
from textwrap import shorten

import numpy as np
import pandas as pd
from experiments import layouts
from IPython.display import HTML

from ragbook import figures, load_corpus, load_questions
from ragbook.cli import main
from ragbook.evaluation import Comparison, normalize_answer
from ragbook.evaluation.differences import differences, shared_methods
from ragbook.evaluation.names import called, listed
from ragbook.evaluation.statistics import ALPHA, cut_off
from ragbook.evaluation.tables import agreement

BOOK = Path.cwd()
os.chdir(tempfile.mkdtemp())


def ragbook(line: str, shown: bool = True) -> None:
    """Run a command line, and print what it says."""
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(out):
        status = main(shlex.split(line))
    print(f"$ ragbook {line}")
    if shown or status:
        print(out.getvalue().rstrip())


def write(name: str, content: str) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(content, encoding="utf-8")


# %% [markdown]
# ## Documents
#
# A folder of Markdown, reStructuredText, text, HTML and PDF files, with any number of subfolders, is a
# corpus. This one has three files.

# %%
write(
    "notes/rivers/elbe.md",
    """---
title: The Elbe
---

The Elbe rises in the Giant Mountains, near the border of Bohemia and Silesia.

## Towns

It passes [Dresden](https://en.wikipedia.org/wiki/Dresden) and Magdeburg. Its largest port is **Hamburg**.

## Floods

In August 2002 the river stood at 9.40 metres in Dresden.
""",
)
write(
    "notes/oder.txt",
    "The Oder rises in Moravia.\n\nSzczecin lies near its mouth.\n",
)
write(
    "notes/rhine.html",
    """<!doctype html><title>The Rhine</title>
<nav><a href="/">Home</a> <a href="/rivers">All rivers</a></nav>
<main><h1>The Rhine</h1>
<p>The Rhine rises in the Swiss Alps and reaches the North Sea at Rotterdam.</p>
<p>At Schaffhausen it falls 23 metres.</p></main>
<footer>Write to us.</footer>""",
)
pd.DataFrame(
    {
        "id": p.id,
        "title": p.title,
        "text begins": shorten(p.text, 48, placeholder=" ..."),
    }
    for p in load_corpus("notes")
)

# %% [markdown]
# A passage's id names its file and the place where it begins: a line (`#L5`), a block of a web page (`#P1`)
# or a page of a PDF (`#page=3`). Menus and footers of web pages and the markup of Markdown are left out.
#
# The length of a passage determines what a retriever can find and how much a reader must read. DPR splits
# Wikipedia every hundred words, which is also the default here. `--split sentences` keeps sentences whole,
# `--split headings` cuts at headings, and `--overlap` repeats the end of the preceding passage:

# %%
ragbook("corpus build notes --split headings --out notes.jsonl")
for passage in load_corpus("notes.jsonl"):
    print(f"{passage.id:<20} {passage.title}")

# %% [markdown]
# ## Questions, and the comparison
#
# A spreadsheet is enough. It has a column `question`, a column `answer` (in brackets if several are right)
# and, if you know it, a column `gold` with the document or passage that contains the answer.

# %%
write(
    "questions.csv",
    """question,answer,gold
Where does the Elbe rise?,"[""the Giant Mountains"", ""Giant Mountains""]",rivers/elbe.md
Which port is the largest on the Elbe?,Hamburg,rivers/elbe.md
Which city lies near the mouth of the Oder?,Szczecin,oder.txt
How far does the Rhine fall at Schaffhausen?,23 metres,rhine.html
""",
)
ragbook("index build --corpus notes --split headings --out my-index")
ragbook(
    "compare --index my-index --questions questions.csv --k 3 --out results",
    shown=False,
)
Comparison.load("results")

# %% mystnb={"figure": {"caption": "Seven methods on four questions, with 95 % intervals. Every interval of exact match either has no width or covers at least half of the scale: four questions decide nothing.", "alt": "Exact match and F1 of the seven methods on four questions, each with an interval that covers much of the scale unless all answers are right or all wrong"}}
results = Comparison.load("results").results
for scores in results["methods"].values():  # as the caption says
    low, high = scores["ci95"]["em"]
    assert high == low or high - low >= 0.5
figures.side_by_side(results)

# %% [markdown]
# With one wrong answer in four the interval covers much of the scale. If all four answers are right, or all
# are wrong, resampling them gives the same mean every time, and the interval has no width although nothing is
# certain. Use several hundred questions. The folder `results` contains every prediction with its evidence,
# the table as Markdown and LaTeX, the figures, and the explorer, in which a piece of evidence opens the
# document at the right place.

# %%
line = Comparison.load("results").predictions[1]
print(
    line["question"],
    "| gold passages:",
    line["gold_passages"],
    "| best at rank",
    line["gold_rank"],
)
for name in ("realm", "fid"):
    entry = line["methods"][name]
    print(f"{name}: {entry['text']}, from {entry['evidence'][0]['passage_id']}")
print(
    "documents:",
    *sorted(page.name for page in Path("results/explorer/documents").iterdir()),
)

# %% [markdown]
# ## Layouts of passages
#
# Files written by other programs can be read too. The format of a file is recognised from its content, not
# from its name. Files may be compressed with gzip, bzip2, xz or zstandard, or come from standard input as
# `-`. Each example below is written, read and compared with its expected content whenever this page is
# executed.

# %% tags=["hide-input"]


def beginning(path: Path) -> str:
    """The first lines of a file that is text, or the names of a folder's files."""
    if path.is_dir():
        return ", ".join(
            sorted(
                str(p.relative_to(path)) for p in path.rglob("*") if p.is_file()
            )
        )
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError:
        return "(binary)"
    lines = text.strip().splitlines()
    shown = " ".join(text.split()) if lines[0] in ("{", "[") else lines[0]
    return shown.replace("\t", " ⇥ ")[:70]


def table(examples, read) -> HTML:
    """Every example, read."""
    head = "".join(
        f"<th>{name}</th>"
        for name in ("layout", "defined by", "file", "begins with")
    )
    rows = []
    for example in examples:
        path = Path(tempfile.mkdtemp()) / example.name
        example.write(path)
        assert read(path, **dict(example.options)) == example.read, (
            example.layout
        )
        cells = [escape(example.layout), escape(example.definition)]
        cells += [
            f"<code>{escape(text)}</code>"
            for text in (example.name, beginning(path))
        ]
        rows.append("".join(f"<td>{cell}</td>" for cell in cells))
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    rolled = '<div style="overflow-x: auto" tabindex="0">'
    return HTML(
        f"{rolled}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def passages(path, **options):
    return tuple((p.id, p.title, p.text) for p in load_corpus(path, **options))


def questions(path, **options):
    return tuple(
        (q.id, q.text, q.answers, q.gold_ids)
        for q in load_questions(path, **options)
    )


table(layouts.PASSAGES, passages)

# %% [markdown]
# If your columns have other names, map them with `--columns id=nr,title=river,text=note`. If a file can be
# read in two ways, choose one with `--format`. A row without an id gets its number as id. `hf:NAME` reads a
# data set of the Hugging Face hub (`pip install 'ragbook[datasets]'`).
#
# These passages are split only if you ask for it with `--split`, except KILT's, whose entries are whole
# articles and are split like documents. `compare` reports passages that are longer than the encoder or a
# reader can take.
#
# ## Layouts of questions

# %% tags=["hide-input"]
table(layouts.QUESTIONS, questions)

# %% [markdown]
# A gold id may name a passage, a document (every passage of it then counts) or an article by its title. Ids
# that are not in the corpus are reported, and are not used for recall and evidence. `--gold answer` instead
# counts any passage that contains an answer, which is how DPR measures its retrieval accuracy.
#
# ## Questions without answers
#
# The questions that you will be asked next week have no reference answers. The methods can still be
# compared with each other: for how many questions do two of them give the same answer?

# %%
write(
    "asked.txt",
    "Where does the Elbe rise?\nWhich city is near the mouth of the Oder?\n",
)
ragbook(
    "compare --index my-index --questions asked.txt --k 3 --out asked",
    shown=False,
)
asked = Comparison.load("asked")
sheet = agreement(asked.results)
assert sheet is not None
HTML(f'<div style="overflow-x: auto" tabindex="0">{sheet.html()}</div>')

# %% [markdown]
# What is agreement worth? On MiniWiki's test questions, whose answers are known, this is how often FiD is
# right if REALM gives the same answer, and if it gives a different one:

# %% tags=["stored-results"]
known = Comparison.load(BOOK / "results")
pairs = [
    (line["methods"]["fid"], line["methods"]["realm"])
    for line in known.predictions
]
for said, agree in (("agree", True), ("differ", False)):
    right = [
        fid["em"]
        for fid, realm in pairs
        if (normalize_answer(fid["text"]) == normalize_answer(realm["text"]))
        == agree
    ]
    print(
        f"they {said} on {len(right):,} questions: FiD is right on "
        f"{cut_off(float(np.mean(right)))} % of these"
    )

# %% [markdown]
# ## Retrieval by itself
#
# `ragbook retrieve` writes the passages that a retriever finds as run files in TREC's format.
# `ragbook evaluate` measures run files of any origin, against relevance judgements (qrels) or gold passages
# of the questions:

# %%
ragbook(
    "retrieve --index my-index --questions questions.csv --retriever dense,bm25 --k 5 --out runs "
    "--qrels questions.qrels",
    shown=False,
)
print(Path("runs/bm25.trec").read_text().splitlines()[0])
print(Path("questions.qrels").read_text().splitlines()[0])
ragbook(
    "evaluate runs/dense.trec runs/bm25.trec --qrels questions.qrels --measures RR,nDCG@10,R@1"
)

# %% [markdown]
# Conversely, `--run FILE` makes `compare` use a ranking of any origin as its retriever (for example from
# ColBERT, SPLADE or Pyserini), and `--reranker NAME` adds a cross-encoder after any retriever.
#
# ## Output formats
#
# `ragbook results` writes the predictions in the formats of SQuAD's and KILT's own evaluation scripts or as
# CSV, and the scores as a tidy table with one row for each method and metric:

# %%
ragbook("results results --format squad --out squad")
ragbook("results results --format tidy-csv --out tidy.csv")
print(Path("squad/fid.json").read_text())
tidy = pd.read_csv("tidy.csv")
tidy[tidy.metric.isin(["em", "contains"]) & tidy.method.isin(["realm", "fid"])][
    ["method", "metric", "value", "low", "high", "n"]
]

# %% [markdown]
# Two stored comparisons can be compared with each other, and a method can be added to one without running
# the others again. Does the retriever matter on these four questions?

# %%
options = "--index my-index --questions questions.csv --k 3 --out by-words --retriever bm25"
ragbook(f"compare {options} --methods realm", shown=False)
ragbook(f"compare {options} --methods fid --append", shown=False)
ragbook("diff results by-words")

# %% tags=["remove-input"]
one, other = Comparison.load("results"), Comparison.load("by-words")
found = differences(one, other, shared_methods(one, other), 0)
supported = [
    called(entry["a"])
    for entry in found["methods"]
    if entry["em"]["p_holm"] < ALPHA
]
otherwise = [
    f"{called(entry['a'])} answers {len(entry['changed'])} of them differently"
    for entry in found["methods"]
    if entry["changed"]
]
n = found["questions"]["both"]
HTML(
    f"<p>On these {n} questions the tests "
    + (
        f"support a difference in exact match for {listed(supported)}"
        if supported
        else "support no difference in exact match"
    )
    + (
        f"; with BM25, {listed(otherwise)}"
        if otherwise
        else "; all answers are the same"
    )
    + f". With n = {n} they could hardly find one: that no difference is supported does not mean that there is "
    "none.</p>"
)

# %% [markdown]
# ## If the scores are low
#
# Look in this order, since each step limits the next:
#
# 1. **Is the right passage found?** `ragbook evaluate` and the table's recall say so. If not, compare retrievers
#    (`--retriever dense,bm25,hybrid` in `ragbook retrieve`), another encoder
#    (`--encoder BAAI/bge-small-en-v1.5`), a cross-encoder on top (`--reranker NAME`) or shorter passages
#    (`--split sentences:3`). With some hundred questions of your own, `ragbook train dpr` adapts the encoder.
# 2. **Is it read whole?** `cut_passages` in the results counts passages that are longer than the reader's input;
#    `--split words:100` makes them fit.
# 3. **What is wrong with the answers?** `errors.png` and `errors.md` sort them ({doc}`chapter 7 <07-side-by-side>`).
#    Many answers that are *cut short* or *too long* are about wording, and `contains` is then the fairer score.
#    Many names from another passage mean that the reader is at its limit.
# 4. **Is the reader at its limit?** Give the methods the gold passage alone (`--retriever oracle --k 1`); better
#    retrieval will hardly bring more than they answer then. Try a larger reader (`--reader smollm2-reading`, or any model
#    by its name), or train the bundled one on your own questions (`ragbook train reader --corpus ... --questions ...`).
#    It was trained on texts like MiniWiki's, and on other texts it is often wrong about simple questions.

# %% [markdown]
# ## What to remember
#
# A folder of documents and a spreadsheet of questions are enough for a comparison. Passages should be short enough
# for the reader. A few questions decide nothing, whatever the means are: look at the intervals, and ask several
# hundred. Without known answers you can still count how often methods agree; where REALM and FiD agree, FiD is
# right far more often than where they differ.
#
# ## Exercises
#
# <!-- exercise: ex-data-split -->
# **Exercise.** Your manual has chapters of three thousand words. You split by `headings:1000`; recall rises
# but FiD gets worse. What may have happened, and what would you try?
#
# <details>
# <summary>Solution</summary>
#
# A section can be easier to find than a window that begins in the middle of another one. But such passages
# are longer than the reader's input, and the answer may be cut off; `compare` reports how many passages are
# too long. Split by `headings:100`, which starts a passage at each heading and splits long sections further.
#
# </details>
#
# <!-- exercise: ex-data-agree -->
# **Exercise.** On questions without answers two methods agree on a share $a$. What does that say about how
# often they are right? What is the greatest sum of their exact matches as a function of $a$? (Each question
# has one right answer.)
#
# <!-- end of exercise -->

# %%
from exercises import your_data as check


def my_bound(agreement):
    """The share of equal answers -> the greatest sum of two exact matches."""
    raise NotImplementedError


check.bound(my_bound)

# %% [markdown]
# <!-- solution: ex-data-agree -->
# <details>
# <summary>Solution</summary>
#
# If two methods give different answers, at most one of them is right. With $a = 0.8$ the sum is thus at most
# $2 \cdot 0.8 + 0.2 = 1.8$, that is 180 %. There is no lower bound, because both can give the same wrong
# answer: they share the retriever, and often the reader. It is written out in `book/solutions/12-your-data.py`.
#
# </details>
#
# <!-- exercise: ex-data-agreement -->
# **Exercise.** Write the agreement itself: the share of questions to which two methods give the same answer after
# normalisation.
#
# <!-- end of exercise -->


# %%
def my_agreement(first, second):
    """Two lists of texts -> the share of equal answers."""
    raise NotImplementedError


check.agreement(my_agreement)

# %% [markdown]
# <!-- solution: ex-data-agreement -->
# <details>
# <summary>Solution</summary>
#
# `ragbook.evaluation.normalize_answer` ignores case, punctuation and articles. It is written out in
# `book/solutions/12-your-data.py`.
#
# </details>
#
# <!-- exercise: ex-data-csv -->
# **Exercise.** Your questions are in a Python program: texts, lists of right answers and gold ids. Write them to a CSV
# file that `load_questions` reads, even if they contain commas and quotation marks.
#
# <!-- end of exercise -->


# %%
def my_csv(path, rows):
    """Write (question, [answers], gold) rows to `path`."""
    raise NotImplementedError


check.csv(my_csv)

# %% [markdown]
# <!-- solution: ex-data-csv -->
# <details>
# <summary>Solution</summary>
#
# Leave the quoting to the `csv` module, and write each list of answers with `json.dumps`. It is written out in
# `book/solutions/12-your-data.py`.
#
# </details>

# %% [markdown]
# ## Where next
#
# * In this book: {doc}`chapter 10 <10-your-own-method>` adds a method of your own to the comparison, and
#   {doc}`chapter 9 <09-scale>` says what millions of passages need.
# * Later work: {cite:t}`khattab2020colbert` compare question and passage token by token, and
#   {cite:t}`nogueira2019passage` rerank what was found; both matter most where recall is low.
