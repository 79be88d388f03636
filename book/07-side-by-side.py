# %% [markdown]
# # Side by side
#
# ## The problem
#
# Five papers, five ways to use a passage, and five tables that cannot be laid beside each other: other
# passages, other retrievers, other sizes, other questions. Here all of that is the same.
#
# ## The idea
#
# Seven systems, one index, one retriever, one set of questions. Whatever differs, differs because of
# how the evidence is used. The full run over MiniWiki's test split is made by `make book`, which
# writes its results beside this page. The page reads them, takes them apart from several sides, and
# asks a sample of the questions again, to see that the stored answers are what the methods say today.
# Any single answer is in {doc}`the explorer <explorer>`.

# %%
import json
from pathlib import Path

import numpy as np
import pandas as pd
from experiments import figures
from experiments.report import percent

from ragbook import load_corpus, load_questions, methods
from ragbook.evaluation import Comparison, breakdown, compare
from ragbook.explorer.pages import question_id
from ragbook.figures import side_by_side
from ragbook.index import build_index
from ragbook.models import load_encoder
from ragbook.retrieval import DenseRetriever

results = json.loads(Path("results/results.json").read_text())
lines = Path("results/predictions.jsonl").read_text().splitlines()
predictions = [json.loads(line) for line in lines]
questions = load_questions("miniwiki", "test")
names = list(results["methods"])
readers = ["realm", "rag-sequence", "rag-token", "fid"]
print(results["questions"]["n"], "questions, k =", results["k"])

# %% mystnb={"figure": {"caption": "Exact match and F1 with 95 % bootstrap intervals. The dotted line is what retrieval allows: how often the gold passage was there. Even the best four lie far from it, so reading and not retrieval is the bottleneck here.", "alt": "Exact match and F1 of closed-book, in-context, kNN-LM, REALM, RAG-Sequence, RAG-Token and FiD with 95 % intervals"}}
side_by_side(results)

# %% [markdown]
# ## What is held equal, and what is not
#
# The passages, the retriever, the questions and k are the same for all. Closed book, in-context
# retrieval, RAG-Sequence, RAG-Token and FiD share one seq2seq reader. REALM shares its encoder and puts a span scorer in
# place of the decoder. kNN-LM needs a left-to-right model and starts from the same embedded encoder.
# At last each method that reads passages was trained a few minutes further on its own likelihood,
# which moved nothing but the decoder's biases and layer norms, or the span scorer.
#
# In-context retrieval {cite:p}`ram2023incontext` puts all passages into one prompt, the best one last,
# which is what is most often called RAG today. The shared reader has room for about three of the five
# in one input, and it was trained on inputs of one passage each. So its row tells what such a prompt
# does to a reader that never met one, and little about the method: large decoder-only models are
# trained on long texts, and `ragbook compare --reader` runs all methods but REALM on one of them.
#
# REALM can only answer with a run of words of a passage. The comparison holds the methods that write
# to the same (`ragbook compare --free` lets them write what they like), so that a name with a piece
# missing is not counted as a difference between methods. What they believe, their probabilities, is
# left alone.
#
# The bundled readers are small and were trained in a good hour on two cores. So the levels say little
# about the methods' papers; the *differences on the same questions* are the point.

# %%
Comparison(results, predictions)

# %% [markdown]
# NLL is $-\log p(y \mid x)$ in nats for the first reference answer. A span reader gives an answer that
# no retrieved passage holds the probability zero; where that happens REALM has no mean, and the table
# says the mean over the others and how many they are. Where retrieval fails, a reader that extracts
# can only be wrong, while one that writes is merely unsure.
#
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
# ## Which questions?
#
# Most questions are plain: one passage answers them. A *confusable* one has a rival, a passage that
# says the same kind of thing about something else. A *two-passage* one needs a fact from each of two
# passages.

# %% mystnb={"figure": {"caption": "Exact match by type of question. A rival costs little: the intervals overlap. A second passage costs every method that reads passages apart more than half of its right answers, even FiD, which sees all passages together.", "alt": "Exact match of the seven methods on plain, confusable and two-passage questions, with 95 % intervals"}}
kinds = breakdown.by_kind(predictions, questions)
figures.grouped(
    {f"{kind} (n = {part['n']})": part["em"] for kind, part in kinds.items()}, "exact match"
)

# %% [markdown]
# ## Where did the answer come from?
#
# Each method names its evidence in its own way: REALM and RAG by the posterior
# $p(z \mid x, y) \propto p(z \mid x)\, p(y \mid x, z)$, FiD by the decoder's attention, kNN-LM by the
# mass of each passage's neighbours. If that is worth anything, an answer is more often right when the
# heaviest passage is the gold one.

