# %% [markdown]
# # Side by side
#
# ## The problem
#
# Five papers, five ways to use a passage, and five tables that cannot be laid beside each other: other
# passages, other retrievers, other sizes, other questions. Here all of that is the same. But which
# weights should the methods have? With the same ones, all but one were made for something else; with
# their own, one can have learnt more than another, and the table compares trainings.
#
# ## The idea
#
# Ask twice. Seven systems, one index, one set of questions, and two tables:
#
# * **(a) The same weights.** One retriever and one reader, no method's own training. What differs here
#   is due to how evidence is combined and to nothing else, for the methods that share all of the
#   reader.
# * **(b) Each as its paper trains it.** From that same start, by its own objective, on the same
#   questions in the same order, for the same number of steps.
#
# `make compare` makes table (b) and writes it beside this page; `ragbook compare --same-weights` makes
# table (a). The page reads both, takes them apart from several sides, and asks a sample of the
# questions again, to see that the stored answers are what the methods say today. Any single answer of
# table (b) is in {doc}`the explorer <explorer>`.

# %%
import gzip
import json
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from experiments import figures, papers
from experiments.report import percent, points
from IPython.display import Markdown

from ragbook import load_corpus, load_questions, methods
from ragbook.evaluation import Comparison, breakdown, compare
from ragbook.evaluation.names import EVIDENCE
from ragbook.evaluation.statistics import ALPHA, adjusted, cut_off
from ragbook.evaluation.words import in_words, order
from ragbook.explorer.pages import question_id
from ragbook.figures import errors, own_and_shared
from ragbook.index import build_index
from ragbook.models import load_encoder
from ragbook.retrieval import DenseRetriever
from ragbook.training.reader.objectives import Recipe


def stored(name: str) -> Any:
    """The content of a file in `results/`."""
    return json.loads(Path(f"results/{name}.json").read_text(encoding="utf-8"))


own, same = stored("results"), stored("same-weights")
with gzip.open("results/predictions.jsonl.gz", "rt", encoding="utf-8") as file:
    predictions = [json.loads(line) for line in file]
questions = load_questions("miniwiki", "test")
names = list(own["methods"])
readers = list(papers.FOUR)
assert own["questions"]["sha256"] == same["questions"]["sha256"]
print(own["questions"]["n"], "questions, k =", own["k"])

# %% mystnb={"figure": {"caption": "Exact match with 95 % bootstrap intervals, twice: after each method's own training, and with the same weights for all. The dotted line is how often the gold passage was among the five of the shared retriever: what lies between a method and the line is reading, what lies beyond it is retrieval.", "alt": "Exact match of closed-book, in-context, kNN-LM, REALM, RAG-Sequence, RAG-Token and FiD with 95 % intervals, each as its paper trains it and all with the same weights"}}
own_and_shared(own, same)

# %% [markdown]
# ## (a) The same weights
#
# The passages, the retriever, the questions and k are the same for all. RAG-Sequence, RAG-Token, FiD
# and in-context retrieval share one seq2seq reader as well: *they* differ in one thing, how they
# combine the passages. That cannot be said of the others. The closed book has that reader and no
# passages. REALM shares its encoder and puts a span scorer in place of the decoder. kNN-LM needs a
# left-to-right model and starts from the same embedded encoder.
#
# In-context retrieval {cite:p}`ram2023incontext` puts all passages into one prompt, the best one last,
# which is what is most often called RAG today:
#
# ![In-context retrieval: three passages and the question become one prompt, which one encoder and one decoder read](diagrams/in-context.svg)
# The shared reader has no room for five passages in one
# input, and it was trained on inputs of one passage each. So its row tells what such a prompt
# does to a reader that never met one, and little about the method: large decoder-only models are
# trained on long texts, and `ragbook compare --reader` runs all methods but REALM on one of them.
#
# REALM can only answer with a run of words of a passage. The comparison holds the methods that write
# to the same (`ragbook compare --free` lets them write what they like), so that a reader that drops a
# piece from the middle of a name it copies does not count as a difference between methods. The rule
# does not keep an answer from stopping early: the first half of a name is a run of words too. How
# often that happens is counted below. What the methods believe, their probabilities, is left alone.

# %%
Comparison(same, [])

