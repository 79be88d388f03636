# %% [markdown]
# # Side by side
#
# Five papers report five tables that cannot be compared, because they use different passages, retrievers,
# model sizes and questions. This chapter keeps all of these fixed and compares the methods twice. In **(a)**,
# *the same weights*, no method is trained for itself: the generators share one reader, REALM has that reader's
# encoder with a span scorer, and kNN-LM a language model from the same start. In **(b)** each method starts from these
# weights and is trained *by its own objective*, if it has one, on the same questions and for the same number of steps.

# %% tags=["hide-input", "stored-results", "stored-same-weights"]
import gzip
import inspect
import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from experiments import figures, paired, papers
from experiments.report import percent, points
from experiments.sentences import between, counted, widest_errors
from IPython.display import Markdown

from ragbook import load_corpus, load_questions, methods
from ragbook.evaluation import Comparison, breakdown, compare
from ragbook.evaluation.names import EVIDENCE, called, listed, row_name
from ragbook.evaluation.statistics import ALPHA, cut_off, holm, paired_test
from ragbook.evaluation.words import order
from ragbook.explorer.pages import question_id
from ragbook.figures import errors, own_and_shared
from ragbook.index import build_index
from ragbook.methods import knn_lm, rag, realm
from ragbook.models import load_encoder
from ragbook.retrieval import DenseRetriever
from ragbook.training.reader.objectives import Recipe


def stored(name: str) -> Any:
    """The content of a file in `results/`."""
    return json.loads(Path(f"results/{name}.json").read_text(encoding="utf-8"))


def em(results: dict[str, Any], name: str) -> str:
    """A method's exact match in percent with its interval."""
    entry = results["methods"][name]
    return percent({"mean": entry["em"], "ci95": entry["ci95"]["em"]})


own, same = stored("results"), stored("same-weights")
real, real_same = stored("nq"), stored("nq-same-weights")
trained, sweep = stored("trained"), stored("sweep")
with gzip.open("results/predictions.jsonl.gz", "rt", encoding="utf-8") as file:
    predictions = [json.loads(line) for line in file]
questions = load_questions("miniwiki", "test")
names, readers = list(own["methods"]), list(papers.FOUR)
assert own["questions"]["sha256"] == same["questions"]["sha256"]
print(
    f"exact match, %; n = {own['questions']['n']:,}, {own['k']} passages each"
)
pd.DataFrame(
    {
        "(a) same": {row_name(name): em(same, name) for name in names},
        "(b) own": {row_name(name): em(own, name) for name in names},
    }
)

# %% tags=["remove-input", "stored-same-weights", "stored-results", "stored-trained", "stored-nq"]
for table in (same, own):  # as the first sentence says
    assert all(
        papers.direction(table, name, other) > 0
        for name in readers
        for other in names
        if other not in readers
    )


def four(results: dict[str, Any]) -> str:
    """The order of the four that are trained to read passages."""
    return order(papers.among(results, readers), named=False)


Markdown(
    "In both tables REALM, FiD and the two RAGs are significantly and far ahead of in-context retrieval, kNN-LM "
    "and the closed-book reader. Which of the four is best depends on the training and on the questions. By exact "
    "match:\n\n"
    + papers.bullets(
        [
            f"**(a), the same weights:** {four(same)} These weights may favour FiD, because some of "
            "their training fused several passages as FiD does.",
            f"**(b), each by its own objective:** {four(own)}",
            f"**(b) with {trained['seeds']} training seeds** (n = {trained['n']}): "
            f"{four(papers.of_seeds(trained))}",
            f"**Real questions,** own objectives (Natural Questions, n = {real['questions']['n']}, one seed): "
            f"{four(real)}",
        ]
    )
    + "\n\nA difference is *significant* here if its paired test gives p < 0.05 after "
    "Holm's correction for all pairs of methods; any other difference *could be chance*. "
    "The section *Is a difference real?* explains the test."
)

# %% [markdown]
# The rest of the chapter asks why. It shows where each method combines its passages, what goes wrong in its
# answers, which differences are real, and what each method costs. {doc}`The explorer <explorer>` has every
# method's answer to every question.

# %% mystnb={"figure": {"caption": "Exact match with 95 % bootstrap intervals, each method trained by its own objective and with the same weights for all. The dotted line is the share of questions whose gold passage is among the five that the shared retriever found. Most of what a method lacks below the line is lost in reading, most of what lies above it in retrieval.", "alt": "Exact match of in-context, kNN-LM, REALM, RAG-Sequence, RAG-Token and FiD with 95 % intervals, each by its own objective and all with the same weights"}} tags=["hide-input", "stored-results", "stored-same-weights"]
own_and_shared(papers.among(own, names[1:]), same)

# %% [markdown]
# ## Where the passages are combined
#
# :::{div} prose
# | method | what it combines | at which point |
# |---|---|---|
# | in-context | the passages' texts | in one prompt, before the model reads |
# | FiD | the encoder's states of all passages | in the decoder's cross-attention |
# | RAG-Token | distributions over the next token | at every token: a product of sums |
# | RAG-Sequence | probabilities of a whole answer | after the answer: a sum of products |
# | REALM | probabilities of a whole answer, as a span | after the answer: a sum over spans |
# | kNN-LM | stored contexts, with the model's distribution | at every token, in the output |
# :::
#
# In-context retrieval {cite:p}`ram2023incontext` is what is most often called RAG today. The best passage comes
# last in the prompt:
#
# ![In-context retrieval: three passages and the question become one prompt, which one encoder and one decoder read](diagrams/in-context.svg)
#
# Four of these rules can be worked out by hand. Take two passages with $p(z \mid x) = 0.6$ and $0.4$, and an
# answer of two tokens. Given the first passage, the tokens have the probabilities 0.9 and 0.1; given the second,
# 0.2 and 0.8. Each passage supports one half of the answer.

# %%
prior = torch.tensor([0.6, 0.4])  # p(z|x), [n_docs]
token = torch.tensor([[0.9, 0.1], [0.2, 0.8]])  # p(y_t|x,z,y_<t)
model = torch.tensor([0.1, 0.2])  # p_LM(y_t|x,y_<t), [T]

by_hand = {
    "RAG-Sequence": (prior * token.prod(1)).sum(),  # 0.6*0.09 + 0.4*0.16
    "REALM": (prior * torch.tensor([0.09, 0.16])).sum(),  # span shares
    "RAG-Token": (prior[:, None] * token).sum(0).prod(),  # 0.62 * 0.38
    "kNN-LM": (0.75 * model + 0.25 * (prior @ token)).prod(),
}
for name, p in by_hand.items():
    print(f"{name:<13} {p:.4f}")

