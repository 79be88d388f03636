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
# This chapter runs such commands in a temporary folder, explains how to read and report their results, and shows
# the file layouts that they read and write. To try a line that begins with `$`, copy what follows the `$` to a
# terminal.

# %% tags=["hide-input"]
import inspect
import io
import json
import math
import os
import shlex
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from html import escape
from pathlib import Path
from statistics import NormalDist
from textwrap import shorten, wrap

import numpy as np
import pandas as pd
from experiments import layouts
from IPython.display import HTML, Markdown

from ragbook import figures, load_corpus, load_questions
from ragbook.cli import main
from ragbook.corpus import miniwiki
from ragbook.evaluation import Comparison, normalize_answer, words
from ragbook.evaluation.differences import differences, shared_methods
from ragbook.evaluation.names import called, listed
from ragbook.evaluation.statistics import (
    ALPHA,
    adjusted,
    bootstrap_ci,
    cut_off,
    paired_tests,
)
from ragbook.evaluation.tables import agreement

BOOK = Path.cwd()
os.chdir(tempfile.mkdtemp())


def ragbook(line: str, shown: bool = True) -> None:
    """Run a command line, and print what it says."""
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(out):
        status = main(shlex.split(line))
    print(" \\\n    ".join(wrap(f"$ ragbook {line}", 74)))
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
    "sample/rivers/elbe.md",
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
    "sample/oder.txt",
    "The Oder rises in Moravia.\n\nSzczecin lies near its mouth.\n",
)
write(
    "sample/rhine.html",
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
    for p in load_corpus("sample")
)

# %% [markdown]
# A passage's id names its file and the place where it begins: a line (`#L5`), a block of a web page (`#P1`)
# or a page of a PDF (`#page=3`). Menus and footers of web pages and the markup of Markdown are removed.
#
# The length of a passage determines what a retriever can find and how much a reader must read. DPR splits
# Wikipedia every hundred words, which is also the default here. `--split sentences` keeps sentences whole,
# `--split headings` splits at headings, and `--overlap` repeats the end of the preceding passage:

# %%
ragbook("corpus build sample --split headings --out sample.jsonl")
for passage in load_corpus("sample.jsonl"):
    print(f"{passage.id:<20} {passage.title}")

# %% [markdown]
# ## Questions
#
# A spreadsheet is enough. It has a column `question`, a column `answer` (a JSON list, such as
# `["220 metres", "more than 220 metres"]`, if several are right) and, if you know it, a column `gold` with the
# document or passage that contains the answer.
#
# Three files and a handful of questions would show nothing. From here on, the folder `notes` contains articles
# of MiniWiki, one Markdown file each, and `questions.csv` has 60 questions about them. All belong to MiniWiki's
# test split, so no reader was trained on them. Put your own folder and spreadsheet in their place.

# %%
articles = [
    a for a in miniwiki.articles() if a.split == "test" and not a.changes
]
file_of = {}  # the file of each passage
for article in articles:
    name = f"{article.family}/{miniwiki.slug(article.title)}.md"
    text = "\n\n".join(passage.text for passage in article.passages)
    write(f"notes/{name}", f"# {article.title}\n\n{text}\n")
    file_of |= {passage.id: name for passage in article.passages}
about_them = [
    question
    for question in load_questions("miniwiki", "test")
    if question.gold_passage in file_of and not question.second_passage
]
pd.DataFrame(
    {
        "question": question.text,
        "answer": json.dumps(question.answers, ensure_ascii=False),
        "gold": file_of[str(question.gold_passage)],
    }
    for question in about_them[:60]
).to_csv("questions.csv", index=False)
print(len(articles), "files in the folder notes")
print("the header of questions.csv and its three shortest rows:")
header, *lines = Path("questions.csv").read_text().splitlines()
for line in (header, *sorted(lines, key=len)[:3]):
    print(line)

# %% [markdown]
# ## The comparison
#
# Without `--methods`, all seven methods answer; here four are enough.

# %%
ragbook("index build --corpus notes --split sentences:100 --out my-index")