# %% [markdown]
# NLL is $-\log p(y \mid x)$ in nats for the first reference answer. A span reader gives an answer that
# no retrieved passage holds the probability zero; where that happens REALM has no mean, and the table
# says the mean over the others and how many they are. Where retrieval fails, a reader that extracts
# can only be wrong, while one that writes is merely unsure.
#
# The marks say which differences are beyond chance. In words, made from the stored tests, first for
# all seven and then for the four that share all of the reader:

# %% tags=["hide-input"]
Markdown(
    papers.bullets([order(same), order(papers.among(same, papers.READ_ALIKE))])
)

# %% [markdown]
# ## (b) Each as its paper trains it
#
# From the shared reader, REALM and RAG raise their own marginal likelihoods, reader and question tower
# together, and FiD the likelihood of its fused passages. All see the same questions in the same order.
# The decoder, or REALM's span scorer, is trained whole, the upper layers of the encoder and of the
# question tower by low-rank changes; the passages' vectors stay as they are, so that the index is the
# same. The likelihood of a written answer is the one that the search compares, among the words of the
# passages. Two lessons of the shared reader's own training go on beside each likelihood, so that they
# are not forgotten (`ragbook.training.reader.objectives`). kNN-LM's paper trains nothing for a memory;
# so that it has had as much as the others, its language model is adapted to the same questions by the
# interpolation that it answers with, keys and all, as {cite:t}`zhong2022trime` do
# (`ragbook.training.reader.memory`). The closed book and in-context retrieval have no training of
# their own and stand in both tables with the same weights. In both tables the length penalty of every
# method's beam search, and kNN-LM's $\lambda$ and temperature, were chosen among the same values on dev
# questions.

# %%
recipe = Recipe()
print(
    f"{recipe.steps} steps of {recipe.batch} questions with {recipe.n} passages, for each method"
)
Comparison(own, predictions)

# %% tags=["hide-input"]
Markdown(papers.bullets([order(own)]))

# %% [markdown]
# The two tables beside each other. Their difference is what a method's own training is worth for so
# small a reader; no test is stored of it, so the intervals have to speak.


# %% tags=["hide-input"]
def em(results: dict[str, Any], name: str) -> str:
    """A method's exact match in percent with its interval."""
    entry = results["methods"][name]
    return percent({"mean": entry["em"], "ci95": entry["ci95"]["em"]})


def recall(results: dict[str, Any], name: str) -> str:
    """How often the gold passage was among those that a method read, in percent."""
    found = results["methods"][name]["recall_at_k"]
    return "–" if found is None else cut_off(found)


def shares(results: dict[str, Any], kind: str) -> dict[str, str]:
    """For every method, the share of its answers that are of a kind of error, in percent."""
    n = results["questions"]["n"]
    return {
        name: cut_off(m["errors"][kind] / n)
        for name, m in results["methods"].items()
    }


pd.DataFrame(
    {
        "(a) EM, same weights (%)": {name: em(same, name) for name in names},
        "(b) EM, own training (%)": {name: em(own, name) for name in names},
        "(a) recall@5 (%)": {name: recall(same, name) for name in names},
        "(b) recall@5 (%)": {name: recall(own, name) for name in names},
    }
)

# %% [markdown]
# The bundled readers are small and were trained on two cores. So the levels say little about the
# methods' papers; the *differences on the same questions* are the point.
#
# ## What went wrong?
#
# A wrong answer can be wrong in several ways, and they do not mean the same. Each answer is counted
# under the first that fits (`ragbook.evaluation.errors`).

# %% mystnb={"figure": {"caption": "What each method's answers are, table (b). A method that loses by answers cut short or too long has found what was asked and says it badly; words of another passage are a fault of weighing, other words of the right passage one of reading, and what was not retrieved is the retriever's.", "alt": "Bars of the seven methods, divided into exact, empty, cut, long, not retrieved, same passage, other passage and not in passages"}}
errors(own)

# %%
Comparison(own, predictions).errors()

# %% [markdown]
# The column *contains* of both tables is the lenient score that the field now reports beside exact
# match: an answer counts if some gold answer stands in it as whole words in a row, both in lower case
# and without punctuation and articles ({cite:t}`mallen2023when`, section 3; the best-subspan accuracy of
# {cite:t}`liu2024lost`, section 2.1). It forgives an answer that says too much, and never one that says
# too little. How the methods stand by it, in (a) and in (b):

