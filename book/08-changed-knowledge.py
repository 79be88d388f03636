# %% [markdown]
# # Knowledge that changes
#
# ## The problem
#
# Prime ministers change, records fall, countries take new names. A model that keeps its knowledge in
# its weights has to be trained again; a model that reads can be handed another page. This chapter
# changes the pages, leaves every weight as it is, and watches who follows, what else moves, what a
# deleted page leaves behind and whom a false one deceives.
#
# ## The idea
#
# Some of MiniWiki's articles exist in two dated editions, as the world stood at the end of 2012 and
# at the end of 2022. The same question then has two right answers, and which of them is right depends
# on nothing but the pages at hand.

# %%
import json
from pathlib import Path

import numpy as np
import pandas as pd
from experiments import changed_knowledge as change
from experiments import figures
from experiments.sentences import between, ranked
from IPython.display import Markdown

from ragbook import load_corpus, methods
from ragbook.corpus import Corpus, miniwiki
from ragbook.evaluation.names import called, listed
from ragbook.evaluation.statistics import cut_off
from ragbook.models import load_encoder

measured = json.loads(Path("results/change.json").read_text())
names = list(methods.NAMES)
readers = ["realm", "rag-sequence", "rag-token", "fid"]
pairs = miniwiki.changed_questions("test")
print(len(pairs), "test questions whose answer changed")
for earlier, current in pairs[:3]:
    print(
        f"{current.text}\n   2012: {earlier.answers[0]}\n   2022: {current.answers[0]}"
    )

# %% [markdown]
# None of these questions, and none about another passage of the same articles, was seen in training:
# articles that exist in two editions belong to dev and test only.
#
# ## The mathematics
#
# Nothing in the methods' equations changes but the text of one $z$. Retrieval finds it by
# $p(z \mid x)$ as before, and $p(y \mid x, z)$ is evaluated on the new words. Closed book has no $z$ at
# all, so its answer cannot change. A method *follows* a change where it says what was right in 2012
# with the passages of 2012, and what was right in 2022 with those of 2022: the one is no merit
# without the other, as a model could know either by heart.
#
# ## The code
#
# A dozen dev questions, here and now, on two small indexes that hold every article that changed and a
# hundred passages that did not. `change.answered_over` builds an index of the passages it is given and
# asks every method.

# %%
changing = {
    a.title
    for e in miniwiki.EDITIONS
    for a in miniwiki.articles(e)
    if a.changes
}
sample = miniwiki.changed_questions("dev")[:12]
encoder, live = load_encoder(), {}
asked = {
    "miniwiki-2012": [a for a, _ in sample],
    "miniwiki": [b for _, b in sample],
}
for name, questions in asked.items():
    whole = load_corpus(name)
    others = [p for p in whole if p.title not in changing][:100]
    small = Corpus(name, [p for p in whole if p.title in changing] + others)
    live[name] = change.answered_over(small, encoder, questions)
for at, (earlier, current) in enumerate(sample[:4]):
    print(f"{current.text} ({earlier.answers[0]} -> {current.answers[0]})")
    for name in names:
        then, now = (live[edition][name][at].text for edition in asked)
        print(f"   {name:<14} {then!r} -> {now!r}")

# %%
followed = change.followed(live, asked)
for name, entry in followed["methods"].items():
    print(
        f"{name:<14} follows on {round(12 * entry['follows']['mean'])} of {followed['n']}"
    )

# %% [markdown]
# ## The methods on the index
#
# The same over whole editions and the test split, measured once and kept
# (`python -m book.experiments.changed_knowledge`). Each answer is marked twice, by what was right in 2012 and
# by what was right in 2022. A method says what its index says if the first and the last column are
# high and the two in the middle are low.

# %% mystnb={"figure": {"caption": "Share of answers that match each edition, by the index that was searched. Where the passages speak and not the weights, the two columns in the middle are empty.", "alt": "Heat map of right answers by method, edition of the index and edition of the answer"}}
changed = measured["editions"]["changed"]
cells = [(i, a) for i in asked for a in asked]
short = {"miniwiki-2012": "2012", "miniwiki": "2022"}
table = [
    [changed["methods"][m]["right"][i][a]["mean"] for i, a in cells]
    for m in names
]
columns = [f"index {short[i]}, right in {short[a]}" for i, a in cells]
figures.heat_map(
    np.array(table), names, columns, f"share of {changed['n']} answers"
)

