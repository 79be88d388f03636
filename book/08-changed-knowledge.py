# %% [markdown]
# # Knowledge that changes
#
# ## The problem
#
# Prime ministers change, records are broken, countries take new names. A model that keeps its knowledge in
# its weights must be trained again; a model that reads can be given a new page. This chapter changes the
# pages and leaves every weight as it is. It measures which methods follow, what else changes, what remains
# after a page is deleted, and how often a false page deceives.
#
# ## The idea
#
# Some of MiniWiki's articles exist in two dated editions, which describe the world at the end of 2012 and
# at the end of 2022. The same question then has two right answers, and which of them is right depends
# only on the passages in the index.

# %% tags=["hide-input"]
import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from experiments import changed_knowledge as change
from experiments import figures
from experiments.report import points
from experiments.sentences import between, ranked
from experiments.source import source
from IPython.display import Markdown, display

from ragbook import load_corpus, methods
from ragbook.corpus import Corpus, Question, miniwiki
from ragbook.evaluation.metrics import exact_match
from ragbook.evaluation.names import called, capital, listed, row_name
from ragbook.evaluation.statistics import ALPHA, cut_off, holm
from ragbook.methods import rag
from ragbook.methods.base import Answer
from ragbook.models import load_encoder

measured = json.loads(Path("results/change.json").read_text())
names = list(methods.NAMES)
readers = ["realm", "rag-sequence", "rag-token", "fid"]

# %%
pairs = miniwiki.changed_questions("test")
print(len(pairs), "test questions whose answer changed")
for earlier, current in pairs[:3]:
    print(
        f"{current.text}\n   2012: {earlier.answers[0]}\n   2022: {current.answers[0]}"
    )

# %% [markdown]
# Neither these questions nor any other question about the same articles was seen in training: articles that exist
# in two editions belong to dev and test only.
#
# ## The mathematics
#
# Only the text of one $z$ changes, and with it its vector, so $s(x, z)$, the prior $p(z \mid x)$ and
# $p(y \mid x, z)$ are computed anew; the equations are the same. The closed-book reader has no $z$, so its answer
# cannot change. A method *follows* a change if it gives the answer of 2012 with the passages of 2012, and
# the answer of 2022 with those of 2022. One right answer is not enough, because a model could have memorised it.
#
# ## The core in ten lines
#
# The toy example has three passages and two possible answers. The first passage is exchanged, and with it
# one row of $p(y \mid x, z)$. For simplicity, the prior is kept.

# %%
y = ["Benedict XVI", "Francis"]
prior = torch.tensor([0.5, 0.3, 0.2])  # p(z | x), [n]
likelihood = {  # p(y | x, z), [n, 2]
    2012: torch.tensor([[0.8, 0.0], [0.1, 0.1], [0.0, 0.1]]),
    2022: torch.tensor([[0.0, 0.8], [0.1, 0.1], [0.0, 0.1]]),
}
said = {}
for year, rows in likelihood.items():
    marginal = prior @ rows  # p(y | x), [2]
    said[year] = y[marginal.argmax()]
    print(year, np.round(marginal.numpy(), 2), said[year])
print("follows:", (said[2012], said[2022]) == (y[0], y[1]))

# %% [markdown]
# Computed by hand, the two sums for 2012 are $0.5 \cdot 0.8 + 0.3 \cdot 0.1 = 0.43$ and
# $0.3 \cdot 0.1 + 0.2 \cdot 0.1 = 0.05$. The package computes the same sum in logarithms:

# %%
print(source(rag.sequence_log_prob))
for year, rows in likelihood.items():
    token_log_probs = rows.T.log()[:, :, None]  # [B, n, T]: an answer a row
    given = rag.sequence_log_prob(
        token_log_probs, prior.log().expand(2, 3), torch.ones(2, 1)
    )
    print(year, "equal:", torch.allclose(given.exp(), prior @ rows))

# %% [markdown]
# `change.followed` counts the questions on which a method is right with both editions. In the next cell there are
# two questions, and the toy method follows one of them.