# %% tags=["hide-input"]
Markdown(
    papers.bullets(
        [f"(a) {order(same, 'contains')}", f"(b) {order(own, 'contains')}"]
    )
)

# %% [markdown]
# ## Do answers stop early?
#
# A mixture of passages can end an answer too soon: passages that do not hold what was begun give their
# weight to the end. And a search that forbids words without sharing out their probability anew makes
# every further token of a long answer pay for them; so did an earlier version of this package. The
# share of answers that are a gold answer with words missing, on dev questions with each decoding;
# {doc}`chapter 5 <05-rag>` takes the causes apart.

# %%
stops = stored("stops")
ways = {
    "held": "held to the passages",
    "held, without shares": "… without shares",
    "free": "free",
}
print(f"n = {stops['n']} dev questions, cut short (%)")
pd.DataFrame(
    {
        f"{name}, {weights}": {
            head: percent(settings[way]["cut"]) for way, head in ways.items()
        }
        for weights in ("same weights", "own training")
        for name, settings in stops[weights].items()
    }
).T

# %% [markdown]
# And on the test questions of the two tables:

# %%
pd.DataFrame(
    {
        "(a) cut short (%)": shares(same, "cut"),
        "(b) cut short (%)": shares(own, "cut"),
    }
)

# %% [markdown]
# ## Is a difference real?
#
# Methods answer the same questions, so differences are tested in pairs: a bootstrap interval of the
# difference, and a permutation test that flips which method got which answer. All
# pairs together are many chances to be lucky, so the p-values are adjusted for all of them {cite:p}`holm1979`. What the
# tests say of the four that their papers train, with the same weights:


# %% tags=["hide-input"]
def told(results: dict[str, Any]) -> Markdown:
    """The paired tests of the four methods, as sentences."""
    pairs = [(a, b) for i, a in enumerate(readers) for b in readers[i + 1 :]]
    return Markdown(papers.bullets([in_words(results, a, b) for a, b in pairs]))


told(same)

# %% [markdown]
# And each as its paper trains it:

# %% tags=["hide-input"]
told(own)

# %% [markdown]
# All pairs of table (b); positive numbers favour the first name:

# %% tags=["hide-input"]
p_values = adjusted(own["paired"], "em")
pd.DataFrame(
    [
        {
            "a": test["a"],
            "b": test["b"],
            "a - b": test["difference"],
            "low": test["ci95"][0],
            "high": test["ci95"][1],
            "p, adjusted": p_values[frozenset((test["a"], test["b"]))],
        }
        for test in own["paired"]
        if test["metric"] == "em"
    ]
).round(3)

# %% [markdown]
# ## Would another training say the same?
#
# These tests resample questions. They say nothing of the seed of a training, which moves the order of
# the examples and with it the reader. So the trainings of table (b) were made again with other seeds
# (`ragbook train methods --seed S`), and the intervals below hold for other seeds *and* other
# questions: both are resampled, independently of each other ({cite:t}`owen2007pigeonhole`). With few
# seeds this is a coarse measure, and an honest one.

# %%
trained = stored("trained")
print(
    f"{trained['seeds']} seeds, the first {trained['n']} test questions, k = {trained['k']}"
)
pd.DataFrame(
    {
        name: {
            "EM (%)": percent(scores["em"]),
            "contains (%)": percent(scores["contains"]),
            "cut short (%)": percent(scores["cut"]),
            "EM by seed (%)": ", ".join(
                cut_off(value) for value in scores["em"]["by_seed"]
            ),
        }
        for name, scores in trained["methods"].items()
    }
).T

# %% tags=["hide-input"]
told(papers.of_seeds(trained))

# %% [markdown]
# ## Which questions?
#
# Most questions are *plain*: one passage answers them, and they name what they ask about. An *indirect*
# one describes it instead. A *confusable* one has a rival, a passage that says the same kind of thing
# about something else. A *two-passage* one needs a fact from each of two passages, and RAG-Sequence and
# REALM, which take an answer from one passage at a time, have to guess the other.