# %% [markdown]
# RAG-Token gives this answer about twice the probability that RAG-Sequence gives it, because it may change
# passages between tokens. That helps if the two halves belong together and hurts if they do not. kNN-LM's memory
# distribution comes from stored tokens, not from passages read for the question; here it is set to RAG-Token's
# mixture, with $\lambda = 0.25$. FiD and in-context
# retrieval have no such formula: one network reads all passages and returns
# $p(y_t \mid x, z_1, \dots, z_k, y_{<t})$. The package's functions give the same four numbers:

# %%
for function in (rag.sequence_log_prob, rag.token_log_prob):
    source = inspect.getsource(function)
    print(source[: source.index('r"""')].rstrip(), source.split('"""')[-1])

doc = prior.log()[None]  # [B, n_docs]
tokens = token.log()[None]  # [B, n_docs, T]
mask = torch.ones(1, 2)  # [B, T]
print([tuple(each.shape) for each in (doc, tokens, mask)])
spans = torch.tensor([[0.09, 0.16]]).log()  # [B, n_docs]
ours = {
    "RAG-Sequence": rag.sequence_log_prob(tokens, doc, mask),
    "REALM": realm.marginal_log_prob(spans, doc),
    "RAG-Token": rag.token_log_prob(tokens, doc, mask),
    "kNN-LM": knn_lm.interpolate(
        model.log(), (prior @ token).log(), torch.tensor(0.25)
    ).sum(),
}
for name, log_p in ours.items():
    torch.testing.assert_close(log_p.exp().squeeze(), by_hand[name])
print("equal for", ", ".join(ours))

# %% [markdown]
# On the index, RAG-Sequence, RAG-Token, FiD and in-context retrieval share one seq2seq reader. With the same
# weights and a length penalty of 0, they differ only in how they combine the passages. With *one* passage
# they are therefore the same model. The next cell checks this on some test questions and then gives them five
# passages. NLL is $-\log p(y \mid x)$ in nats, here of the first reference answer.

# %%
corpus, encoder = load_corpus("miniwiki"), load_encoder()
index = build_index(corpus, Path("../build/index"), encoder, progress=False)
retriever = DenseRetriever(index, encoder)
asked = list(questions)[:16]
references = [question.answers[0] for question in asked]
alike = methods.load(
    papers.READ_ALIKE, retriever, verbatim=True, shared=True, length_penalty=0
)
nll = {
    k: {m.name: -m.log_prob(asked, references, k) for m in alike}
    for k in (1, 5)
}
for values in nll[1].values():
    torch.testing.assert_close(values, nll[1]["fid"], rtol=1e-3, atol=1e-3)
print(f"with one passage all four are equal on {len(asked)} questions")
median = {name: float(values.median()) for name, values in nll[5].items()}
assert median["fid"] < median["rag-sequence"] < median["rag-token"]
pd.DataFrame(
    {
        f"median NLL, k = {k}": {
            row_name(name): round(float(values.median()), 2)
            for name, values in nll[k].items()
        }
        for k in nll
    }
)

# %% [markdown]
# With five passages, those without the answer lower RAG's probabilities: once for the whole answer in
# RAG-Sequence, and at every token in RAG-Token, which costs more on these questions. FiD's decoder can disregard
# such passages. Its median NLL is the lowest here, although its mean over all test questions, in table (a), is
# the highest of the three.
#
# {doc}`Chapter 5 <05-rag>` describes the reader. The closed-book reader is the same one without passages. REALM shares its encoder and has a span scorer
# in place of the decoder. kNN-LM needs a left-to-right model, which starts from the same bundled encoder.
#
# The shared reader was trained on one passage at a time and on several fused as in FiD, but never on a prompt
# of several passages. Table (a) therefore says little about in-context retrieval as a method: it shows what such
# a prompt does to a reader that has never seen one.

# %% tags=["remove-input", "stored-predictions"]
read = [
    sum(e["weight"] > 0 for e in line["methods"]["in-context"]["evidence"])
    for line in predictions
]
assert set(read) == {3, 4, 5}  # as the sentences say
Markdown(
    "The prompt also has a limited length: passages that do not fit are left out, the lowest ranked first. "
    f"All five were read for {read.count(5):,} of the {len(read):,} questions, four for {read.count(4):,} and "
    f"three for {read.count(3):,}."
)

# %% [markdown]
# Large decoder-only models are trained on long texts. `ragbook compare --reader` runs all methods except REALM
# on such a model ({doc}`chapter 11 <11-one-pretrained-model>`).
#
# ## (a) The same weights
#
# REALM can only answer with a span of a passage. In this comparison the methods that generate are restricted to
# such spans too (`ragbook compare --free` lifts the restriction); otherwise a generator that drops part of a name
# would look like a worse way to combine passages. An answer can still end too early, because the first half of a
# name is a span as well.

# %% tags=["stored-same-weights"]
Comparison(same, [])

# %% [markdown]
# A span reader gives probability zero to an answer that no retrieved passage contains, so REALM's mean NLL is
# infinite; the table adds the mean over the other questions and their number. A reader that generates gives such
# an answer a small probability.

# %% tags=["remove-input", "stored-same-weights"]
penalties = {
    same["methods"][name]["length_penalty"] for name in papers.READ_ALIKE
}
assert len(penalties) > 1  # as the first sentence says
Markdown(
    "The four methods that share the whole reader differ only in how they combine the passages and in a length "
    "penalty, which was chosen for each on dev questions. "
    f"{order(papers.among(same, papers.READ_ALIKE))} The shared weights are not neutral, though: the reader was "
    "trained on passages fused as in FiD, but neither on sums over passages nor on long prompts. This table cannot "
    "separate FiD's rule from that training. Table (b) trains each method by its own rule."
)