# %%
texts = {2012: ["Benedict XVI", "one"], 2022: ["Francis", "one"]}
right = {2012: ["Benedict XVI", "one"], 2022: ["Francis", "no spacecraft"]}
given = {
    str(year): {"toy": [Answer("?", text, 0.0, (), 0.0) for text in of_year]}
    for year, of_year in texts.items()
}
wanted = {
    str(year): [Question("?", (answer,)) for answer in of_year]
    for year, of_year in right.items()
}
by_hand = np.mean(
    [
        exact_match(texts[2012][i], [right[2012][i]])
        and exact_match(texts[2022][i], [right[2022][i]])
        for i in range(2)
    ]
)
toy = change.followed(given, wanted)["methods"]["toy"]
print("follows", by_hand, toy["follows"]["mean"])
print("same answer with both", toy["same"]["mean"])

# %% [markdown]
# ## A dozen questions
#
# Twelve dev questions are asked on two small indexes. Each contains every article that changed and a hundred
# passages that did not. `change.answered_over` builds an index of the given passages and asks every method.

# %%
changing = {
    a.title
    for e in miniwiki.EDITIONS
    for a in miniwiki.articles(e)
    if a.changes
}
sample = miniwiki.changed_questions("dev")[:12]
encoder, live, small = load_encoder(), {}, {}
asked = {
    "miniwiki-2012": [a for a, _ in sample],
    "miniwiki": [b for _, b in sample],
}
for name, questions in asked.items():
    whole = load_corpus(name)
    others = [p for p in whole if p.title not in changing][:100]
    kept = [p for p in whole if p.title in changing]
    small[name] = Corpus(name, kept + others)
    live[name] = change.answered_over(small[name], encoder, questions)
for at, (earlier, current) in enumerate(sample[:4]):
    print(f"{current.text} ({earlier.answers[0]} -> {current.answers[0]})")
    for name in names:
        then, now = (live[edition][name][at].text for edition in asked)
        print(f"   {name:<14} {then!r} -> {now!r}")

# %% [markdown]
# A wrong answer can come from the right article. The article of 2012 mentions a smaller wheel in Moscow, and
# the four that are trained to read passages answer *Moscow* with both indexes. The next cell counts on how many
# questions each method follows:

# %%
assert {live[e][m][1].text for e in asked for m in readers} == {"Moscow"}
followed = change.followed(live, asked)
for name, entry in followed["methods"].items():
    print(
        f"{name:<14} follows on {round(12 * entry['follows']['mean'])} of {followed['n']}"
    )

# %% [markdown]
# ## The methods on the index
#
# The same was measured on whole editions and the test split
# (`python -m book.experiments.changed_knowledge`). Each answer is compared with the right answers of 2012 and
# with those of 2022. For a method that says what its index says, the first and the last column are high and the two
# in the middle are low.

# %% tags=["hide-input", "stored-change"] mystnb={"figure": {"caption": "Share of answers that are right in each edition, by the index that was searched. The two middle columns, answers that are right in the other edition only, stay below 5 % for every method.", "alt": "Heat map of right answers by method, edition of the index and edition of the answer"}}
changed = measured["editions"]["changed"]
cells = [(i, a) for i in asked for a in asked]
short = {"miniwiki-2012": "2012", "miniwiki": "2022"}
table = [
    [changed["methods"][m]["right"][i][a]["mean"] for i, a in cells]
    for m in names
]
assert max(max(row[1:3]) for row in table) < 0.05  # as the caption says
columns = [f"index {short[i]}, right in {short[a]}" for i, a in cells]
figures.heat_map(
    np.array(table), names, columns, f"share of {changed['n']} answers"
)

# %% tags=["hide-input", "stored-change"] mystnb={"figure": {"caption": "Share of questions on which a method follows the change, and share that get the same answer with both indexes. Every method follows fewer than half of the changes. The closed-book reader, which always gives the same answer, is left out.", "alt": "For six methods, the share of changed questions followed and the share answered the same with both indexes, with 95 % intervals"}}
entries = changed["methods"]
follows = {called(n): entries[n]["follows"]["mean"] for n in names}
assert entries["closed-book"]["same"]["mean"] == 1
assert max(follows.values()) < 0.5  # as the caption says
figures.grouped(
    {
        "follows the change": {
            n: e["follows"] for n, e in entries.items() if n != "closed-book"
        },
        "same answer with both": {
            n: e["same"] for n, e in entries.items() if n != "closed-book"
        },
    },
    "changed questions",
)