# %% mystnb={"figure": {"caption": "Exact match by kind of question, table (b). The kinds are reported apart because they ask for different things: plain ones for reading, confusable ones for telling passages apart, indirect ones for a retriever that understands a description, two-passage ones for putting two facts together.", "alt": "Exact match of the seven methods on plain, confusable, indirect and two-passage questions, with 95 % intervals"}}
kinds = breakdown.by_kind(predictions, questions)
figures.grouped(
    {f"{kind} (n = {part['n']})": part["em"] for kind, part in kinds.items()},
    "exact match",
)

# %% [markdown]
# ## Where did the answer come from?
#
# Each method names its evidence in its own way, and these are different measures: a number in the
# column *evidence* can be compared between methods that have the same one, and with no other.
# RAG-Token's is its own since every token may come from another passage; the posteriors token by token
# are in `predictions.jsonl`.
#
# *Leave one out* is the same for all. The passages are read again without one of them, and the evidence
# is how much less likely the answer has become:
#
# $$ \log p(y \mid x, z_1, \dots, z_k) - \log p(y \mid x, \text{all but } z_i). $$
#
# It asks nothing of a method but a probability, and costs those that read all passages together k
# further readings; so it was measured on the first questions only.

# %%
pd.DataFrame(
    {
        name: {
            "evidence is": EVIDENCE[name],
            "highest on the gold passage (%)": cut_off(
                entry["evidence_accuracy"]
            ),
            f"leave one out highest on it (%, n = {entry['leave_one_out_n']})": cut_off(
                entry["leave_one_out_accuracy"]
            ),
        }
        for name, entry in own["methods"].items()
        if entry["evidence_accuracy"] is not None
    }
).T

# %% [markdown]
# If evidence is worth anything, an answer is more often right when the heaviest passage is the gold
# one. Then its weight is a warning that anyone can see, without knowing the answer. First by each
# method's own measure:

# %% mystnb={"figure": {"caption": "Exact match by where the method's own evidence lies. Compare rows and not methods: what is heaviest is another measure in each.", "alt": "Exact match of six methods where the heaviest passage is the gold one, where it is another, and where the gold one was not retrieved"}}
CASES = {
    "gold": "gold passage heaviest",
    "another": "another heaviest",
    "not retrieved": "gold not there",
}


def by_case(evidence: dict[str, Any]) -> dict[str, Any]:
    """Rows of cases with a column a method, from columns of methods with a row a case."""
    return {
        text: {
            name: parts[case]
            for name, parts in evidence.items()
            if case in parts
        }
        for case, text in CASES.items()
    }


evidence = breakdown.by_evidence(predictions)
figures.grouped(by_case(evidence), "exact match")

# %% [markdown]
# And by leave-one-out, where methods can be compared too. A passage without which the answer becomes
# impossible weighs more than any other.


# %% mystnb={"figure": {"caption": "Exact match by where leave-one-out is highest, the same measure for every method.", "alt": "Exact match of six methods where leaving out the gold passage costs most, where leaving out another does, and where the gold one was not retrieved"}}
by_leaving_out = breakdown.by_evidence(predictions, leave_one_out=True)
figures.grouped(by_case(by_leaving_out), "exact match")

# %% [markdown]
# How many questions each case has, by the methods' own measures and by leave-one-out:

# %%
pd.concat(
    {
        what: pd.DataFrame(
            {
                n: {case: part["n"] for case, part in parts.items()}
                for n, parts in found.items()
            }
        ).T
        for what, found in (
            ("own measure", evidence),
            ("leave one out", by_leaving_out),
        )
    },
    axis=1,
)

# %% [markdown]
# ## Who agrees with whom?
#
# Two methods that are right on the same questions add little to each other. Cohen's $\kappa$ is the
# share of questions on which both are right or both wrong, less what chance would give: 0 is no
# agreement beyond chance, 1 is the same questions.

# %% mystnb={"figure": {"caption": "Agreement about which questions are answered rightly, beyond chance, table (b).", "alt": "Heat map of Cohen's kappa between the seven methods"}}
figures.heat_map(
    breakdown.kappa(predictions, names),
    names,
    names,
    "Cohen's κ of being right",
)