# %% [markdown]
# ## (b) Each by its own objective
#
# The objectives are the papers'; the training is much smaller. REALM and RAG each maximise their own marginal
# likelihood and train the reader and the question tower together. FiD maximises the likelihood of the answer given
# all its passages. The decoder, or REALM's span scorer, is trained in full; the upper layers of the encoder and of
# the question tower get low-rank updates. The passages' vectors are frozen, so that all methods search the same
# index. The likelihood, like the search, covers only answers made of the passages' words. Two tasks of the shared
# reader's training continue, so that the reader does not forget them (`ragbook.training.reader.objectives`).
#
# The kNN-LM paper trains nothing for the memory. To give kNN-LM as many steps as the others, its language model,
# keys included, is trained on the same questions through the interpolated distribution, as
# {cite:t}`zhong2022trime` do (`ragbook.training.reader.memory`). The closed-book reader and in-context retrieval
# have no objective of their own and keep the shared weights. In both tables the length penalty of every beam
# search, and kNN-LM's $\lambda$ and temperature, were chosen on dev questions, from the same values for all methods.

# %% tags=["stored-results"]
recipe = Recipe()
print(
    f"{recipe.steps} steps of {recipe.batch} questions with {recipe.n} passages, for each method"
)
Comparison(own, predictions)

# %% tags=["remove-input", "stored-same-weights", "stored-results"]
change = {
    name: own["methods"][name]["em"] - same["methods"][name]["em"]
    for name in names
}
retuned = [
    "{} from {:g} to {:g}".format(
        called(name),
        *(
            results["methods"][name]["length_penalty"]
            for results in (same, own)
        ),
    )
    for name in papers.READ_ALIKE
    if same["methods"][name]["length_penalty"]
    != own["methods"][name]["length_penalty"]
]
gained, lost = (
    {n: cut_off(abs(d)) for n, d in change.items() if sign * d > 0}
    for sign in (1, -1)
)
assert retuned  # as the sentences say
assert list(lost) == ["fid"]
Markdown(
    "From (a) to (b) the weights change, and with them the length penalty that was best on dev questions "
    f"({listed(retuned)}). In points of exact match, the gains are "
    f"{listed([f'{by} ({called(n)})' for n, by in gained.items()])}, and FiD loses {lost['fid']}. None of these "
    "changes was tested. FiD may have had the least to learn, because the shared reader had already been trained on "
    "fused passages."
)

# %% [markdown]
# The readers are far smaller than the papers', so the scores say little about the papers; what counts are the
# *differences on the same questions*.
#
# ## What went wrong?
#
# Each answer is counted under the first kind that fits (`ragbook.evaluation.errors`). A *cut* answer contains only
# part of a gold answer, a *long* one contains more. An answer from *another passage* is an error in weighing
# passages, and a wrong answer from the gold passage (*same passage*) is an error in reading. If the gold passage
# was *not retrieved*, the error is the retriever's.

# %% mystnb={"figure": {"caption": "What each method's answers are, table (b). The four that are trained to read passages miss the gold passage equally often and read it about equally well. They differ in how often they answer from another passage.", "alt": "Bars of the seven methods, divided into exact, empty, cut, long, not retrieved, same passage, other passage and not in passages"}} tags=["hide-input", "stored-results"]
errors(own)

# %% tags=["hide-input", "stored-same-weights", "stored-results", "stored-nq-same-weights", "stored-nq"]
TABLES = {
    "MiniWiki, same weights": same,
    "MiniWiki, own training": own,
    "real questions, same weights": real_same,
    "real questions, own training": real,
}
pd.DataFrame(
    [widest_errors(results, readers) for results in TABLES.values()],
    index=list(TABLES),
).rename(
    columns={
        "kind": "kind that differs most",
        "next": "next kind, and its range",
    }
)

# %% [markdown]
# Among REALM, the two RAGs and FiD, one kind of error varies most in all four comparisons: answers from another
# passage. What separates the four is *which passage is believed* (these shares were not tested, and REALM also has
# its own span scorer). The next table has all counts of table (b):

# %% tags=["stored-results"]
Comparison(own, predictions).errors()

# %% [markdown]
# The column *contains* of the tables is a lenient score: an answer counts if it contains a gold answer as
# consecutive whole words, both in lower case and without punctuation and articles ({cite:t}`mallen2023when`,
# section 3; the best-subspan accuracy of {cite:t}`liu2024lost`, section 2.1). It accepts an answer that says
# too much, but not one that says too little. By this score:

# %% tags=["remove-input", "stored-same-weights", "stored-results"]
Markdown(
    papers.bullets(
        [
            f"**(a)** {order(same, 'contains', named=False)}",
            f"**(b)** {order(own, 'contains', named=False)}",
        ]
    )
)

# %% [markdown]
# A mixture over passages can also end an answer too early: once an answer has begun, the passages that do not
# contain it favour the end token ({doc}`chapter 5 <05-rag>`). On the test questions this is rare, and it is about
# as rare for FiD, which has no mixture:

# %% tags=["hide-input", "stored-same-weights", "stored-results"]
pd.DataFrame(
    {
        f"{table} answers cut short (%)": {
            row_name(name): cut_off(
                entry["errors"]["cut"] / results["questions"]["n"]
            )
            for name, entry in results["methods"].items()
        }
        for table, results in (("(a)", same), ("(b)", own))
    }
)

# %% [markdown]
# ## Is a difference real?
#
# All methods answer the same questions, so each pair of methods is compared question by question. If the two are
# equally good, chance alone decides which of them gave which answer, and any difference could as well have the
# opposite sign. The p-value is the share of all combinations of signs whose sum is at least as far from zero as
# the observed sum. Ten lines compute it for eight questions:

# %%
a = np.array([1, 1, 0, 1, 1, 1, 0, 1])  # 1: answered correctly, [n]
b = np.array([0, 1, 0, 0, 1, 0, 0, 1])
difference = a - b  # three questions that only a answers
flips = np.array(list(itertools.product([-1, 1], repeat=len(a))))  # [2^n, n]
sums = flips @ difference  # [2^n]
p = np.mean(np.abs(sums) >= abs(difference.sum()))
print(f"{flips.shape[0]} flips of {flips.shape[1]} signs: p = {p}")  # 2 / 2^3

print(inspect.getsource(paired_test).split('"""')[0].rstrip())
test = paired_test(a, b)  # draws 10,000 of the flips at random
print(f"difference {test.difference}, p = {test.p:.2f}")
assert abs(test.p - p) < 0.02
print("three tests after Holm's correction:", holm([0.01, 0.04, 0.03]))