# %% tags=["hide-input", "stored-change"]
right = [entries[n]["right"][i][i]["mean"] for n in readers for i in asked]
other = [
    entries[n]["right"][i][a]["mean"]
    for n in readers
    for i, a in cells
    if i != a
]
Markdown(
    f"With either index, the four that are trained to read passages answer {between(right)} of the "
    f"{changed['n']} questions correctly, and {between(other)} with the other edition's answer. "
    f"They follow {between([entries[n]['follows']['mean'] for n in readers])} of the changes. "
    f"The share of changes that each method follows, the greatest first: {ranked(follows)}. (These shares were not "
    "compared in tests.)"
)

# %% [markdown]
# Following is harder than answering, because it requires two right answers. In-context retrieval puts
# several passages into one prompt, for which the shared reader was not trained.
#
# ## What else moves?
#
# A change should affect what it is about and nothing else. *Near* questions are about articles that changed,
# but their right answers did not change; *far* questions are about other articles. If a method gives another answer
# to such a question, this is a side effect: a different passage is among the five, or the reader attends to
# different words.

# %% tags=["hide-input", "stored-change"] mystnb={"figure": {"caption": "Share of unchanged questions whose answer is different after the swap. Answers to far questions hardly move; every method changes its answer to some of the near ones. The closed-book reader, whose answers cannot move, is left out.", "alt": "Share of unchanged questions whose answer moved, near and far from the change, for six methods with 95 % intervals"}}
unchanged = measured["editions"]["unchanged"]
reads = [n for n in names if n != "closed-book"]
for kind, few in (("near", False), ("far", True)):  # as the caption says
    for n in reads:
        share = unchanged[kind]["methods"][n]["moved"]["mean"]
        assert share < 0.02 if few else share > 0.1
figures.grouped(
    {
        f"{kind} (n = {part['n']})": {
            n: part["methods"][n]["moved"] for n in reads
        }
        for kind, part in unchanged.items()
    },
    "answers that moved",
)

# %% tags=["hide-input", "stored-change"]
shares = {
    kind: (
        f"of the {part['n']} {kind} questions",
        between([part["methods"][n]["moved"]["mean"] for n in readers]),
        *(
            f"{cut_off(part['methods'][n]['moved']['mean'])} %"
            for n in ("in-context", "knn-lm")
        ),
    )
    for kind, part in unchanged.items()
}
near, moved, prompted, remembered = shares["near"]
far, *still = shares["far"]
tests = {
    (kind, n): part["methods"][n]["difference"]["p"]
    for kind, part in unchanged.items()
    for n in readers
}
clear = [
    f"that of {called(n)} on {kind} questions"
    for (kind, n), p in zip(tests, holm(list(tests.values())), strict=True)
    if p < ALPHA
]
display(
    Markdown(
        f"After the swap, {moved} {near} get a different answer from the four that are trained to read passages, "
        f"{prompted} from in-context retrieval and {remembered} from kNN-LM. {capital(far)}, these shares are "
        f"{listed(still)}. "
        + (
            f"Of the changes in exact match, only {listed(clear)} {'is' if len(clear) == 1 else 'are'} significant."
            if clear
            else "None of the four changes significantly in exact match."
        )
    )
)
rows = {
    (kind, row_name(name)): {
        "before, %": cut_off(e["before"]["mean"]),
        "after, %": cut_off(e["after"]["mean"]),
        "difference, points": points(
            {
                "difference": e["difference"]["mean"],
                "ci95": e["difference"]["ci95"],
            }
        ),
        "p": f"{e['difference']['p']:.2f}",
    }
    for kind, part in unchanged.items()
    for name, e in part["methods"].items()
    if name in readers
}
print(
    "exact match before and after the swap, and the difference with its 95 % interval"
)
pd.DataFrame(rows).T