# %% mystnb={"figure": {"caption": "How often two methods give the same answer, right or wrong.", "alt": "Heat map of the share of equal answers between REALM, RAG-Sequence, RAG-Token and FiD"}}
figures.heat_map(
    breakdown.agreement(predictions, readers),
    readers,
    readers,
    "share of equal answers",
)

# %% [markdown]
# ## What does each get right that the others do not?

# %%
together = breakdown.shared(predictions, readers)
print(f"of {together['n']} questions all four are right on {together['all']},")
print(f"at least one on {together['any']}, none on {together['none']}")
right = breakdown.right(predictions)
for name in readers:
    print(f"\n{name} alone is right on {together['alone'][name]}:")
    others = [other for other in readers if other != name]
    alone = [
        line
        for i, line in enumerate(predictions)
        if right[name][i] and not any(right[other][i] for other in others)
    ]
    for line in alone[:4]:
        said = {line["methods"][other]["text"] for other in others}
        print(f"  {line['question']}")
        print(
            f"    {line['methods'][name]['text']}  |  the others: {' / '.join(sorted(said))}"
        )
        print(f"    explorer.html#q={question_id(line['question'])}")

# %% [markdown]
# An oracle that always chose the right method would gain over the best one what `at least one` has
# more. The gap is the room that is left for an ensemble; the questions on which none is right, the
# room that is left for reading and retrieval.
#
# ## Is the probability honest?
#
# A method that says $p(y \mid x)$ can be asked whether it means it. Answers are sorted by the
# probability that the method gave them and cut into ten groups of equal size. In an honest method the
# share of right answers equals the mean probability, which is the diagonal. The error in each title is
# the mean distance from it, weighted by the groups' sizes.

# %% mystnb={"figure": {"caption": "Calibration. Above the diagonal a method is right more often than it says: what its probability lacks went to other words for the same answer and to passages that do not hold it. Below the diagonal it is too sure.", "alt": "Seven panels of mean probability against share of right answers with 95 % intervals and the diagonal"}}
honest = {
    name: breakdown.calibration(
        breakdown.probabilities(predictions, name), right[name]
    )
    for name in names
}
figures.calibration(honest)

# %% [markdown]
# Honest or not, a probability is useful if right answers have more of it than wrong ones. The area
# under the ROC curve is how often a right answer has more than a wrong one: 0.5 is a coin.

# %%
for name in names:
    p = breakdown.probabilities(predictions, name)
    print(
        f"{name:<14} mean p {p.mean():.3f}, right {right[name].mean():.3f}, "
        f"area {breakdown.auroc(p[right[name]], p[~right[name]]):.3f}"
    )

# %% [markdown]
# ## Does it know what it does not know?
#
# MiniWiki has questions that seem to be about a passage and that no passage answers. A method can only
# answer; but it can be unsure. The same area says how often it gives its answer to an answerable
# question more probability than its answer to one that is not.

# %% mystnb={"figure": {"caption": "How well the probability of its own answer tells a method which questions can be answered. A bar at 50 could as well toss a coin; the methods were taught to answer, and not what they do not know.", "alt": "Bars of the area under the ROC curve for seven methods"}}
sweep = stored("sweep")
blind = {
    name: np.array(
        [0.0 if value is None else np.exp(value) for value in values]
    )
    for name, values in sweep["unanswerable"]["log_probs"].items()
}
figures.bars(
    {
        name: 100
        * breakdown.auroc(
            breakdown.probabilities(predictions, name), blind[name]
        )
        for name in names
    },
    f"area under the ROC curve (%), {sweep['unanswerable']['n']} unanswerable questions",
)

# %% [markdown]
# ## How good must the retriever be?
#
# The same questions, five passages each, from four retrievers: an oracle that always has the gold
# passage first, the dense one of this comparison, BM25, and passages drawn by lot. These measurements,
# and those by the number of passages, are of the methods as trained, on the first dev questions
# (`python -m book.experiments.side_by_side`).