# %%
ragbook(
    "compare --index my-index --questions questions.csv --k 3 "
    "--methods closed-book,in-context,realm,fid --out results",
    shown=False,
)
comparison = Comparison.load("results")
comparison

# %% mystnb={"figure": {"caption": "Four methods on 60 questions, with 95 % intervals. For exact match, the intervals of REALM and FiD are more than 20 points wide and lie above those of the other two. They do not show which of REALM and FiD is better; the paired tests below compare methods.", "alt": "Exact match and F1 of closed-book, in-context, REALM and FiD on 60 questions, each with an interval"}}
results = comparison.results
em = {name: scores["ci95"]["em"] for name, scores in results["methods"].items()}
assert results["questions"]["n"] == 60  # as the caption says
for name in ("realm", "fid"):
    assert em[name][1] - em[name][0] > 0.2
    assert max(em["closed-book"][1], em["in-context"][1]) < em[name][0]
figures.side_by_side(results)

# %% [markdown]
# The folder `results` contains every prediction with its evidence, the table as Markdown and LaTeX, the
# figures, and the explorer, where each piece of evidence opens its document at the right place.

# %%
line = comparison.predictions[1]
print(line["question"])
print("gold passages:", ", ".join(line["gold_passages"]))
print("the best of them is at rank", line["gold_rank"])
for name in ("realm", "fid"):
    entry = line["methods"][name]
    print(f"{name}: {entry['text']}, from {entry['evidence'][0]['passage_id']}")
pages = sorted(Path("results/explorer/documents").iterdir())
print(len(pages), "documents in the explorer, such as", pages[0].name)

# %% [markdown]
# ## A table to publish
#
# `results/table.tex` is the table above, with n, k, the seed, intervals and the marks of the tests. The marks come
# from these paired tests:


# %%
def small(p: float) -> str:
    """A p-value with three digits."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def ahead(a: str, b: str) -> int:
    """The number of questions on which only `a` is right."""
    lines = [line["methods"] for line in comparison.predictions]
    return sum(line[a]["em"] > line[b]["em"] for line in lines)


paired = [test for test in results["paired"] if test["metric"] == "em"]
holm = adjusted(paired, "em")
rows = {}
for test in paired:
    a, b, sign = test["a"], test["b"], 1
    if test["difference"] < 0:  # the better method first
        a, b, sign = b, a, -1
    low, high = sorted(sign * bound for bound in test["ci95"])
    rows[f"{a}, {b}"] = {
        "only a right": ahead(a, b),
        "only b right": ahead(b, a),
        "a - b": cut_off(sign * test["difference"]),
        "95 % interval": f"[{cut_off(low)}, {cut_off(high)}]",
        "p": small(test["p"]),
        "p, Holm": small(holm[frozenset((a, b))]),
    }
print("exact match; a is the first method of a row, b the second")
pd.DataFrame(rows).T

# %% [markdown]
# Read it in this order:
#
# 1. *The interval of one score* says how the score would vary with other questions of the same kind. Do not compare
#    two methods by whether their intervals overlap: both methods answered the same questions.
# 2. *The interval of the difference* (a - b, in points) does compare them. Questions that both or neither answer
#    correctly contribute nothing to it. If it contains 0, any difference inside it is possible, including none.
#    Report the interval, and do not call the methods equal.
# 3. *p, Holm* is p adjusted for all pairs of methods. Without the adjustment, one pair in twenty would be below 0.05
#    by chance if no methods differed.
# 4. *Not covered* are other documents, other kinds of question, and training again with another seed.
#    Choose k, the retriever and the reader on questions that you do not report.
#
# The package says the same in words. The last paragraph belongs in the table's caption:

# %%
resamples = inspect.signature(bootstrap_ci).parameters["resamples"].default
Markdown(
    f"{words.order(results)}\n\n{words.in_words(results, 'realm', 'fid')}\n\n"
    f"Exact match in % (n = {results['questions']['n']}, k = {results['k']}) with "
    f"95 % percentile-bootstrap intervals ({resamples:,} resamples of the "
    "questions); paired permutation tests, adjusted for all pairs by Holm's "
    "method."
)

# %% [markdown]
# ### How many questions are enough?
#
# Let $\delta$ be the difference of two methods' exact match, and $u$ the share of questions on which exactly one
# of the two is right. Each question contributes $+1$, $-1$ or $0$ to the difference, with the variance
# $u - \delta^2$. The 95 % interval of the difference has the half-width
#
# $$ 1.96 \sqrt{\frac{u - \delta^2}{n}}, $$ (half-width)
#
# approximately, and the paired test finds the difference ($p < 0.05$) in 80 % of all samples of questions if
# about
#
# $$ n = (1.96 + 0.84)^2\, \frac{u - \delta^2}{\delta^2}. $$ (enough)
#
# The numbers 1.96 and 0.84 are the 97.5th and the 80th percentile of the normal distribution. A single score of
# 65 % has the variance $0.65 \cdot 0.35$. The table shows the half-width in points for such a score and for a
# difference of 5 points with three values of $u$, and how often the test finds this difference:

# %%
normal = NormalDist()


def half_width(variance: float, n: int) -> float:
    """Half the width of the 95 % interval of a mean."""
    return normal.inv_cdf(0.975) * math.sqrt(variance / n)


def power(u: float, delta: float, n: int) -> float:
    """How often a paired test of n questions finds a difference."""
    standard_error = math.sqrt((u - delta**2) / n)
    return normal.cdf(delta / standard_error - normal.inv_cdf(0.975))


def enough(u: float, delta: float) -> int:
    """The n with which the test finds the difference in 80 % of samples."""
    both = normal.inv_cdf(0.975) + normal.inv_cdf(0.8)
    return math.ceil(both**2 * (u - delta**2) / delta**2)


delta, shares = 0.05, (0.1, 0.2, 0.3)
rows = {}
for n in (60, 100, 200, 400, 800, 1600):
    rows[n] = {"score of 65 %": f"± {100 * half_width(0.65 * 0.35, n):.1f}"}
    for u in shares:
        rows[n][f"5 points, u = {100 * u:.0f} %"] = (
            f"± {100 * half_width(u - delta**2, n):.1f}, found {100 * power(u, delta, n):.0f} %"
        )
for u in shares:
    print(f"5 points, u = {100 * u:.0f} %: n = {enough(u, delta)} for 80 %")
pd.DataFrame(rows).T.rename_axis("n", axis="columns")

# %% [markdown]
# Do the formulas describe the package's own intervals and tests? The next cell checks the comparison above and
# simulates 200 comparisons:

# %%
unequal = ahead("realm", "fid") + ahead("fid", "realm")
(test,) = (t for t in paired if {t["a"], t["b"]} == {"realm", "fid"})
n = results["questions"]["n"]
formula = half_width(unequal / n - test["difference"] ** 2, n)
bootstrap = (test["ci95"][1] - test["ci95"][0]) / 2
print(f"REALM and FiD: u = {unequal}/{n} = {100 * unequal / n:.0f} %")
print(
    f"half-width by the formula {100 * formula:.1f} points, "
    f"by the bootstrap {100 * bootstrap:.1f}"
)
u, n = 0.2, enough(0.2, delta)
drawn = np.random.default_rng(0).choice(
    [1.0, -1.0, 0.0], (n, 200), p=[(u + delta) / 2, (u - delta) / 2, 1 - u]
)
found = [each.p < ALPHA for each in paired_tests(drawn, resamples=1000)]
print(
    f"n = {n}, u = {100 * u:.0f} %: 5 points found in {sum(found)} of {len(found)}"
)

# %% [markdown]
# If the methods differ on few questions, the test finds fewer than the formula says, for $u = 10$ % in 76 % of samples,
# because counts of few questions are coarse. Methods that read the same passages agree on most questions, so $u$ is
# small and fewer questions are needed. For a first estimate of $u$, compare on some fifty questions, and then write
# as many as {eq}`enough` asks for. Tests of several pairs need more, because Holm's correction lowers the level of
# each test.
#
# ## Layouts of passages
#
# Files written by other programs can be read too. The format of a file is recognised from its content, not
# from its name. Files may be compressed with gzip, bzip2, xz or zstandard, and `-` stands for standard input.
# The tables below name each layout and who defines it, an example file, and how that file begins. Each
# example is written, read and compared with its expected content whenever this page is executed.

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
        f"<th>{name}</th>" for name in ("layout", "file", "begins with")
    )
    rows = []
    for example in examples:
        path = Path(tempfile.mkdtemp()) / example.name
        example.write(path)
        assert read(path, **dict(example.options)) == example.read, (
            example.layout
        )
        cells = [
            f"{escape(example.layout)}<br><small>{escape(example.definition)}</small>"
        ]
        cells += [
            f"<code>{escape(text)}</code>"
            for text in (example.name, beginning(path))
        ]
        rows.append("".join(f"<td>{cell}</td>" for cell in cells))
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return HTML(
        f'<div class="prose stacks"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
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
# read in two ways, choose one with `--format`. A row without an id gets its row number as id. `hf:NAME` reads a
# data set of the Hugging Face hub (`pip install 'ragbook[datasets]'`).
#
# These passages are split only if you ask for it with `--split`. KILT's entries are an exception: they are whole
# articles and are split like documents. `compare` reports passages that are too long for the encoder or a reader.
#
# ## Layouts of questions

# %% tags=["hide-input"]
table(layouts.QUESTIONS, questions)

# %% [markdown]
# A gold id may name a passage, a document (each of its passages then counts) or an article by its title. Ids
# that are not in the corpus are reported and ignored for recall and evidence. With `--gold answer`, any passage
# that contains an answer counts instead, which is how DPR measures retrieval accuracy.
#
# ## Questions without answers
#
# The questions that you will be asked next week have no reference answers. The methods can still be compared
# with each other: for how many questions do two of them give the same answer? Here are twenty other questions
# about the same files, as a text file with one question per line:

# %%
write("asked.txt", "\n".join(q.text for q in about_them[60:80]) + "\n")
ragbook(
    "compare --index my-index --questions asked.txt --k 3 "
    "--methods in-context,realm,fid --out asked",
    shown=False,
)
sheet = agreement(Comparison.load("asked").results)
assert sheet is not None
HTML(sheet.html())

# %% [markdown]
# What does agreement tell you? On MiniWiki's test questions, whose answers are known, this is how often FiD is
# right if REALM gives the same answer, and if REALM gives a different one:

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
# `ragbook retrieve` writes the passages that a retriever finds to run files in TREC's format.
# `ragbook evaluate` scores run files of any origin against relevance judgements (qrels) or the questions' gold
# passages. Here every passage of a question's gold document counts as relevant:

# %%
ragbook(
    "retrieve --index my-index --questions questions.csv --retriever dense,bm25 --k 5 --out runs "
    "--qrels questions.qrels",
    shown=False,
)
print(Path("runs/bm25.trec").read_text().splitlines()[0])
print(Path("questions.qrels").read_text().splitlines()[0])
ragbook(
    "evaluate runs/dense.trec runs/bm25.trec --qrels questions.qrels --measures RR,nDCG@5,Success@1"
)

# %% [markdown]
# Conversely, with `--run FILE` the retriever of `compare` is a ranking of any origin (for example from ColBERT, SPLADE
# or Pyserini), and `--reranker NAME` adds a cross-encoder after any retriever.
#
# ## Output formats
#
# `ragbook results` writes the predictions in the formats of SQuAD's and KILT's evaluation scripts or as CSV, and the
# scores as a tidy table with one row for each method and metric:

# %%
ragbook("results results --format squad --out squad")
ragbook("results results --format tidy-csv --out tidy.csv")
print(shorten(Path("squad/fid.json").read_text(), 78, placeholder=" ..."))
tidy = pd.read_csv("tidy.csv")
tidy[tidy.metric.isin(["em", "contains"]) & tidy.method.isin(["realm", "fid"])][
    ["method", "metric", "value", "low", "high", "n"]
]

# %% [markdown]
# Two stored comparisons can be compared with each other, and a method can be added to one without running
# the others again. Does the retriever matter on these questions? With BM25 in place of the encoder:

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
n = found["questions"]["both"]
same = [
    called(entry["a"])
    for entry in found["methods"]
    if entry["em"]["ci95"] == [0, 0]
]
reached = [
    "{:+.1f} to {:+.1f} points for {}".format(
        *(100 * at for at in entry["em"]["ci95"]), called(entry["a"])
    )
    for entry in found["methods"]
    if entry["em"]["ci95"] != [0, 0]
]
HTML(
    f"<p>On these {n} questions the tests "
    + (
        f"support a difference in exact match for {listed(supported)}."
        if supported
        else "support no difference in exact match."
    )
    + (
        f" The 95 % interval of the change is {listed(reached)}."
        if reached
        else ""
    )
    + (
        f" With either retriever, {listed(same)} {'is' if len(same) == 1 else 'are'} right on the same questions, "
        "and the interval has no width. This does not mean that the retriever never matters: if no score changes "
        f"on n = {n} questions, up to 3/n = {300 / n:.0f} % of such questions may still have another score (the "
        "<em>rule of three</em>, at the level of 95 %)."
        if same
        else ""
    )
    + "</p>"
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
#    with `--split words:100` they fit.
# 3. **What is wrong with the answers?** `errors.png` and `errors.md` sort them ({doc}`chapter 7 <07-side-by-side>`).
#    Many answers that are *cut short* or *too long* differ from the right ones only in wording; `contains` is then the
#    fairer score. Many names from another passage mean that the reader is at its limit.
# 4. **Is the reader at its limit?** Give the methods the gold passage alone (`--retriever oracle --k 1`); with better
#    retrieval they will hardly answer more questions than that. Try a larger reader (`--reader smollm2-reading`, or any model
#    by its name), or train the bundled one on your own questions (`ragbook train reader --corpus ... --questions ...`).
#    It was trained on texts like MiniWiki's; on other texts it often answers simple questions wrongly.

# %% [markdown]
# ## What to remember
#
# A folder of documents and a spreadsheet of questions are enough for a comparison. Passages should be short enough
# for the reader. A few questions decide nothing, whatever the means are: report the interval of the difference
# and an adjusted p, and ask several hundred questions to find a difference of 5 points. Without known answers you can
# still count how often methods agree; where REALM and FiD agree, FiD is right far more often than where they differ.
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
# A whole section can be easier to find than a block of words that begins in the middle of one. But such passages
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
# If two methods give different answers, at most one of them is right. With $a = 0.8$, the sum is therefore at most
# $2 \cdot 0.8 + 0.2 = 1.8$, or 180 %. The lower bound is 0, because both can give the same wrong
# answer: they share the retriever, and often the reader. It is written out in `book/solutions/12-your-data.py`.
#
# </details>
#
# <!-- exercise: ex-data-agreement -->
# **Exercise.** Let several methods vote. Given the answers that they give to each question, return the answer that more
# than half of them give, in the wording of the first that gives it, and None if no answer has more than half.
# Which questions would you send to a person first, and why may a majority of these methods still be wrong?
#
# <!-- end of exercise -->


# %%
def my_majority(answers):
    """For each question a list of texts, one a method -> texts or None."""
    raise NotImplementedError


check.majority(my_majority)

# %% [markdown]
# <!-- solution: ex-data-agreement -->
# <details>
# <summary>Solution</summary>
#
# Count the answers after `ragbook.evaluation.normalize_answer`, which ignores case, punctuation and articles. Send
# those without a majority first. The methods share the retriever and often the reader, and therefore many errors.
# `book/solutions/12-your-data.py` also counts how often the majority is right on MiniWiki.
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
# * *In this book:* {doc}`chapter 10 <10-your-own-method>` adds a method of your own to the comparison, and
#   {doc}`chapter 9 <09-scale>` says what millions of passages need.
# * *Later work:* {cite:t}`khattab2020colbert` compare question and passage token by token, and
#   {cite:t}`nogueira2019passage` rerank what was found; both matter most where recall is low. RAGAs
#   {cite:p}`es2024ragas` scores answers without reference answers: a large model judges whether the passages support
#   each statement. ARES {cite:p}`saadfalcon2024ares` trains its judges on synthetic data, and corrects their scores
#   with a few hundred labelled examples, which also gives intervals.