# %% [markdown]
# The more pairs are tested, the more of them look significant by chance, so the p-values are adjusted for the
# number of pairs {cite:p}`holm1979`: the smallest is multiplied by the number of tests, the next by one less and
# so on, and no adjusted value may fall below the one before it. The interval of a difference comes from a
# bootstrap over questions and is not adjusted. A star marks an adjusted p below 0.05.
#
# These tests account for the choice of questions, but not for the training seed, which determines the order of the
# training examples and therefore the reader. The training of table (b) was repeated with other seeds
# (`ragbook train methods --seed S`), and the last column of the table below resamples seeds *and* questions,
# independently ({cite:t}`owen2007pigeonhole`). With so few seeds this is a coarse measure.

# %% tags=["hide-input", "stored-same-weights", "stored-results", "stored-trained"] mystnb={"figure": {"caption": "Differences of exact match between the four, in points, with their 95 % intervals. A filled mark is significant after the correction; a hollow one could be chance.", "alt": "Six pairs of methods and their differences of exact match with the same weights, with their own training and over several seeds, with 95 % intervals"}}
paired.differences(
    {
        "(a) same weights": papers.pairs(same),
        "(b) own training": papers.pairs(own),
        "(b) several seeds": papers.pairs(papers.of_seeds(trained)),
    },
    "difference of exact match in points",
)

# %% tags=["hide-input", "stored-same-weights", "stored-results", "stored-trained"]
print("difference of exact match in points [95 % interval]")
pd.DataFrame(
    {
        "(a) same weights": papers.in_pairs(same),
        "(b) own training": papers.in_pairs(own),
        f"(b) {trained['seeds']} seeds, n = {trained['n']}": papers.in_pairs(
            papers.of_seeds(trained)
        ),
    }
)

# %% [markdown]
# The exact match of each seed, in percent:

# %% tags=["hide-input", "stored-trained"]
pd.DataFrame(
    {
        row_name(name): {
            "EM [over seeds and questions]": percent(scores["em"]),
            "by seed": ", ".join(
                cut_off(value) for value in scores["em"]["by_seed"]
            ),
        }
        for name, scores in trained["methods"].items()
    }
).T

# %% [markdown]
# ## Which questions?
#
# Most questions are *plain*: they name what they ask about, and one passage answers them. An *indirect* question
# describes its subject without naming it, so the retriever has to understand the description. A *confusable*
# question has a rival passage that says the same kind of thing about something else. A *two-passage* question
# needs a fact from each of two passages, which RAG-Sequence and REALM cannot combine, because they take an answer
# from one passage at a time.

# %% mystnb={"figure": {"caption": "Exact match on the kinds of question that are not plain, table (b), with 95 % intervals, which are wide because the groups are small.", "alt": "Exact match of REALM, RAG-Sequence, RAG-Token and FiD on confusable, indirect and two-passage questions, with 95 % intervals"}} tags=["hide-input", "stored-predictions"]
kinds = breakdown.by_kind(predictions, questions)
plain = kinds["plain"]
print(
    f"plain (n = {plain['n']}, %):",
    ", ".join(f"{n} {percent(plain['em'][n])}" for n in readers),
)
rare = {kind: part for kind, part in kinds.items() if kind != "plain"}
figures.grouped(
    {
        f"{kind} (n = {part['n']})": {n: part["em"][n] for n in readers}
        for kind, part in rare.items()
    },
    "exact match",
)

# %% tags=["remove-input", "stored-predictions"]
two = kinds["two-passage"]
scores = {name: two["em"][name] for name in readers}
share = {name: f"{cut_off(scores[name]['mean'])} %" for name in readers}
kind = {question.text: question.kind for question in questions}
inside = [kind[line["question"]] == "two-passage" for line in predictions]
right = breakdown.right(predictions)
tests = [
    paired_test(right[a][inside], right[b][inside])
    for a in ("realm", "rag-sequence")
    for b in ("rag-token", "fid")
]
assert min(holm([test.p for test in tests])) >= ALPHA  # as said below
hard = all(
    scores[name]["ci95"][1] < plain["em"][name]["ci95"][0] for name in readers
)
Markdown(
    f"Of the {two['n']} two-passage questions, REALM answers {share['realm']} correctly and RAG-Sequence "
    f"{share['rag-sequence']}, RAG-Token {share['rag-token']} and FiD {share['fid']}. "
    "None of the differences between one of the first two and one of the last two is significant in so small a "
    "group (paired tests, corrected for all four)."
    + (
        " All four answer fewer of these questions than of the plain ones, and the intervals do not overlap."
        if hard
        else ""
    )
)

# %% [markdown]
# ## Where did the answer come from?
#
# Each method has its own measure of how much a passage contributed to an answer. Two methods can be compared by
# their evidence only if they use the same measure.
#
# *Leave one out* is a measure that all methods share. The passages are read again without one of them, and the
# evidence for that passage is how far the answer's log-probability falls:
#
# $$ \log p(y \mid x, z_1, \dots, z_k) - \log p(y \mid x, \text{all but } z_i). $$
#
# This works for every method that gives an answer a probability. A method that reads all passages together has to
# read $k$ more times, so it was measured on the first test questions only. If the answer is impossible without a
# passage, that passage has the highest evidence.

# %% tags=["hide-input", "stored-results", "stacks"]
pd.DataFrame(
    {
        row_name(name): {
            "evidence is": EVIDENCE[name],
            f"highest on the gold passage (%, n = {own['questions']['n']:,})": cut_off(
                entry["evidence_accuracy"]
            ),
            f"highest by leave one out (%, n = {entry['leave_one_out_n']})": cut_off(
                entry["leave_one_out_accuracy"]
            ),
        }
        for name, entry in own["methods"].items()
        if entry["evidence_accuracy"] is not None
    }
).T

# %% [markdown]
# Useful evidence separates right answers from wrong ones: an answer should be right more often if the passage with
# the highest weight is the gold one. Reading that one passage is then a good check of the answer.

# %% mystnb={"figure": {"caption": "Exact match by the place of the highest evidence, each method by its own measure: an answer is far more often right if its evidence is on the gold passage. Compare the three places for one method, not the methods with each other, because their measures differ.", "alt": "Exact match of REALM, RAG-Sequence, RAG-Token and FiD where the highest evidence is on the gold passage, where it is on another, and where the gold one was not retrieved"}} tags=["hide-input", "stored-predictions"]
CASES = {
    "gold": "on the gold passage",
    "another": "on another",
    "not retrieved": "gold not retrieved",
}
evidence = breakdown.by_evidence(predictions)
for name in readers:  # as the caption says
    assert (
        evidence[name]["gold"]["ci95"][0] > evidence[name]["another"]["ci95"][1]
    )