# %% mystnb={"figure": {"caption": "Exact match by retriever. The step from dense to oracle is what better retrieval could still give; the step from the oracle to 100 % is the reader's. With passages drawn by lot a method has nothing but what its weights know. Recall is that of the retriever as it was given.", "alt": "Exact match of seven methods with oracle, dense, BM25 and random passages, with 95 % intervals"}}
settings = {
    name: sweep[f"{name}, k = 5"]
    for name in ("oracle", "dense", "bm25", "random")
}
print(f"n = {sweep['dense, k = 5']['n']} dev questions")
figures.grouped(
    {
        f"{name} (recall {cut_off(part['recall']['mean'])} %)": {
            method: entry["em"] for method, entry in part["methods"].items()
        }
        for name, part in settings.items()
    },
    "exact match",
)

# %% [markdown]
# ## How many passages?
#
# More passages hold the answer more often, and more that is not the answer.

# %% mystnb={"figure": {"caption": "Exact match against the number of passages read, and recall of the gold passage, which is what the methods had to work with.", "alt": "Exact match of six methods and recall against k, with 95 % intervals"}}
ks = sorted(
    int(name.split("= ")[1]) for name in sweep if name.startswith("dense, k = ")
)
by_k = {k: sweep[f"dense, k = {k}"] for k in ks}
figures.curves(
    {
        "recall": {k: part["recall"] for k, part in by_k.items()},
        **{
            name: {k: part["methods"][name]["em"] for k, part in by_k.items()}
            for name in ["in-context", "knn-lm", *readers]
        },
    },
    "k, passages read",
    "questions",
    log=True,
)

# %% [markdown]
# What each further step brings, in points, tested question by question; a star marks what is beyond
# chance, adjusted for all that is listed. In one prompt every further passage makes the input longer
# than any that the shared reader was trained on, which is why in-context retrieval stands here too:

# %%
steps = papers.gains(by_k, ["in-context", *readers], list(pairwise(ks)))
pd.DataFrame(
    {
        f"from {few} to {many}": {
            gain["method"]: points(gain)
            + (" *" if gain["adjusted_p"] < ALPHA else "")
            for gain in steps
            if (gain["from"], gain["to"]) == (few, many)
        }
        for few, many in pairwise(ks)
    }
)

# %% [markdown]
# ## What does it cost?
#
# Accuracy against seconds a question, on the machine that ran `make book`, and against the memory of
# the weights. A method on the dotted line is beaten by none: whatever is better also costs more.

# %% tags=["nbval-ignore-output"] mystnb={"figure": {"caption": "Exact match against time on a CPU. The closed book reads nothing; RAG-Sequence scores every candidate with every passage; REALM has no decoder to run.", "alt": "Exact match against seconds a question for seven methods, with the line of those that no other beats"}}
score = {
    name: {"mean": entry["em"], "ci95": entry["ci95"]["em"]}
    for name, entry in own["methods"].items()
}


def trade_off(cost: dict[str, float], xlabel: str) -> figures.CheckedFigure:
    """Exact match against a cost, with the methods that no other beats joined."""
    front = breakdown.pareto(
        {name: (cost[name], score[name]["mean"]) for name in names}
    )
    return figures.trade_off(
        {n: (cost[n], score[n]) for n in names}, front, xlabel
    )


trade_off(
    {
        name: entry["seconds_per_question"]
        for name, entry in own["methods"].items()
    },
    "seconds a question",
)

# %% mystnb={"figure": {"caption": "Exact match against the memory of the weights in float32. REALM needs no decoder.", "alt": "Exact match against mebibytes of weights for seven methods, with the line of those that no other beats"}}
trade_off(
    {
        name: 4 * entry["parameters"] / 2**20
        for name, entry in own["methods"].items()
    },
    "weights, MiB",
)

# %% [markdown]
# Weights are not all. What a process really holds at its peak, with libraries, index and the batch of
# 16 questions it answers:

# %%
pd.Series(sweep["memory, MiB"]).round().astype(int).rename(
    "peak memory, MiB"
).to_frame()

# %% [markdown]
# ## On real Wikipedia
#
# Both tables once more, on real passages of Wikipedia and real questions of Natural Questions (figures
# only; the texts are not part of this book). The shared reader was first tuned on 1,180 further such
# questions for 300 steps (`ragbook train reader`): that is *the same weights* here. *Own* is each method
# trained from it by its own objective, as on MiniWiki, once. There are no further questions to
# choose length penalties on, so they were chosen on the first 160 of the questions that are measured,
# which is a little too kind to the methods that write.