# %% mystnb={"figure": {"caption": "Exact match by where the evidence lies. With its weight on the gold passage a method that reads passages apart is right about three times in four; with its weight elsewhere, hardly ever. So the weight is a warning that anyone can see.", "alt": "Exact match of six methods where the heaviest passage is the gold one, where it is another, and where the gold one was not retrieved"}}
evidence = breakdown.by_evidence(predictions)
cases = {
    "gold": "gold passage heaviest",
    "another": "another heaviest",
    "not retrieved": "gold not there",
}
figures.grouped(
    {
        text: {name: parts[case] for name, parts in evidence.items() if case in parts}
        for case, text in cases.items()
    },
    "exact match",
)

# %%
pd.DataFrame(
    {name: {case: part["n"] for case, part in parts.items()} for name, parts in evidence.items()}
).T

# %% [markdown]
# ## Who agrees with whom?
#
# Two methods that are right on the same questions add little to each other. Cohen's $\kappa$ is the
# share of questions on which both are right or both wrong, less what chance would give: 0 is no
# agreement beyond chance, 1 is the same questions.

# %% mystnb={"figure": {"caption": "Agreement about which questions are answered rightly, beyond chance. The two RAGs, which share a reader's habits, agree most; closed book and kNN-LM are right on too few questions to agree with anyone.", "alt": "Heat map of Cohen's kappa between the seven methods"}}
figures.heat_map(breakdown.kappa(predictions, names), names, names, "Cohen's κ of being right")