figures.grouped(
    {
        text: {name: evidence[name][case] for name in readers}
        for case, text in CASES.items()
    },
    "exact match",
)

# %% [markdown]
# Leave one out is the same measure for all methods, so that they can also be compared with each other:

# %% mystnb={"figure": {"caption": "Exact match by the place of the highest evidence by leave one out, on the first test questions. By this measure too an answer is more often right if its evidence is on the gold passage; the intervals are wide.", "alt": "Exact match of REALM, RAG-Sequence, RAG-Token and FiD by where leaving a passage out costs the answer most"}} tags=["hide-input", "stored-predictions"]
by_leaving_out = breakdown.by_evidence(predictions, leave_one_out=True)
print("questions in each row:")
for name in readers:
    own_n, left_n = (
        ", ".join(
            f"{found[name][case]['n']} {text}"
            for case, text in CASES.items()
            if case in found[name]
        )
        for found in (evidence, by_leaving_out)
    )
    print(f"  {name:<13} own measure: {own_n}")
    print(f"  {'':<13} leave one out: {left_n}")
for name in readers:  # as the caption says
    cases = by_leaving_out[name]
    assert cases["gold"]["ci95"][0] > cases["another"]["ci95"][1]
figures.grouped(
    {
        text: {
            name: by_leaving_out[name][case]
            for name in readers
            if case in by_leaving_out[name]
        }
        for case, text in CASES.items()
    },
    "exact match",
)

# %% [markdown]
# ## Who agrees with whom?
#
# Combining two methods gains little if they are right on the same questions. Let $p_o$ be the share of questions
# on which both are right or both are wrong, and $p_e$ the share to be expected of two independent methods of the
# same accuracies. Cohen's $\kappa = (p_o - p_e) / (1 - p_e)$ is 0 if the methods agree as often as by chance, and
# 1 if they are right on exactly the same questions.

# %% mystnb={"figure": {"caption": "Agreement about which questions are answered correctly, corrected for chance, table (b). The four that are trained to read passages agree with each other and agree little with the other three.", "alt": "Heat map of Cohen's kappa between the seven methods"}} tags=["hide-input", "stored-predictions"]
kappa = breakdown.kappa(predictions, names)
at = [names.index(name) for name in readers]
rest = [i for i in range(len(names)) if i not in at]
assert kappa[np.ix_(at, at)].min() > 0.5 > 0.2 > kappa[np.ix_(at, rest)].max()
figures.heat_map(kappa, names, names, "Cohen's κ of being right")

# %% [markdown]
# Each of the four answers some questions correctly on which the other three are wrong:

# %% tags=["hide-input", "stored-predictions"]
together = breakdown.shared(predictions, readers)
print(f"of {together['n']} questions all four are right on {together['all']},")
print(f"at least one on {together['any']}, none on {together['none']}")
for name in readers:
    print(f"\n{name} alone is right on {together['alone'][name]}:")
    others = [other for other in readers if other != name]
    alone = [
        line
        for i, line in enumerate(predictions)
        if right[name][i] and not any(right[other][i] for other in others)
    ]
    for line in alone[:2]:
        said = {line["methods"][other]["text"] for other in others}
        print(f"  {line['question']}")
        print(
            f"    {line['methods'][name]['text']}  |  the others: {' / '.join(sorted(said))}"
        )
        print(f"    explorer.html#q={question_id(line['question'])}")

# %% tags=["remove-input", "stored-predictions"]
best = max(readers, key=lambda name: right[name].mean())
Markdown(
    f"Choosing the right method for each question would give {together['any']:,} right answers, "
    f"{cut_off(together['any'] / together['n'])} %, against {called(best)}'s {cut_off(right[best].mean())} %: that is "
    "the most that choosing among these four could gain. An exercise below tries a vote."
)

# %% [markdown]
# ## Is the probability calibrated?
#
# A method's answers are sorted by the probability that it gave them and divided into ten groups of equal size. For
# a calibrated method, the share of right answers in each group equals the group's mean probability: the diagonal
# of the figure. The error in each title is the mean distance from the diagonal, weighted by the groups' sizes.

# %% mystnb={"figure": {"caption": "Calibration of the four that are trained to read passages, ten groups of answers each. Above the diagonal a method is underconfident: part of its probability went to other wordings of the same answer and to other passages. Below it a method is overconfident.", "alt": "Four panels of mean probability against share of right answers with 95 % intervals and the diagonal"}} tags=["hide-input", "stored-predictions"]
calibrated = {
    name: breakdown.calibration(
        breakdown.probabilities(predictions, name), right[name]
    )
    for name in readers
}
figures.calibration(calibrated)

# %% tags=["remove-input", "stored-predictions"]
over = {
    name: [group["probability"] > group["mean"] for group in found["groups"]]
    for name, found in calibrated.items()
}
exceptions = [
    f"the {counted(sum(above))} highest of {called(name)}"
    for name, above in over.items()
    if any(above)
]
for above in over.values():  # as the sentence says: the highest
    assert above == sorted(above)
groups = sum(len(above) for above in over.values())
under = groups - sum(sum(above) for above in over.values())
assert under > 0.8 * groups
mean_p = [breakdown.probabilities(predictions, n).mean() for n in readers]
Markdown(
    f"None of the four is calibrated. In {under} of the {groups} groups the method is underconfident"
    + (f"; the exceptions are {listed(exceptions)}" if exceptions else "")
    + f". The methods give their answers a mean probability of {between(mean_p)}, and "
    f"{between([right[n].mean() for n in readers])} of the answers are right."
)

# %% [markdown]
# Even an uncalibrated probability is useful if right answers tend to get higher ones than wrong answers. The area
# under the ROC curve is the probability that a randomly chosen right answer has a higher one than a randomly chosen
# wrong answer; 0.5 is a coin toss. The last column compares answerable with unanswerable questions, which seem to be
# about one of MiniWiki's passages but are *not* answered there: does the answer to an answerable question have the
# higher probability?

# %% tags=["hide-input", "stored-predictions", "stored-sweep"]
unanswerable = sweep["unanswerable"]


def areas(name: str) -> dict[str, str]:
    """How well the probability of its answers separates a method's."""
    p = breakdown.probabilities(predictions, name)
    blind = [
        0.0 if value is None else np.exp(value)
        for value in unanswerable["log_probs"][name]
    ]
    return {
        "mean p": f"{p.mean():.3f}",
        "right": f"{right[name].mean():.3f}",
        "area, right or wrong": f"{breakdown.auroc(p[right[name]], p[~right[name]]):.3f}",
        f"area, answerable or not (n = {unanswerable['n']})": f"{breakdown.auroc(p, blind):.3f}",
    }