# %% mystnb={"figure": {"caption": "Exact match on real questions with 95 % intervals, each as its paper trains it and with the same weights for all. The dotted line is recall: these passages are about things far apart, so what differs here is reading.", "alt": "Exact match of the methods on real questions, twice, with 95 % intervals and recall"}}
real, real_same = stored("nq"), stored("nq-same-weights")
print(f"n = {real['questions']['n']}, {real['index']['passages']:,} passages")
own_and_shared(real, real_same)

# %%
Comparison(real_same, [])

# %%
Comparison(real, [])

# %% [markdown]
# In words, (a) and (b):

# %% tags=["hide-input"]
Markdown(papers.bullets([f"(a) {order(real_same)}", f"(b) {order(real)}"]))

# %%
Comparison(real, []).errors()

# %% [markdown]
# ### Is the order another one?
#
# The six pairs of the four methods on MiniWiki (the first) and on real questions (the second), by what
# the tests of each say. A smaller sample tells fewer pairs apart, so what is told apart *only in the
# first* has not turned over. What could turn the order over, {doc}`chapter 6 <06-fid>` changes piece by
# piece: how many passages, what stands beside the gold one, how long they are, and the training.


# %% tags=["hide-input"]
def turned(
    first: dict[str, Any], second: dict[str, Any], label: str
) -> Iterable[str]:
    """The pairs of the four methods, by whether two comparisons put them alike."""
    yield f"**{label}**\n"
    for kind, pairs in papers.turned_over(first, second).items():
        yield f"* {kind}: {'; '.join(pairs) or 'none'}"
    yield ""


Markdown(
    "\n".join(
        [
            *turned(same, real_same, "The same weights"),
            *turned(own, real, "Their own training"),
        ]
    )
)

# %% [markdown]
# ## What the papers claim, and what these tables show
#
# The papers' numbers are theirs: larger readers, all of Wikipedia, each its own retriever
# ({cite:t}`khandelwal2020knnlm,guu2020realm,lewis2020rag,izacard2021fid`). What can be held against
# each other is the order. The right column is made from stored tests: *as claimed* and *the other way
# round* are differences beyond chance, *open* is one that could be chance.

# %% tags=["hide-input"] mystnb={"markdown_format": "myst"}
tables = {
    "MiniWiki, same weights": same,
    "MiniWiki, own training": own,
    "real questions, same weights": real_same,
    "real questions, own training": real,
}
Markdown(
    papers.markdown(
        papers.claims(tables, by_k, stored("realm"), stored("language"))
    )
)

# %% [markdown]
# The lines on the same weights have no paper, for no paper compares so; beside those on each method's
# own training they tell which part of a claim is the method's and which its training's. One other
# reason for which an order may not come back is tested above, answers that stop early. One is not: the
# readers' size, a fraction of the papers'.
# {doc}`Chapter 4 <04-realm>` has the runs behind REALM's row, {doc}`chapter 6 <06-fid>` FiD with up to 50
# passages, {doc}`chapter 3 <03-knn-lm>` the perplexities.
#
# ## Which method when
#
# What each method needs, what it gives, and where it was seen to be strong or weak in this book:
#
# :::{div} prose
# | method | choose it when | it needs | evidence for an answer | keep in mind |
# |---|---|---|---|---|
# | in-context | a pretrained model takes long prompts and cannot be trained or opened | a model trained on prompts of several passages | none of its own; attention where it can be read | cost grows with the square of the prompt's length; the order of the passages matters ({doc}`chapter 11 <11-one-pretrained-model>`) |
# | kNN-LM | text is continued, and the memory is of the same kind as the text | keys and values for every token | which stored contexts gave a token its mass | lowers perplexity; answers to questions improve little ({doc}`chapter 3 <03-knn-lm>`) |
# | REALM | answers are spans, and each must be traced to a passage | a span reader; no decoder | posterior over passages | cannot say what no passage says ({doc}`chapter 4 <04-realm>`) |
# | RAG-Sequence | one passage holds the whole answer, and it must be known which | a generator; as many decoder passes as passages | posterior over passages | thorough decoding scores every candidate under every passage ({doc}`chapter 5 <05-rag>`) |
# | RAG-Token | an answer takes its parts from several passages | a generator; one search for all passages | a posterior at every token | passages that do not know the answer take part at every token ({doc}`chapter 5 <05-rag>`) |
# | FiD | many passages are read, and there are questions to train on | a generator trained on several passages at once | attention, or leaving a passage out | no distribution over passages; fusion must be learnt ({doc}`chapter 6 <06-fid>`) |
# | closed-book | nothing can be retrieved | what is in the weights | none | knowledge cannot be exchanged ({doc}`chapter 8 <08-changed-knowledge>`) |
# :::
#
# ## The same questions, live
#
# The first questions of the split again, through all seven methods as trained, here and now. Their
# answers must be the stored ones.