# %% mystnb={"figure": {"caption": "Share of questions on which a method follows the change, and share on which it says the same whatever its index says.", "alt": "For seven methods, the share of changed questions followed and the share answered the same with both indexes, with 95 % intervals"}}
figures.grouped(
    {
        "follows the change": {
            n: e["follows"] for n, e in changed["methods"].items()
        },
        "same answer with both": {
            n: e["same"] for n, e in changed["methods"].items()
        },
    },
    "changed questions",
)

# %% tags=["remove-input"]
right = [
    changed["methods"][n]["right"][i][i]["mean"] for n in readers for i in asked
]
other = [
    changed["methods"][n]["right"][i][a]["mean"]
    for n in readers
    for i, a in cells
    if i != a
]
follows = {called(n): changed["methods"][n]["follows"]["mean"] for n in names}
Markdown(
    f"The methods that read passages apart answer {between(right)} of these questions rightly with either "
    f"index, and {between(other)} as the other edition would have it. They follow the change, right twice, on "
    f"{between([changed['methods'][n]['follows']['mean'] for n in readers])}; of all methods, "
    f"{ranked(follows)}."
)

# %% [markdown]
# To follow is to be right twice. The shared reader in one prompt of several passages does what it was not
# trained for. Closed book says the same both times by necessity.
#
# ## What else moves?
#
# A change should move what it is about and nothing more. *Near* questions are about articles that
# changed, but their answer did not; *far* ones are about other articles. Where such an answer moves,
# that is collateral damage: another passage has come among the five, or a reader has been drawn to
# other words.

# %% mystnb={"figure": {"caption": "Share of unchanged questions to which the answer is another after the swap. Closed book cannot move; far questions should not.", "alt": "Share of unchanged questions whose answer moved, near and far from the change, for seven methods with 95 % intervals"}}
unchanged = measured["editions"]["unchanged"]
figures.grouped(
    {
        f"{kind} (n = {part['n']})": {
            n: e["moved"] for n, e in part["methods"].items()
        }
        for kind, part in unchanged.items()
    },
    "answers that moved",
)

# %%
rows = {
    (kind, name): {
        "before": e["before"]["mean"],
        "after": e["after"]["mean"],
        "difference": e["difference"]["mean"],
        "low": e["difference"]["ci95"][0],
        "high": e["difference"]["ci95"][1],
        "p": e["difference"]["p"],
    }
    for kind, part in unchanged.items()
    for name, e in part["methods"].items()
    if name in readers
}
pd.DataFrame(rows).T.round(3)

# %% tags=["remove-input"]
said = []
for kind, part in unchanged.items():
    moved = [part["methods"][n]["moved"]["mean"] for n in readers]
    clear = [
        called(n)
        for n in readers
        if not part["methods"][n]["difference"]["ci95"][0]
        <= 0
        <= part["methods"][n]["difference"]["ci95"][1]
    ]
    verdict = (
        f"the difference in exact match excludes zero for {listed(clear)}"
        if clear
        else "every interval of the difference in exact match holds zero"
    )
    said.append(
        f"Of the {kind} questions {between(moved)} get another answer from the methods that read passages "
        f"apart ({cut_off(part['methods']['in-context']['moved']['mean'])} % from one prompt), and {verdict}."
    )
Markdown(" ".join(said))

# %% [markdown]
# Where as many answers move for the better as for the worse, exact match before and after is the same, and
# only the answers themselves show that something moved.
#
# ## How long does it take?
#
# To know something new, an index encodes the passages that changed; that all are encoded again is the
# worst case. A model that keeps its knowledge in its weights is trained again. The bundled reader
# took 68 minutes on the same two cores (its card, `ragbook/models/weights/README.md`), and that run
# would still have to be told which of the old answers to forget.

# %%
seconds = measured["seconds"]
pd.Series(
    {
        f"encode the {seconds['changed']} changed passages": seconds[
            "encode_changed"
        ],
        f"build the index of all {seconds['passages']} anew": seconds[
            "build_whole"
        ],
        "train the reader anew": 68 * 60,
    },
    name="seconds",
).round(1).to_frame()

# %% [markdown]
# ## What if a passage is deleted?
#
# Now the index of 2022 loses every passage that answers one of the questions. What is left to say?

