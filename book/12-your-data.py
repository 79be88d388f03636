# %% [markdown]
# # Your data
#
# ## The problem
#
# You have documents, and questions about them. How do the methods of this book do on these? Three commands
# answer that, whatever your documents are:
#
# ```
# ragbook index build --corpus notes --out my-index
# ragbook compare --index my-index --questions questions.csv --out results
# open results/explorer/explorer.html
# ```
#
# This chapter runs them, and shows every layout of files that they read and write. What is run here is run
# in a folder of its own.

# %% tags=["hide-input"]
import io
import os
import shlex
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd
from experiments import layouts
from IPython.display import HTML

from ragbook import figures, load_corpus, load_questions
from ragbook.cli import main
from ragbook.evaluation import Comparison, normalize_answer

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
# A folder of Markdown, reStructuredText, text, HTML and PDF files, however deep, is a corpus. Here are three
# files of it.

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
for passage in load_corpus("notes"):
    print(
        f"{passage.id:<20} {passage.title}: {' '.join(passage.text.split())[:60]}..."
    )

# %% [markdown]
# A passage's id names its file and the place where it begins, a line (`#L5`), a block of a page (`#P1`) or a
# page of a PDF (`#page=3`). Menus and footers of web pages are left out, marks of Markdown too.
#
# How long a passage is decides what a retriever can find and how much a reader must read. DPR cut Wikipedia
# every hundred words, and so does this book if nothing else is said; `--split sentences` keeps sentences
# whole, `--split headings` sections, and `--overlap` repeats the end of the passage before:

# %%
ragbook("corpus build notes --split headings --out notes.jsonl")
for passage in load_corpus("notes.jsonl"):
    print(f"{passage.id:<20} {passage.title}")

# %% [markdown]
# ## Questions, and the comparison
#
# A spreadsheet is enough: a column `question`, one with the `answer` (a list in brackets if several are
# right) and, if you know it, the `gold` document or passage, which holds the answer.

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

# %% mystnb={"figure": {"caption": "Seven methods on four questions of one's own, with 95 % intervals.", "alt": "Exact match and F1 of the seven methods on four questions, each with an interval that covers much of the scale unless all answers are right or all wrong"}}
figures.side_by_side(Comparison.load("results").results)

# %% [markdown]
# Four questions decide nothing: one wrong answer makes an interval that covers much of the scale, and where all
# four are right or all wrong, drawing them again and again shows no doubt at all. Take some hundreds. What the
# table is made of is in `results`: every prediction with its evidence, the table as Markdown and LaTeX, the
# figures, and the explorer, whose evidence opens the document at its place.

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
# What programs wrote is read as well. What a file is, its content says, whatever its name, and it may be
# compressed with gzip, bzip2, xz or zstandard, or come from standard input as `-`. Each example below is
# written, read and compared with what it must hold whenever this book is built.

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
# Where columns have names of their own, `--columns id=nr,title=river,text=note` says which is which; where a
# file can be read in two ways, `--format` chooses. Without ids a row's number is its id. `hf:NAME` reads a
# data set of the Hugging Face hub (`pip install 'ragbook[datasets]'`).
#
# Passages stay as they are, if `--split` does not say otherwise: only KILT's articles, which are whole, are
# cut like documents. If one is longer than the encoder or a reader sees, `compare` says so.
#
# ## Layouts of questions

# %% tags=["hide-input"]
table(layouts.QUESTIONS, questions)

# %% [markdown]
# A gold id may be a passage's, a document's, of which then every passage counts, or the title of an article.
# Ids that the corpus does not have are counted and said, and recall and evidence are not computed from them;
# `--gold answer` counts any passage that holds an answer instead, which is DPR's rule for questions without
# gold passages.
#
# ## Questions without answers
#
# Nobody has written down the answers to the questions you will be asked next week. The methods can still be
# compared with each other: on how many questions do two of them give the same answer?

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
for pair in asked.results["agreement"]:
    if pair["a"] == "realm":
        print(
            f"REALM and {pair['b']}: {pair['share']:.0%} of {asked.results['questions']['n']}"
        )

# %% [markdown]
# What is agreement worth? On MiniWiki's test questions, whose answers are known, FiD is right this often where
# REALM says the same, and where it says something else:

# %%
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
        f"they {said} on {len(right):,} questions: FiD is right on {np.mean(right):.1%}"
    )

# %% [markdown]
# ## Retrieval by itself
#
# `ragbook retrieve` writes what a retriever finds as TREC's run files, `ragbook evaluate` measures anyone's,
# by judgements (qrels) or by the gold passages of the questions:

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
# The other way round, `--run FILE` makes anyone's ranking the retriever of `compare` (ColBERT's, SPLADE's,
# Pyserini's), and `--reranker NAME` puts a cross-encoder after any retriever.
#
# ## What comes out
#
# `ragbook results` writes the predictions as SQuAD's and KILT's own scripts read them, or as CSV, and the
# figures as a tidy table, one row a method and metric:

# %%
ragbook("results results --format squad --out squad")
ragbook("results results --format tidy-csv --out tidy.csv")
print(Path("squad/fid.json").read_text())
tidy = pd.read_csv("tidy.csv")
tidy[tidy.metric.isin(["em", "contains"]) & tidy.method.isin(["realm", "fid"])][
    ["method", "metric", "value", "low", "high", "n"]
]

# %% [markdown]
# Two stored comparisons can be set beside each other, and a method added to one without asking the others
# again. Does the retriever matter on these four questions?

# %%
options = "--index my-index --questions questions.csv --k 3 --out by-words --retriever bm25"
ragbook(f"compare {options} --methods realm", shown=False)
ragbook(f"compare {options} --methods fid --append", shown=False)
ragbook("diff results by-words")

# %% [markdown]
# ## Exercises
#
# ```{exercise}
# :label: ex-data-split
# Your manual has chapters of three thousand words. You cut it by headings and recall rises, but FiD gets
# worse. What may have happened, and what would you try?
# ```
#
# ```{solution} ex-data-split
# :class: dropdown
# A section of up to a hundred words by default is found better than a window that begins in the middle of
# another, but with `headings:1000` the passages are longer than what the reader sees, and the answer is
# cut off: `compare` says how many are. Cut by `headings:100`, which starts a passage at each heading and
# cuts long sections further.
# ```
#
# ```{exercise}
# :label: ex-data-agree
# On a thousand questions without answers two methods agree on 80 %. What does that say of how often they
# are right?
# ```
#
# ```{solution} ex-data-agree
# :class: dropdown
# Where two methods give different answers, at most one of them is exactly right. So on the 20 % on which they
# disagree they are right together at most once a question: the sum of their exact matches is at most
# $2 \cdot 80 + 20 = 180$ %. A lower bound there is none, since both can be wrong alike: they share the
# retriever, and often the reader.
# ```