# %%
corpus, encoder = load_corpus("miniwiki"), load_encoder()
index = build_index(corpus, Path("../build/index"), encoder, progress=False)
retriever = DenseRetriever(index, encoder)
live = compare(
    methods.load(methods.NAMES, retriever, verbatim=True),
    questions.head(16),
    k=own["k"],
    progress=False,
)
agree = [
    now["methods"][name]["text"] == then["methods"][name]["text"]
    for now, then in zip(live.predictions, predictions, strict=False)
    for name in names
]
print(f"{sum(agree)} of {len(agree)} answers are the stored ones")
assert (
    np.mean(agree) > 0.95
)  # another processor may round a near tie the other way

# %%
for now in live.predictions[:3]:
    print(now["question"], "|", " / ".join(now["answers"][:2]))
    for name in names:
        entry = now["methods"][name]
        print(f"   {name:<14} {'+' if entry['em'] else '-'} {entry['text']}")

# %% [markdown]
# ## What to remember
#
# A comparison of methods has to say whose training it compares: with the same weights the tables show
# how evidence is combined, with each method's own training also what its objective taught. On MiniWiki
# REALM, the two RAGs and FiD are close to each other, and far from in-context retrieval, kNN-LM and the
# closed book, whose models were not trained for this. Differences are tested in
# pairs on the same questions and corrected for the number of pairs; over several training seeds none
# of those between the four was significant. An order found on one set of questions need not hold on
# another: on real questions the tests told other pairs apart.
#
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
# :label: ex-two-tables
# A method is ahead of another in table (b) and not in table (a). Name two reasons that have nothing to
# do with how it combines passages, and a comparison that would tell them apart.
# ```
#
# ```{solution} ex-two-tables
# :class: dropdown
# Its objective may fit the way it answers better, while the other's changes what the reader already
# did well; or its question tower was trained and finds other passages (compare recall@5 in the two
# tables). Take its trained reader with the shared question tower, or the oracle's passages
# (`--retriever oracle`), which leave only the reader.
# ```
#
# ```{exercise}
# :label: ex-kappa
# Two methods are each right on 95 % of the questions, and on 91 % of them both are right or both are
# wrong. Is that much agreement?
# ```
#
# ```{solution} ex-kappa
# :class: dropdown
# Chance alone gives $0.95^2 + 0.05^2 = 90.5\,\%$, so $\kappa = (0.91 - 0.905) / (1 - 0.905) \approx 0.05$:
# hardly any. The share of agreement alone flatters methods that are mostly right, or mostly wrong.
# ```
#
# ```{exercise}
# :label: ex-temperature
# Raise every probability of a method to the power $1/T$ and calibrate again. Which $T$ brings a method
# that is too modest to the diagonal? Why does the area under the ROC curve not move?
# ```
#
# ```{solution} ex-temperature
# :class: dropdown
# `breakdown.calibration(p ** (1 / T), right["realm"])` for a few $T$: above 1 the groups move to the
# right, which a modest method needs, below 1 to the left. The area compares answers in pairs, and a
# power keeps every order.
# ```
#
# ```{exercise}
# :label: ex-own-data
# Run the comparison on passages of your own: `ragbook compare --corpus P --questions Q --out R`.
# Which method loses most when k goes from 5 to 1, and which least?
# ```
#
# ```{solution} ex-own-data
# :class: dropdown
# Look at recall@1 against recall@5 of your retriever first: no method that reads can lose much less
# than that. Those that commit to single passages lose only that; those that need several passages
# for their sum or their attention lose more.
# ```