separated = {name: areas(name) for name in names}
pd.DataFrame({row_name(name): each for name, each in separated.items()}).T

# %% tags=["remove-input", "stored-predictions", "stored-sweep"]
of_answers, of_questions = (
    {
        name: float(value)
        for name, each in separated.items()
        for label, value in each.items()
        if label.startswith(start)
    }
    for start in ("area, right", "area, answerable")
)
assert min(of_answers.values()) > 0.5  # as the sentences say
assert all(of_questions[name] < of_answers[name] for name in names)
low, high = (pick(readers, key=of_questions.__getitem__) for pick in (min, max))
Markdown(
    "All seven give right answers a higher probability than wrong ones more often than a coin toss would "
    f"({min(of_answers.values()):.3f} to {max(of_answers.values()):.3f}; the closed-book reader has only "
    f"{int(right['closed-book'].sum())} right answers). Unanswerable questions are harder to recognise: the area is "
    f"{of_questions[low]:.3f} ({called(low)}) to {of_questions[high]:.3f} ({called(high)}) for the four that are "
    f"trained to read passages, and {of_questions['in-context']:.3f} for in-context retrieval "
    f"(n = {unanswerable['n']}; no intervals were computed)."
)

# %% [markdown]
# ## How good must the retriever be?
#
# Here the methods read five passages from one of three retrievers: an oracle, the dense retriever of this
# comparison, or BM25. The oracle ranks the gold passage first. It also gives this passage the highest score, and with
# it the largest prior, so a method can gain more than recall does. This section and the next use the methods of
# table (b) on the first dev questions (`python -m book.experiments.side_by_side`).

# %% mystnb={"figure": {"caption": "Exact match by retriever. The oracle shows what better retrieval could still give; a question that is answered wrongly even with the oracle is lost in reading. The sample is small and the intervals are wide.", "alt": "Exact match of REALM, RAG-Sequence, RAG-Token and FiD with oracle, dense and BM25 passages, with 95 % intervals"}} tags=["hide-input", "stored-sweep"]
settings = {
    name: sweep[f"{name}, k = 5"] for name in ("oracle", "dense", "bm25")
}
drawn = sweep["random, k = 5"]["methods"]
assert not any(entry["em"]["mean"] for entry in drawn.values())
print(f"n = {settings['dense']['n']} dev questions;")
print("with five passages drawn at random no method answers any of them")
figures.grouped(
    {
        f"{name} (recall {cut_off(part['recall']['mean'])} %)": {
            method: part["methods"][method]["em"] for method in readers
        }
        for name, part in settings.items()
    },
    "exact match",
)

# %% [markdown]
# So few questions can reveal only large effects. The table shows what each method gains from a better retriever, in
# points; a star marks a significant gain, adjusted for all tests of the table:


# %% tags=["hide-input", "stored-sweep"]
def steps(
    parts: dict[Any, Any], who: Sequence[str], pairs: list[tuple[Any, Any]]
) -> pd.DataFrame:
    """What each method gains from one setting to another."""
    return pd.DataFrame(
        {
            f"from {few} to {many}": {
                row_name(gain["method"]): points(gain)
                + (" *" if gain["adjusted_p"] < ALPHA else "")
                for gain in papers.gains(parts, who, pairs)
                if (gain["from"], gain["to"]) == (few, many)
            }
            for few, many in pairs
        }
    )


steps(settings, readers, [("bm25", "dense"), ("dense", "oracle")])

# %% [markdown]
# ## How many passages?
#
# With more passages it is likelier that one of them contains the answer, but more of the text is irrelevant.
# In-context retrieval is shown too, because its prompt grows longer than any input that the shared reader was
# trained on. Beyond five passages its score stays the same, because hardly any prompt has room for a sixth.

# %% mystnb={"figure": {"caption": "Exact match and recall of the gold passage against the number of passages read, with 95 % intervals. One prompt of many passages is worse for this reader than a prompt of a single passage; the table below tests the steps.", "alt": "Exact match of in-context, REALM, RAG-Sequence, RAG-Token and FiD and recall against k"}} tags=["hide-input", "stored-sweep"]
ks = sorted(
    int(name.split("= ")[1]) for name in sweep if name.startswith("dense, k = ")
)
by_k = {k: sweep[f"dense, k = {k}"] for k in ks}
prompt = {k: part["methods"]["in-context"]["em"] for k, part in by_k.items()}
assert (
    prompt[ks[-1]]["ci95"][1] < prompt[ks[0]]["ci95"][0]
)  # as the caption says
assert prompt[5] == prompt[10]  # as the text says
print(f"n = {by_k[5]['n']} dev questions")
figures.curves(
    {
        "recall": {k: part["recall"] for k, part in by_k.items()},
        **{
            name: {k: part["methods"][name]["em"] for k, part in by_k.items()}
            for name in ["in-context", *readers]
        },
    },
    "k, passages read",
    "questions",
    log=True,
)

# %% tags=["hide-input", "stored-sweep"]
steps(by_k, ["in-context", *readers], list(itertools.pairwise(ks)))

# %% [markdown]
# ## What does it cost?
#
# The first figure plots accuracy against seconds per question, on the machine that ran `make book`; the second
# plots it against the memory of the weights. The dotted line joins the methods that no other method beats on both
# counts: any method that is more accurate than one of them also costs more. If one method is both the most accurate
# and the cheapest, the line is a single point.

# %% tags=["hide-input", "nbval-ignore-output", "stored-results"] mystnb={"figure": {"caption": "Exact match against time on a CPU. The closed-book reader reads no passages, RAG-Sequence scores every candidate under every passage, and REALM has no decoder to run.", "alt": "Exact match against seconds a question for seven methods, with the line of those that no other beats"}}
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

# %% mystnb={"figure": {"caption": "Exact match against the memory of the weights in float32. REALM needs no decoder.", "alt": "Exact match against mebibytes of weights for seven methods, with the line of those that no other beats"}} tags=["hide-input", "stored-results"]
trade_off(
    {
        name: 4 * entry["parameters"] / 2**20
        for name, entry in own["methods"].items()
    },
    "weights, MiB",
)