# %% [markdown]
# If as many answers become right as become wrong, exact match stays the same. Only a comparison of the answers
# themselves then shows that something moved.
#
# ## How long does it take?
#
# To update an index, only the passages that changed are encoded, at worst all of them. A model that keeps its
# knowledge in its weights must be trained again, and has to unlearn the old answers too.

# %% tags=["remove-input", "stored-change"]
seconds = measured["seconds"]
Markdown(
    f"Encoding the {seconds['changed']} changed passages takes {seconds['encode_changed']:.1f} seconds, and building "
    f"the index of all {seconds['passages']:,} anew {seconds['build_whole']:.0f} seconds."
)

# %% [markdown]
# Training the bundled reader took 68 minutes on two CPU cores (its card, `ragbook/models/weights/README.md`).
#
# ## What if a passage is deleted?
#
# Now every passage that answers one of the questions is deleted from the index of 2022. The next cell does this
# for the twelve questions on the small index.

# %%
gold = {q.gold_passage for q in asked["miniwiki"] if q.gold_passage}
less = change.edited(small["miniwiki"], gold, (), "less")
print(f"{len(small['miniwiki'])} passages, after the deletion {len(less)}")
without = change.answered_over(less, encoder, asked["miniwiki"], readers)
for name in readers:
    before, after = (
        [
            exact_match(a.text, q.answers)
            for a, q in zip(answers[name], asked["miniwiki"], strict=True)
        ]
        for answers in (live["miniwiki"], without)
    )
    print(f"{name:<13} right: {sum(before)} before, {sum(after)} after")
text, answer = asked["miniwiki"][3].text, without["fid"][3]
print(f"{text}\n   fid, after: {answer.text!r}")

# %% tags=["hide-input", "stored-change"]
gone = measured["editions"]["deleted"]["methods"]
assert measured["editions"]["deleted"]["n"] == 115
(
    pd.DataFrame(
        {
            row_name(n): {
                when: cut_off(gone[n][when]["em"]["mean"])
                for when in ("before", "after")
            }
            for n in names
        }
    )
    .rename_axis("exact match, % of 115")
    .T
)

# %% tags=["hide-input", "stored-change"] mystnb={"figure": {"caption": "Mean probability that a method gives to its answer, before and after the passages that answer the 115 test questions are deleted. For the four that are trained to read passages it falls, but not to zero.", "alt": "Mean probability of the answers before and after deletion for six methods, with 95 % intervals"}}
for n in readers:  # as the caption says
    low = gone[n]["before"]["probability"]["ci95"][0]
    assert low > gone[n]["after"]["probability"]["ci95"][1] > 0
figures.grouped(
    {
        f"probability, {when}": {n: gone[n][when]["probability"] for n in reads}
        for when in ("before", "after")
    },
    "mean probability",
)

# %% [markdown]
# Knowledge cannot be deleted from weights in this way. After a deletion, a method that reads can be right only if
# another passage states the answer too, if its reader learned it in training, or by luck. It still answers every
# question; at best, a lower probability suggests that no passage supports the answer.
#
# ## What if a passage is false?
#
# For each question, a false passage is now added beside the true one: the same words, with the answer of
# another question in place of the right one. Nothing else in the text is changed. The next cell does this
# for twelve changed questions of the test split on a small index, and shows the first of them in detail.

# %%
kept, passages, answers = change.counterfeits(
    [current for _, current in pairs], load_corpus("miniwiki")
)
kept, passages, answers = kept[:12], passages[:12], answers[:12]
true = load_corpus("miniwiki").get(str(kept[0].gold_passage))
print(kept[0].text)
print("true: ", true.text[:70])
print("false:", passages[0].text[:70])
with_false = change.edited(small["miniwiki"], set(), passages, "with false")
told = change.answered_over(with_false, encoder, kept, readers)
for name in readers:
    weights = {e.passage_id: e.weight for e in told[name][0].evidence}
    print(
        f"   {name:<13} {told[name][0].text!r}; weight of the true passage "
        f"{weights.get(true.id, 0):.2f}, of the false one {weights.get(passages[0].id, 0):.2f}"
    )