# %% mystnb={"figure": {"caption": "How often two methods give the same answer, right or wrong.", "alt": "Heat map of the share of equal answers between the four methods that read passages apart"}}
figures.heat_map(
    breakdown.agreement(predictions, readers), readers, readers, "share of equal answers"
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
        print(f"    {line['methods'][name]['text']}  |  the others: {' / '.join(sorted(said))}")
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

# %% mystnb={"figure": {"caption": "Calibration. REALM and RAG lie above the diagonal nearly everywhere: they are right more often than they say. What they lack went to other words for the same answer and to passages that do not hold it. FiD is too sure at the top, and of those that read passages apart the least far off on the whole.", "alt": "Seven panels of mean probability against share of right answers with 95 % intervals and the diagonal"}}
honest = {
    name: breakdown.calibration(breakdown.probabilities(predictions, name), right[name])
    for name in names
}
figures.calibration(honest)

# %% [markdown]
# Honest or not, a probability is useful if right answers have more of it than wrong ones. The area
# under the ROC curve is how often a right answer has more than a wrong one: 0.5 is a coin.

# %%
for name in names:
    p = breakdown.probabilities(predictions, name)
    print(f"{name:<14} {breakdown.auroc(p[right[name]], p[~right[name]]):.3f}")

# %% [markdown]
# ## Does it know what it does not know?
#
# MiniWiki has questions that seem to be about a passage and that no passage answers. A method can only
# answer; but it can be unsure. The same area says how often it gives its answer to an answerable
# question more probability than its answer to one that is not.

# %% mystnb={"figure": {"caption": "How well the probability of its own answer tells a method which questions can be answered. A bar at 50 could as well toss a coin, and no bar is far above it: the methods were taught to answer, and know little of what they do not know.", "alt": "Bars of the area under the ROC curve for seven methods"}}
sweep = json.loads(Path("results/sweep.json").read_text())
blind = {
    name: np.array([0.0 if value is None else np.exp(value) for value in values])
    for name, values in sweep["unanswerable"]["log_probs"].items()
}
figures.bars(
    {
        name: 100 * breakdown.auroc(breakdown.probabilities(predictions, name), blind[name])
        for name in names
    },
    f"area under the ROC curve (%), {sweep['unanswerable']['n']} unanswerable questions",
)

# %% [markdown]
# ## How good must the retriever be?
#
# The same questions, five passages each, from four retrievers: an oracle that always has the gold
# passage first, the dense one of this comparison, BM25, and passages drawn by lot. The measurements
# are on the first 200 dev questions (`python -m book.experiments.side_by_side`).

# %% mystnb={"figure": {"caption": "Exact match by retriever. The step from dense to oracle is what better retrieval could still give; the step from the oracle to 100 % is the reader's. With passages drawn by lot every method falls back to what its weights know.", "alt": "Exact match of seven methods with oracle, dense, BM25 and random passages, with 95 % intervals"}}
settings = {name: sweep[f"{name}, k = 5"] for name in ("oracle", "dense", "bm25", "random")}
figures.grouped(
    {
        f"{name} (recall {100 * part['recall']['mean']:.1f} %)": {
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

# %% mystnb={"figure": {"caption": "Exact match against the number of passages read. Beside the methods stands what they had to work with: recall of the gold passage. From one passage to five every method that reads passages apart gains; from five to ten hardly, though recall goes on rising.", "alt": "Exact match of six methods and recall against k from 1 to 10, with 95 % intervals"}}
by_k = {k: sweep[f"dense, k = {k}"] for k in (1, 2, 5, 10)}
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
# In one prompt it is otherwise. With one passage the shared reader reads what it was trained on; with
# each further one its input is longer than any it met:

# %%
for k, part in by_k.items():
    print(f"in-context, k = {k:>2}: {percent(part['methods']['in-context']['em'])} % right")

# %% [markdown]
# ## What does it cost?
#
# Accuracy against seconds a question, on the machine that ran `make book`, and against the memory of
# the weights. A method on the dotted line is beaten by none: whatever is better also costs more.

# %% tags=["nbval-ignore-output"] mystnb={"figure": {"caption": "Exact match against time on two CPU cores. Closed book is quick because it reads nothing. Of the four that read passages apart, REALM is the quickest, and RAG-Sequence, which scores every candidate with every passage, the slowest.", "alt": "Exact match against seconds a question for seven methods, with the line of those that no other beats"}}
score = {
    name: {"mean": entry["em"], "ci95": entry["ci95"]["em"]}
    for name, entry in results["methods"].items()
}


def trade_off(cost: dict[str, float], xlabel: str) -> figures.CheckedFigure:
    """Exact match against a cost, with the methods that no other beats joined."""
    front = breakdown.pareto({name: (cost[name], score[name]["mean"]) for name in names})
    return figures.trade_off({n: (cost[n], score[n]) for n in names}, front, xlabel)


trade_off(
    {name: entry["seconds_per_question"] for name, entry in results["methods"].items()},
    "seconds a question",
)

# %% mystnb={"figure": {"caption": "Exact match against the memory of the weights in float32. REALM needs no decoder: of the four that read passages apart it is the smallest, and here the best.", "alt": "Exact match against mebibytes of weights for seven methods, with the line of those that no other beats"}}
trade_off(
    {name: 4 * entry["parameters"] / 2**20 for name, entry in results["methods"].items()},
    "weights, MiB",
)

# %% [markdown]
# Weights are not all. What a process really holds at its peak, with libraries, index and the batch of
# 16 questions it answers:

# %%
pd.Series(sweep["memory, MiB"]).round().astype(int).rename("peak memory, MiB").to_frame()

# %% [markdown]
# ## On real Wikipedia
#
# Six of these systems on real passages of Wikipedia and real questions of Natural Questions (figures
# only; the texts are not part of this book). The readers were tuned on 1,180 further such questions
# first, with one command (`ragbook train reader`); *before* is what they had answered untuned, when
# they had seen nothing but MiniWiki and invented worlds.

# %%
real, untuned = (
    json.loads(Path(f"results/{name}.json").read_text()) for name in ("nq", "nq-untuned")
)
print(f"n = {real['questions']['n']}, {real['index']['passages']:,} passages")
before = pd.Series(
    {
        name: percent({"mean": entry["em"], "ci95": entry["ci95"]["em"]})
        for name, entry in untuned["methods"].items()
    },
    name="EM before (%)",
)
before.to_frame()

# %%
Comparison(real, [])

# %% [markdown]
# The gold passage is nearly always among the five, for most of these passages are about things far
# apart; so what differs is reading. Tuning adds ten to nineteen points of exact match, most to FiD.
# REALM is ahead of the three that write, with intervals that exclude zero: Natural Questions' short
# answers are runs of words of a passage, which is all that it can say.
#
# ## The same questions, live
#
# The first questions of the split again, through all seven methods, here and now. Their answers must
# be the stored ones.

# %%
corpus, encoder = load_corpus("miniwiki"), load_encoder()
index = build_index(corpus, Path("../build/index"), encoder, progress=False)
retriever = DenseRetriever(index, encoder)
live = compare(
    methods.load(methods.NAMES, retriever, verbatim=True),
    questions.head(16),
    k=results["k"],
    progress=False,
)
same = [
    now["methods"][name]["text"] == then["methods"][name]["text"]
    for now, then in zip(live.predictions, predictions, strict=False)
    for name in names
]
print(f"{sum(same)} of {len(same)} answers are the stored ones")
assert np.mean(same) > 0.95  # another processor may round a near tie the other way

# %%
for now in live.predictions[:3]:
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
# Raise every probability of a method to the power $1/T$ and calibrate again. Which $T$ brings REALM
# to the diagonal? Why does the area under the ROC curve not move?
# ```
#
# ```{solution} ex-temperature
# :class: dropdown
# `breakdown.calibration(p ** (1 / T), right["realm"])` for a few $T$ above 1: the groups move to the
# right, as REALM is too modest. The area compares answers in pairs, and a power keeps every order.
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