# %% tags=["remove-input", "stored-results"]
cheapest = breakdown.pareto(
    {
        name: (entry["parameters"], entry["em"])
        for name, entry in own["methods"].items()
    }
)
Markdown(
    f"By weights, {called(cheapest[0])} alone is on the line: no method has fewer weights, and none is more "
    "accurate."
    if len(cheapest) == 1
    else f"By weights, {listed([called(name) for name in cheapest])} are on the line."
)

# %% [markdown]
# The peak memory of a process also includes the libraries, the index and a batch of 16 questions:

# %% tags=["stored-sweep"]
pd.Series(sweep["memory, MiB"]).round().astype(int).rename(row_name).to_frame(
    "peak memory, MiB"
)

# %% [markdown]
# ## On real Wikipedia
#
# Both tables are repeated on passages of the real Wikipedia and questions of Natural Questions (numbers only; the
# texts are not part of this book). The shared reader was first trained on 1,180 such questions for 300 steps
# (`ragbook train reader`); *the same weights* of this section are the result. From these, each method was trained
# by its own objective, as on MiniWiki, with one seed. No other questions were left for choosing length penalties,
# so they were chosen on the first 160 of the questions that are measured, which may favour the methods that
# generate.

# %% mystnb={"figure": {"caption": "Exact match on real questions with 95 % intervals, each method trained by its own objective and with the same weights for all. The dotted line is recall, which is almost complete because these passages are about unrelated subjects. What the methods lose here is lost in reading.", "alt": "Exact match of the methods on real questions, twice, with 95 % intervals and recall"}} tags=["hide-input", "stored-nq", "stored-nq-same-weights"]
print(f"n = {real['questions']['n']}, {real['index']['passages']:,} passages")
assert min(m["recall_at_k"] for m in real_same["methods"].values()) > 0.99
own_and_shared(real, real_same)

# %% tags=["stored-nq-same-weights"]
Comparison(real_same, [])

# %% tags=["stored-nq"]
Comparison(real, [])

# %% tags=["remove-input", "stored-nq-same-weights", "stored-nq"]
Markdown(
    "By exact match:\n\n"
    + papers.bullets(
        [
            f"**(a)** {order(real_same, named=False)}",
            f"**(b)** {order(real, named=False)}",
        ]
    )
)

# %% [markdown]
# ### Is the order the same?
#
# The lists sort the six pairs of methods by where a test is significant: on MiniWiki, on real questions, on both or
# on neither. A smaller sample separates fewer pairs, so a difference that is significant *on MiniWiki only* has not
# been reversed. {doc}`Chapter 6 <06-fid>` varies what could reverse the order, one at a time: the number of passages,
# which passages are read with the gold one, how long they are, and the training.


# %% tags=["hide-input", "stored-same-weights", "stored-results", "stored-nq-same-weights", "stored-nq"]
WHERE = {
    "alike": "on both, the same method ahead",
    "the other way round": "on both, the other method ahead",
    "only in the first": "on MiniWiki only",
    "only in the second": "on real questions only",
    "in neither": "on neither",
}


def turned(
    first: dict[str, Any], second: dict[str, Any], label: str
) -> Iterable[str]:
    """The pairs of the four methods, by whether two comparisons agree."""
    yield f"**{label}**\n"
    for kind, pairs in papers.turned_over(first, second).items():
        if pairs:
            yield f"* {WHERE[kind]}: {'; '.join(pairs)}"
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
# The papers used larger readers, far larger indexes and several retrievers
# ({cite:t}`khandelwal2020knnlm,guu2020realm,lewis2020rag,izacard2021fid`), so only the order of methods can be
# compared. The right column is generated from stored tests: *as claimed* and *the other way round* are significant
# differences, and *open* is a difference that could be chance.

# %% tags=["hide-input", "stacks", "stored-results", "stored-same-weights", "stored-nq", "stored-nq-same-weights", "stored-sweep", "stored-realm", "stored-language"] mystnb={"markdown_format": "myst"}
Markdown(
    papers.markdown(
        papers.claims(TABLES, by_k, stored("realm"), stored("language"))
    )
)

# %% [markdown]
# No paper compares methods on the same weights. If the lines for the same weights and for own training disagree, the
# claim depends on the training. One possible reason for another order is not tested here: these readers are a
# fraction of the size of the papers'. {doc}`Chapter 4 <04-realm>` has the runs
# behind REALM's row, {doc}`chapter 6 <06-fid>` has FiD with up to 50 passages, and {doc}`chapter 3 <03-knn-lm>` has
# the perplexities.
#
# ## Which method when
#
# For each method, the table says when to choose it, what it needs and gives, and what to keep in mind:
#
# :::{div} prose stacks
# | method | choose it when | it needs | evidence for an answer | keep in mind |
# |---|---|---|---|---|
# | in-context | a pretrained model takes long prompts and cannot be trained or opened | a model trained on prompts of several passages | none of its own; attention, if it can be read | attention grows with the square of the prompt's length; the order of the passages matters ({doc}`chapter 11 <11-one-pretrained-model>`) |
# | kNN-LM | text is to be continued, and the memory is of the same kind as the text | keys and values for every token | the stored contexts that voted for a token | lowers perplexity; answers to questions improve little ({doc}`chapter 3 <03-knn-lm>`) |
# | REALM | answers are spans, and each must be traced to a passage | a span reader; no decoder | posterior over passages | cannot say what no passage says ({doc}`chapter 4 <04-realm>`) |
# | RAG-Sequence | one passage contains the whole answer, and you must know which one | a generator; one decoder pass per passage | posterior over passages | thorough decoding scores every candidate under every passage ({doc}`chapter 5 <05-rag>`) |
# | RAG-Token | an answer takes its parts from several passages | a generator; one search for all passages | a posterior at every token | passages that do not contain the answer take part at every token ({doc}`chapter 5 <05-rag>`) |
# | FiD | many passages are to be read, and there are questions to train on | a generator trained on several passages at once | attention, or leaving a passage out | no distribution over passages; what further passages are worth depends on the questions ({doc}`chapter 6 <06-fid>`) |
# | closed-book | nothing can be retrieved | what is in the weights | none | knowledge cannot be exchanged ({doc}`chapter 8 <08-changed-knowledge>`) |
# :::
#
# ## The same questions, live
#
# The next cell asks the seven methods of table (b) the first test questions again. They should give the stored
# answers.