print("of 12 questions:")
deceived = change.deceived(told, kept, passages, answers)["methods"]
for name, entry in deceived.items():
    counts = [
        f"{round(12 * entry[key]['mean'])} {key}"
        for key in ("true", "false", "neither")
    ]
    print(f"   {name:<13} {', '.join(counts)}")

# %% [markdown]
# The same was measured for 150 questions drawn from the whole test split, on the whole index.

# %% tags=["hide-input", "stored-change"] mystnb={"figure": {"caption": "Answers with a false passage beside the true one in the index: the share of true and of false answers, and the weight of the false passage in the evidence, for the four that are trained to read passages. Each method's mean is higher for the true answer, and about a quarter of the answers are false.", "alt": "Share of true and false answers and weight of the false passage for four methods, with 95 % intervals"}}
false = measured["false"]
labels = {
    "true": "gives the true answer",
    "false": "gives the false answer",
    "weight": "weight of the false passage",
}
assert false["n"] == 150
for n in readers:  # as the caption says
    entry = false["methods"][n]
    assert entry["true"]["mean"] > entry["false"]["mean"]
    assert abs(entry["false"]["mean"] - 0.25) < 0.03
figures.grouped(
    {
        text: {n: false["methods"][n][key] for n in readers}
        for key, text in labels.items()
    },
    f"of {false['n']} questions",
)

# %% tags=["hide-input", "stored-change"]
lies = [false["methods"][n]["false"]["mean"] for n in readers]
truths = [false["methods"][n]["true"]["mean"] for n in readers]
display(
    pd.DataFrame(
        {
            row_name(n): {
                text: cut_off(false["methods"][n][key]["mean"])
                for key, text in (*labels.items(), ("neither", "gives neither"))
            }
            for n in names
        }
    )
    .rename_axis(f"% of {false['n']}")
    .T
)
display(
    Markdown(
        f"The four that are trained to read passages give the false answer to {between(lies)} of the questions and "
        f"the true one to {between(truths)}. Differences between the methods were not tested."
    )
)

# %% [markdown]
# Two things favour the true answer: a substituted name may not fit its sentence or the question, and other
# passages may also state the truth. But no method can know which of two passages is false; at best, its
# evidence shows both. This is the price of following changes: whoever can write to the index can change the
# answers. An index needs as much care as a training set; the hashes in its manifest show whether anyone has
# changed it.
#
# ## What the paper reports
#
# {cite:t}`lewis2020rag` exchange an index of 2016 for one of 2018 and ask about 82 world leaders (section
# 4.5). With the matching index, RAG answers 70 % of the questions correctly for 2016 and 68 % for 2018; with
# the other index, 12 % and 4 %.
#
# ## What to remember
#
# If passages are exchanged, a method that reads changes its answers, without a change to any weight; a method that
# answers from its weights cannot follow. To follow a change is to be right with both editions, and even the best
# method follows fewer than half of the changes. Questions about other articles keep their answers, while some
# about the same articles get new ones. After a deletion the methods still answer. Each of the four that are trained
# to read passages repeats a false passage, even beside the true one, for about a quarter of the questions: whoever
# can write to the index can change the answers.
#
# ## Exercises
#
# <!-- exercise: ex-follow -->
# **Exercise.** A method that does not follow can still be right. Count the questions on which it follows, those on
# which it gives the earlier edition's answer with both indexes (*stale*), those on which it gives the current one's with
# both (*ahead*), and the rest. Given are its answers with each index (two lists of texts) and the accepted answers of
# each edition (two lists of lists). Which of the four are possible for the closed-book reader?
#
# <!-- end of exercise -->

# %%
from exercises import changed_knowledge as check


def my_outcomes(then, now, earlier, current):
    """Texts, texts, accepted answers, accepted answers ->
    (followed, stale, ahead, rest)."""
    raise NotImplementedError


check.outcomes(my_outcomes)

# %% [markdown]
# <!-- solution: ex-follow -->
# <details>
# <summary>Solution</summary>
#
# Both answers of a question are compared with both editions; two right answers the wrong way round belong to the
# rest. The closed-book reader gives the same answer twice, so it can be stale, ahead or the rest. It is written out in
# `book/solutions/08-changed-knowledge.py`.
#
# </details>
#
# <!-- exercise: ex-moves -->
# **Exercise.** Exact match is the same before and after a change. How many answers moved, how many became right and how
# many wrong?
#
# <!-- end of exercise -->