# %% mystnb={"figure": {"caption": "Exact match and the mean probability that a method gives its own answer, before and after the passages that answer were deleted. The answers keep coming, and their probability is the only sign that nothing stands behind them.", "alt": "Exact match and mean probability before and after deletion for seven methods, with 95 % intervals"}}
gone = measured["editions"]["deleted"]["methods"]
figures.grouped(
    {
        f"{what}, {when}": {n: gone[n][when][key] for n in names}
        for what, key in (("exact match", "em"), ("probability", "probability"))
        for when in ("before", "after")
    },
    "share, or probability",
)

# %% [markdown]
# Deleting is what weights cannot do. What an index no longer holds, a method that reads can no longer
# say, except for what its reader learnt elsewhere.
#
# ## What if one is false?
#
# For 150 questions drawn from the test split a false passage stands beside the true one: the same
# words, with the answer of another question in the place of the right one. Nothing else tells the two
# apart. An example from the changed questions:

# %%
questions = [current for _, current in pairs]
kept, passages, answers = change.counterfeits(
    questions, load_corpus("miniwiki")
)
print(kept[0].text)
print(
    "true: ", load_corpus("miniwiki").get(str(kept[0].gold_passage)).text[:160]
)
print("false:", passages[0].text[:160])

# %% mystnb={"figure": {"caption": "With a false passage beside the true one: share of true, false and other answers, and the weight of the false passage in the evidence.", "alt": "Share of true, false and other answers and weight of the false passage for seven methods, with 95 % intervals"}}
false = measured["false"]
labels = {
    "true": "says the true answer",
    "false": "says the false answer",
    "neither": "says neither",
    "weight": "weight of the false passage",
}
figures.grouped(
    {
        text: {n: e[key] for n, e in false["methods"].items()}
        for key, text in labels.items()
    },
    f"of {false['n']} questions",
)

# %% tags=["remove-input"]
lies = {called(n): false["methods"][n]["false"]["mean"] for n in readers}
truths = {called(n): false["methods"][n]["true"]["mean"] for n in readers}
Markdown(
    f"How often each repeats the falsehood: {ranked(lies)}. How often it says the truth: {ranked(truths)}."
)

# %% [markdown]
# An exchanged name may not fit its sentence or its question, and other passages may tell the truth too, which
# is what the truth has in its favour. But no method can know which of two passages lies; the evidence at
# least says that there were two. That is the other side of following: whoever writes into the index writes
# the answers. An index needs the care that a training set needs, and its manifest's hashes are there to say
# that nobody else wrote into it.
#
# ## What the papers had
#
# {cite:t}`lewis2020rag` swap a 2016 for a 2018 index and ask about heads of state: with the matching
# index RAG answers about 70 % right, with the other one few.
#
# ## What to remember
#
# Exchanging passages changes what a method that reads says, without touching a weight; a method that
# answers from its weights cannot follow. To follow a change is to be right with both editions, and
# fewer than half of the changed questions are followed even by the best method. Questions about other
# articles keep their answers, while some about the same articles move. After a deletion the answers
# keep coming. What a false passage says is repeated, even beside the true one, for about a quarter of
# the questions by each of the methods that read passages separately: whoever writes into the index writes
# the answers.
#
# ## Exercises
#
# ```{exercise}
# :label: ex-delete
# A method should be able to say "not here". Which threshold on the probability, chosen before the
# deletion so that nine in ten right answers pass, would silence how many of the answers after it?
# ```
#
# ```{solution} ex-delete
# :class: dropdown
# Ask `change.answered_over` with the whole corpus and with `change.edited(corpus, gold, (), "less")`, take
# the 10 % quantile of the first one's probabilities where the answer is right, and count the second
# one's below it. How well that can work at all is the area under the ROC curve of
# {doc}`chapter 7 <07-side-by-side>`.
# ```
#
# ```{exercise}
# :label: ex-vote
# Put two true passages and one false one into the index, in different words. Which methods follow the
# majority, and which cannot even in principle?
# ```
#
# ```{solution} ex-vote
# :class: dropdown
# RAG and REALM sum the probability of an answer over the passages that give it, so two passages that
# agree add up; FiD can learn to count, as it reads them together. A method that answers from the best
# passage alone cannot.
# ```