# %%
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
# A comparison of methods has to say what each was trained for. Table (a) compares ways to combine passages, given
# what the shared weights were trained for; table (b) also compares objectives. On MiniWiki, REALM, the two RAGs and
# FiD are close to each other, and far ahead of in-context retrieval, kNN-LM and the closed-book reader; what separates
# the four is mostly which passage they believe. Differences are tested in pairs on the same questions and corrected
# for the number of pairs; over several training seeds none of those between the four was significant. The order on
# one set of questions need not be the order on another: most of the pairs that the tests told apart on real questions
# were not told apart on MiniWiki.
#
# ## Exercises
#
# <!-- exercise: ex-interval -->
# **Exercise.** The intervals of two methods overlap, and yet their paired test is significant. How can that be?
#
# <details>
# <summary>Solution</summary>
#
# Each interval includes the variation between questions, and both methods share most of it, because hard questions
# are hard for both. The paired difference removes this shared part.
#
# </details>
#
# <!-- exercise: ex-two-tables -->
# **Exercise.** A method is ahead of another in table (b) and not in table (a). Name two reasons that have nothing to do
# with how it combines passages, and a comparison that would tell them apart.
#
# <details>
# <summary>Solution</summary>
#
# First, its training objective may fit the way it answers, while the other's objective may spoil what the reader
# already did well. Second, its question tower was trained too and may find other passages (compare recall in the
# two tables). Give both trained readers the shared question tower, or the oracle's passages
# (`--retriever oracle`): then only the readers and their length penalties differ.
#
# </details>
#
# <!-- exercise: ex-kappa -->
# **Exercise.** Two methods are each right on 95 % of the questions, and on 91 % of them both are right or both are wrong. Is that
# much agreement? Write Cohen's $\kappa$ for two lists of booleans and see.
#
# <!-- end of exercise -->

# %%
from exercises import side_by_side as check


def my_kappa(a, b):
    """Cohen's kappa of two lists of booleans, one for each question."""
    raise NotImplementedError


check.kappa(my_kappa)

# %% [markdown]
# <!-- solution: ex-kappa -->
# <details>
# <summary>Solution</summary>
#
# Chance alone gives $0.95^2 + 0.05^2 = 90.5\,\%$, so $\kappa = (0.91 - 0.905) / (1 - 0.905) \approx 0.05$: hardly
# any. The plain share of agreement is always high for methods that are mostly right, or mostly wrong.
#
# </details>
#
# <!-- exercise: ex-holm -->
# **Exercise.** Write Holm's correction: it takes p-values in any order and returns the adjusted p-values in the
# same order.
#
# <!-- end of exercise -->


# %%
def my_holm(p_values):
    """The adjusted p-values, in the order given."""
    raise NotImplementedError


check.holm(my_holm)

# %% [markdown]
# <!-- solution: ex-holm -->
# <details>
# <summary>Solution</summary>
#
# Go through the p-values from the smallest. Multiply each by the number of p-values that are not yet adjusted,
# itself included; let no result fall below the one before it or rise above 1.
#
# </details>
#
# <!-- exercise: ex-calibration-error -->
# **Exercise.** Write the expected calibration error: sort the answers by probability, divide them into `groups` parts
# of equal size (`np.array_split`), take each part's distance between mean probability and share of right answers, and
# average these distances, weighted by the parts' sizes.
#
# <!-- end of exercise -->


# %%
def my_error(probability, right, groups):
    """The mean distance from the diagonal, weighted by the groups' sizes."""
    raise NotImplementedError


check.calibration_error(my_error)

# %% [markdown]
# <!-- solution: ex-calibration-error -->
# <details>
# <summary>Solution</summary>
#
# Multiply each part's distance by its size, add the products, and divide by the number of answers. The solution
# notebook also raises a method's probabilities to a power and computes the error again.
#
# </details>
#
# <!-- exercise: ex-method-vote -->
# **Exercise.** Let the four methods vote: the answer given most often wins, compared after `normalize_answer`; if several
# are given equally often, the one that comes first. Is the vote better than the best single method?
#
# <!-- end of exercise -->


# %%
def my_vote(texts):
    """The text that wins; `texts` has one answer of each method."""
    raise NotImplementedError


check.vote(my_vote)

# %% [markdown]
# <!-- solution: ex-method-vote -->
# <details>
# <summary>Solution</summary>
#
# Count the normalised answers and return the first text of the most frequent one. The solution notebook compares
# the vote with the best method by a paired test.
#
# </details>
#
# <!-- exercise: ex-temperature -->
# **Exercise.** Raise every probability of a method to the power $1/\tau$ and compute the calibration again. Which
# temperature $\tau$ brings an underconfident method to the diagonal? Why does the area under the ROC curve not change?
#
# <details>
# <summary>Solution</summary>
#
# Try `breakdown.calibration(p ** (1 / tau), right["realm"])` for a few values. With $\tau$ above 1 the groups move to
# the right, which an underconfident method needs; with $\tau$ below 1 they move to the left. The area depends only on
# the order of the probabilities, which a power does not change.
#
# </details>
#
# <!-- exercise: ex-own-data -->
# **Exercise.** Run the comparison on passages of your own: `ragbook compare --corpus P --questions Q --out R`. Which method loses
# most when k goes from 5 to 1, and which least?
#
# <details>
# <summary>Solution</summary>
#
# Look at your retriever's recall at 1 and at 5 first. Where the gold passage is lost, the answer is usually lost too.
# But a method that could not find the answer in five passages loses nothing, and one that was misled by the other
# four gains. A method can therefore lose less than the retriever, and in the chapter's figure all do.
#
# </details>
#
# ## Where next
#
# * *In the papers:* section 4.1 and table 1 of {cite:t}`lewis2020rag`, and section 4 of
#   {cite:t}`izacard2021fid`, have the results that these tables are compared with.
# * *In this book:* {doc}`chapter 8 <08-changed-knowledge>` changes the passages under the same weights;
#   {doc}`chapter 10 <10-your-own-method>` adds a method to this comparison, and
#   {doc}`chapter 11 <11-one-pretrained-model>` repeats it with a pretrained language model.
# * *Later work:* KILT {cite:p}`petroni2021kilt` puts eleven data sets on one snapshot of Wikipedia and also scores
#   whether the right pages were found. {cite:t}`mallen2023when` measure for which questions retrieval helps a large
#   model, and for which its own memory is enough. {cite:t}`gao2023survey` survey how retrieval, generation and
#   augmentation have been varied since.