# %%
def my_moves(before, after, accepted):
    """Texts, texts, accepted answers -> (moved, to right, to wrong)."""
    raise NotImplementedError


check.moves(my_moves)

# %% [markdown]
# <!-- solution: ex-moves -->
# <details>
# <summary>Solution</summary>
#
# Compare normalised texts, so that "The Elbe" and "Elbe" are the same answer. An answer can move and stay
# wrong. It is written out in `book/solutions/08-changed-knowledge.py`.
#
# </details>
#
# <!-- exercise: ex-delete -->
# **Exercise.** A method should be able to say "not here": an answer passes if its probability is at least a
# threshold. Choose the highest threshold that at least nine in ten of the right answers from before the deletion
# pass. What share of the answers after the deletion does it reject?
#
# <!-- end of exercise -->


# %%
def my_silenced(before, right, after):
    """Probabilities before, whether each answer was right, probabilities
    after -> the share of the latter below the threshold."""
    raise NotImplementedError


check.silenced(my_silenced)

# %% [markdown]
# <!-- solution: ex-delete -->
# <details>
# <summary>Solution</summary>
#
# Sort the probabilities of the right answers; the threshold is the one below which at most a tenth of them
# lie. For real data, take the answers of `change.answered_over` with the whole corpus and with
# `change.edited(corpus, gold, (), "less")`. How well this can work at all is measured by the area under the
# ROC curve in {doc}`chapter 7 <07-side-by-side>`. It is written out in `book/solutions/08-changed-knowledge.py`.
#
# </details>
#
# <!-- exercise: ex-vote -->
# **Exercise.** Put two true passages and a false one into the index, in different words. Which methods follow the
# majority, and which cannot even in principle?
#
# <details>
# <summary>Solution</summary>
#
# RAG and REALM sum the probability of an answer over the passages that give it, so two passages that
# agree add up; FiD can learn to count, because its decoder reads them together. A method that answers from the best
# passage alone cannot follow a majority (none of this book's methods does so).
#
# </details>
#
# <!-- exercise: ex-majority -->
# **Exercise.** How much of the prior does a false passage need? Given are the prior `[n]` of the other passages, which
# sums to 1, their likelihoods `[n, 2]` of the true and of the false answer, and those of the false passage `[2]`. It
# gets the prior $q$, and the others share $1 - q$ in proportion. At which $q$ are the two answers equally probable?
#
# <!-- end of exercise -->


# %%
def my_share(prior, likelihood, false):
    """[n], [n, 2] and [2] -> the q at which both answers are equal."""
    raise NotImplementedError


check.share(my_share)

# %% [markdown]
# <!-- solution: ex-majority -->
# <details>
# <summary>Solution</summary>
#
# With $d$ the lead of the true answer in the sum over the other passages, and $f$ the lead of the false answer in the
# false passage, $(1 - q) d = q f$, so $q = d / (d + f)$. Two true passages that are equally sure have the lead of
# one, because they share the prior. It is written out in `book/solutions/08-changed-knowledge.py`.
#
# </details>
#
# ## Where next
#
# * *In the paper:* section 4.5 of {cite:t}`lewis2020rag`, the paragraph on index hot-swapping.
# * *In this book:* {doc}`chapter 9 <09-scale>` measures how long an index takes to build and to search as it grows, and
#   {doc}`chapter 12 <12-your-data>` has the commands for pages of your own.
# * *Later work:* {cite:t}`longpre2021conflicts` replace the answer in a passage by another name and count how often a
#   reader still says what it learned in training. {cite:t}`shi2024trusting` contrast the output with and without the
#   passage while decoding, so that a model trusts the passage where the two disagree. {cite:t}`meng2022rome` change
#   the weights instead: they find the layers that store a fact and replace that fact by an update of rank one.
#   {cite:t}`vu2024freshllms` collect questions whose answers change over time, and put search results into the prompt.
