# %% [markdown]
# # Five places to combine passages, on one pretrained model
#
# ## The problem
#
# The readers of this book were trained for it: they can read, but they know nothing about the world. The
# papers start from models that know a good deal, and ask what is in the weights and what in the passages.
# Their methods also differ in more than the idea, because each has its own model: RAG a BART, FiD a T5,
# REALM a BERT, and kNN-LM a decoder trained on Wikipedia. Can all of them run on *one* pretrained model, with
# the same weights and the same hidden states, so that they differ only in where the evidence is combined?
#
# ## The idea
#
# All but REALM can, on any decoder-only model. Such a model reads a text, keeps keys and values of its tokens
# in a cache, computes hidden states from the cache, and from these a distribution over the next token; an
# answer is a sequence of such tokens. Passages can be combined at each of these stages, and each method
# combines them at one ({doc}`the first page <index>` traces a question through each):

# %% tags=["hide-input"]
import gzip
import inspect
import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from experiments import figures, papers
from experiments.reading_adapter import PARTS
from experiments.report import percent
from IPython.display import Markdown

from ragbook import load_corpus, load_questions, methods
from ragbook.evaluation import Comparison
from ragbook.evaluation.names import EVIDENCE, called, listed, row_name
from ragbook.evaluation.statistics import cut_off
from ragbook.evaluation.words import check_claim, in_words, order
from ragbook.index import build_index
from ragbook.methods import rag
from ragbook.methods.base import doc_log_probs
from ragbook.models import load_encoder, load_reader
from ragbook.retrieval import DenseRetriever
from ragbook.training.lora import APART

encoder, corpus = load_encoder(), load_corpus("miniwiki")
index = build_index(corpus, Path("../build/index"), encoder, progress=False)
retriever = DenseRetriever(index, encoder)
reader = load_reader("smollm2-reading")

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Where the methods combine the passages, from the prompt to the answer.", "alt": "Five places from left to right: the input, the cache, the next token, a memory beside it, and the answer, each with the method that combines passages there"}}
figures.places(
    [
        ("the input", "passages in one prompt", "in-context"),
        ("the cache", "keys and values of\npassages read apart", "fid"),
        ("the next token", "one distribution\nof each passage", "rag-token"),
        ("the output", "the model's and a\nmemory's distribution", "knn-lm"),
        ("the answer", "its probability under\neach passage", "rag-sequence"),
    ]
)

# %% [markdown]
# REALM is missing, because it selects a span and does not generate. Most of these places are in use today:
#
# * *the input*: In-Context RALM {cite:p}`ram2023incontext`, and most of what is called RAG today;
# * *the cache*: parallel context windows {cite:p}`ratner2023parallel`, and Block-Attention
#   {cite:p}`ma2025block`, which trains for them;
# * *the next token*: REPLUG {cite:p}`shi2024replug`, which is RAG-Token with a language model that cannot be
#   trained;
# * *the answer*: candidates generated from one passage and scored with all of them.
#
# The model here is SmolLM2-135M-Instruct {cite:p}`allal2025smollm2`, which a Python package ships with 4-bit
# weights. Every passage is read once, directly after the beginning of the prompt, so that its keys and values
# depend neither on the question nor on the other passages; RAG, FiD and kNN-LM use the same ones. The question is
# read once after each of its passages, for RAG and FiD alike. In-context retrieval can use only those of the first
# passage in its prompt: the keys of the others depend on the passages before them and are computed anew.

# %%
shape = reader.model.config
print(
    f"{reader.parameters:,} parameters, {shape.num_hidden_layers} layers of width {shape.hidden_size}"
)

# %% [markdown]
# ## The mathematics
#
# Let $K_z, V_z$ be the keys and values of passage $z$ and of the question read after it, $K_{z_k \dots z_1}$ those
# of all passages in one prompt with the question at its end, and $K_\emptyset$ those of the question alone. Let
# $p_\theta(\cdot \mid K)$ be the model's distribution of the next token after this cache and the answer so far,
# $y_{<t}$. (Each $K$ implies its $V$.) With $p(z \mid x)$ the softmax of the retriever's scaled scores over the
# $k$ passages,
#
# $$
# \begin{aligned}
# \text{in-context:} &\quad \textstyle\prod_t p_\theta(y_t \mid K_{z_k \dots z_1}), \\
# \text{FiD:} &\quad \textstyle\prod_t p_\theta(y_t \mid K_{z_1} \cup \dots \cup K_{z_k}), \\
# \text{RAG-Token:} &\quad \textstyle\prod_t \sum_z p(z \mid x)\, p_\theta(y_t \mid K_z), \\
# \text{RAG-Sequence:} &\quad \textstyle\sum_z p(z \mid x) \prod_t p_\theta(y_t \mid K_z), \\
# \text{kNN-LM:} &\quad \textstyle\prod_t \left[(1 - \lambda)\, p_\theta(y_t \mid K_\emptyset) + \lambda\, p_{\text{kNN}}(y_t)\right].
# \end{aligned}
# $$ (five)
#
# In the first line, the best passage is last, and every passage was read after those before it, so its keys
# depend on them. In the second, each passage was read alone, with the question after it, and the answer is the
# first to attend to all of them: FiD's encoder and decoder in one model. A decoder-only model also has to know
# where each passage is. SmolLM2's positions are rotary {cite:p}`su2024roformer`: a key that was computed at one
# position becomes that of another if each pair of its numbers is turned by an angle. So the keys are moved, and the
# passages are one after the other as in the prompt, the best last.
#
# ## The core in ten lines
#
# Take a model of one attention layer whose output is directly the distribution over two tokens. Passage 1 has
# one key and says token 1, passage 2 has one key and says token 2. The query gives passage 1 three times the
# attention weight of passage 2, and the retriever gives both the same score.

# %%
query = torch.tensor([1.0, 0.0])  # [d]
keys = torch.tensor([[[np.log(3), 0.0]], [[0.0, 0.0]]]).float()  # [n, T, d]
values = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])  # [n, T, V]
prior = torch.tensor([0.5, 0.5])  # [n]


def attend(keys, values):
    """One query's attention: keys [T, d], values [T, V] -> [V]."""
    return torch.softmax(keys @ query, dim=0) @ values


fused = attend(keys.flatten(0, 1), values.flatten(0, 1))
each_passage = torch.stack([attend(keys[z], values[z]) for z in (0, 1)])
summed = prior @ each_passage
print("fused caches:     ", fused.numpy().round(3), list(fused.shape))
print("sum over passages:", summed.numpy().round(3), list(summed.shape))

# %% [markdown]
# In the fused cache the model's own attention weights the passages, 3 to 1; in the sum the retriever's prior
# does, 1 to 1. For an answer of two tokens the place of the sum matters as well. Passage 1 gives the tokens the
# probabilities 0.9 and 0.1, passage 2 gives them 0.1 and 0.9. By hand RAG-Sequence has 0.5 · 0.09 + 0.5 · 0.09 =
# 0.09, and RAG-Token (0.5 · 0.9 + 0.5 · 0.1)² = 0.25:

# %%
given = torch.tensor([[0.9, 0.1], [0.1, 0.9]])  # p(y_t | z), [n, |y|]
sequence = prior @ given.prod(dim=1)
token = (prior @ given).prod()
print(f"by hand: sequence {sequence:.3f}, token {token:.3f}")
for function in (rag.sequence_log_prob, rag.token_log_prob):
    source = inspect.getsource(function)
    print(source.replace(f'    r"""{function.__doc__}"""\n', ""))
of_answer = torch.ones(1, 2)  # both tokens count
package = [
    function(given.log()[None], prior.log()[None], of_answer).exp().item()
    for function in (rag.sequence_log_prob, rag.token_log_prob)
]
print("the package: sequence {:.3f}, token {:.3f}".format(*package))

# %% [markdown]
# ## The code
#
# We now compute SmolLM2's distribution over the first token of an answer, without passages and with the
# passages combined at three places. `reader.read` returns the passages' states, and `continuation` the
# distributions of the next token after them. The question is the first of MiniWiki's test questions that has an
# answer of several tokens, of which the first is a word, and that in-context retrieval, both RAGs and FiD answer
# correctly in the comparison stored below.

# %% tags=["hide-input"]
with gzip.open(
    "results/smollm2-reading.jsonl.gz", "rt", encoding="utf-8"
) as lines:
    before = [json.loads(line) for line in lines]
ways = ("in-context", "rag-sequence", "rag-token", "fid")
all_right = next(
    line["question"]
    for line in before
    if all(line["methods"][name]["em"] for name in ways)
    and len(ids := reader.answer_ids(line["answers"][0])) > 2  # with the end's
    and reader.decode(ids[:1]).isalpha()
)
test_questions = list(load_questions("miniwiki", "test"))
question = next(q for q in test_questions if q.text == all_right)

# %%
found = retriever.retrieve([question], 3)
passages = [found[0].passages]
log_prior = doc_log_probs(found, retriever.score_scale)[0]  # [3]


def next_token(memory, rows: int) -> torch.Tensor:
    """log p(the first token of an answer) after what was read, [rows, V]."""
    start = torch.full((rows, 1), reader.start)
    return reader.continuation(memory)(
        start, torch.arange(rows), torch.arange(rows)
    )


apart = reader.read([question], passages)
each = next_token(apart, 3)
first = {
    "closed-book": next_token(reader.read([question]), 1)[0],
    "in-context": next_token(reader.read_together([question], passages), 1)[0],
    "fid": next_token(apart.fused(), 1)[0],
    "rag-token": torch.logsumexp(log_prior[:, None] + each, dim=0),
}
print(question.text, "|", question.answers[0], "|", list(found[0].ids))
for name, log_p in first.items():
    best = log_p.exp().topk(3)
    said = ", ".join(
        f"{'(end)' if token == reader.end else reader.decode([token]) or '(space)'} {p:.2f}"
        for p, token in zip(
            best.values.tolist(), best.indices.tolist(), strict=True
        )
    )
    print(f"{name:<12} {said}")

# %% [markdown]
# RAG-Sequence agrees with RAG-Token on the first token, but then weights the passages by the tokens before
# ({eq}`next-word`), so it is compared on a whole answer. Here are both sums, by hand and by the package:

# %%
answer = question.answers[0]
labels = torch.tensor([reader.answer_ids(answer)] * 3)
tokens = reader.token_log_probs(apart, labels)[None]  # [1, 3, |y|]
own = torch.ones(1, tokens.shape[2])
by_hand = {
    "rag-sequence": torch.logsumexp(log_prior + tokens[0].sum(-1), dim=0),
    "rag-token": torch.logsumexp(log_prior[:, None] + tokens[0], dim=0).sum(),
}
package = {
    "rag-sequence": rag.sequence_log_prob(tokens, log_prior[None], own)[0],
    "rag-token": rag.token_log_prob(tokens, log_prior[None], own)[0],
}
for name, value in by_hand.items():
    print(f"{name:<13} {value:.3f} {package[name]:.3f}")

# %% [markdown]
# ## The method on the index
#
# Without training, a model of this size tends to continue the text where it should answer. Answered questions
# at the beginning of the prompt help (`--prompt few-shot`). What helps more is a low-rank *reading adapter*
# {cite:p}`hu2022lora`, trained once for all methods on MiniWiki's train questions, with one passage or with
# several, one after the other or apart (`ragbook train lora`). With it, all methods answer eight test questions,
# here and now:

# %%
names = [
    "closed-book",
    "in-context",
    "knn-lm",
    "rag-sequence",
    "rag-token",
    "fid",
]
questions = test_questions[:8]
live = methods.load(names, retriever, verbatim=True, reader="smollm2-reading")
answers = {method.name: method.answer(questions, 5) for method in live}
for at, asked in enumerate(questions):
    print(f"{asked.text} ({asked.answers[0]})")
    for name in names:
        print(f"   {name:<13} {answers[name][at].text}")

# %% [markdown]
# The comparison below includes these questions. Are the answers still the same?

# %%
assert [line["question"] for line in before[:8]] == [
    asked.text for asked in questions
]
same = [
    answers[name][at].text == line["methods"][name]["text"]
    for at, line in enumerate(before[:8])
    for name in names
]
print(f"{sum(same)} of {len(same)} answers are the stored ones")

# %% [markdown]
# ### What each of them relies on
#
# The table shows for one question how much each method relied on each passage, in percent. The methods measure
# this differently: compare passages within a row, and compare rows only if they have the same measure.

# %%
at = [asked.text for asked in questions].index(question.text)
shown = retriever.retrieve([question], 5)[0].ids
print(question.text, "| gold passage:", question.gold_passage)
pd.DataFrame(
    {
        f"{name}, {EVIDENCE[name]}": {
            e.passage_id: f"{100 * e.weight:.1f}"
            for e in answers[name][at].evidence
        }
        for name in names
        if name != "closed-book"
    }
).T.reindex(columns=list(shown)).fillna("0.0")

# %% tags=["remove-input"]
heaviest = {
    name: max(answers[name][at].evidence, key=lambda e: e.weight).passage_id
    for name in names
    if name != "closed-book"
}
on_gold = [n for n, z in heaviest.items() if z == question.gold_passage]
elsewhere = [
    f"{called(n)} ({z})"
    for n, z in heaviest.items()
    if z != question.gold_passage
]
Markdown(
    f"The largest weight is on the gold passage for {listed([called(n) for n in on_gold])}"
    + (
        f", and on another passage for {listed(elsewhere)}. Attention in the last layer shows where a model "
        "looks, which need not be where its answer comes from."
        if elsewhere
        else "."
    )
)

# %% [markdown]
# ## What is in the weights, and what in the passages
#
# All that follows was measured once and stored. The comparisons use the first test questions of MiniWiki
# (their order is random), with the dense retriever's five passages or the gold passage alone. kNN-LM has the
# $\lambda$ and the temperature of the bundled language model, tuned for its answers; the temperature is scaled
# to the size of SmolLM2's keys, and neither was tuned for SmolLM2. First the model as it is, after four
# answered questions:


# %% tags=["hide-input", "stored-smollm2-few-shot"]
def stored(name: str) -> dict:
    """The results of one comparison."""
    return json.loads(
        Path(f"results/smollm2-{name}.json").read_text(encoding="utf-8")
    )


few_shot, reading_ones = stored("few-shot"), stored("reading")
gold = {
    "few-shot": stored("few-shot-oracle"),
    "reading": stored("reading-oracle"),
}
print(few_shot["questions"]["n"], "questions, k =", few_shot["k"])
Comparison(few_shot, [])

# %% [markdown]
# With the reading adapter, the prompt has no answered questions:

# %% tags=["hide-input", "stored-smollm2-reading"]
print(reading_ones["questions"]["n"], "questions, k =", reading_ones["k"])
Comparison(reading_ones, [])

# %% tags=["remove-input", "stored-smollm2-few-shot", "stored-smollm2-reading"]
Markdown(
    papers.bullets(
        [
            f"*{what}.* {order(found)}"
            for what, found in (
                ("Out of the box", few_shot),
                ("With the adapter", reading_ones),
            )
        ]
    )
)

# %% [markdown]
# The figure shows both:


# %% tags=["hide-input", "stored-smollm2-few-shot", "stored-smollm2-reading"] mystnb={"figure": {"caption": "Exact match of the six methods on SmolLM2 with 95 % intervals, out of the box after four answered questions (n = 200) and with the reading adapter (n = 600). On the first 200 the adapter improves the four methods that read passages; for kNN-LM and the closed-book reader no improvement is significant.", "alt": "Exact match of closed-book, in-context, kNN-LM, RAG-Sequence, RAG-Token and FiD on SmolLM2, frozen and with an adapter"}}
def em(results: dict, name: str) -> dict:
    """A method's exact match with its interval, as the figures take it."""
    entry = results["methods"][name]
    return {"mean": entry["em"], "ci95": entry["ci95"]["em"]}


assert [each["questions"]["n"] for each in (few_shot, reading_ones)] == [
    200,
    600,
]
figures.grouped(
    {
        row_name(name): {
            "few-shot": em(few_shot, name),
            "adapter": em(reading_ones, name),
        }
        for name in names
    },
    "exact match",
)

# %% tags=["remove-input", "stored-smollm2-few-shot", "stored-smollm2-reading", "stored-smollm2-few-shot-oracle", "stored-smollm2-reading-oracle"]
bound = {
    kind: max(entry["em"] for entry in found["methods"].values())
    for kind, found in gold.items()
}
Markdown(
    f"With the gold passage alone, the best method answers {cut_off(bound['few-shot'])} % of the first "
    f"{gold['reading']['questions']['n']} questions out of the box and {cut_off(bound['reading'])} % with the adapter. The gap between a method and this bound is lost "
    "in retrieval and in telling the gold passage from the others; the rest is lost in reading. The closed-book reader "
    f"answers {cut_off(few_shot['methods']['closed-book']['em'])} % out of the box: the weights contain little of "
    f"what MiniWiki asks. kNN-LM answers {cut_off(few_shot['methods']['knn-lm']['em'])} and "
    f"{cut_off(reading_ones['methods']['knn-lm']['em'])} %; as on the bundled model, interpolating the next "
    "token from a memory does not make a question answerer."
)

# %% [markdown]
# ### Fused, or one after the other?
#
# In-context retrieval and FiD both show the model all passages at once. They differ in two things: whether a passage
# is read in view of those before it, and whether the question is. The fused caches contain $k$ copies of the question,
# each of which has seen one passage; parallel context windows and Block-Attention let one question attend to all
# passages, but here, as in FiD's encoder, it does not. What was read of a passage alone can be used with any others,
# and only its keys are moved. The model was not made for this: in pretraining every token attends to all tokens
# before it. Does an adapter that was trained on some fused caches make up for it? The paired tests say:

# %% tags=["remove-input", "stored-smollm2-few-shot", "stored-smollm2-reading"]
for both in ("rag-sequence", "rag-token"):  # as the text below says
    for one_text in ("in-context", "fid"):
        check_claim(reading_ones, f"{both} > {one_text}")
steps = sum(part.steps for part in PARTS.values())
by_part = {
    name: part.steps * part.layouts.count(APART) / len(part.layouts)
    for name, part in PARTS.items()
}
fused, moved = sum(by_part.values()), by_part["third"]
Markdown(
    f"Of the adapter's {steps} training steps, about {fused:.0f} used fused caches (the layout is drawn at random at "
    f"every step), and about {moved:.0f} of these had moved keys. FiD out of the box was measured later than the "
    "others, beside other work: its seconds cannot be compared with theirs.\n\n"
    + papers.bullets(
        [
            f"*{what}.* {in_words(found, 'in-context', 'fid')}"
            for what, found in (
                ("Out of the box", few_shot),
                ("With the adapter", reading_ones),
            )
        ]
    )
)

# %% [markdown]
# With the adapter, both RAGs answer more questions than either. A reason may be that the sum keeps the retriever's scores, which neither a prompt nor a fused cache shows to
# the model, and that a model of 135 million parameters chooses badly among five passages. This was not tested.
#
# ### When the passages change
#
# Some questions have different answers in MiniWiki's two editions ({doc}`chapter 8 <08-changed-knowledge>`). The same
# model answers them once with an index of each. *Follows* is the share of questions that are answered correctly with
# both; *outdated* the share that get the earlier edition's answer although the index holds the current one.

# %% tags=["hide-input", "stored-change"]
change = json.loads(Path("results/change.json").read_text(encoding="utf-8"))
asked_twice = change["pretrained"]
then, now = next(iter(asked_twice["methods"].values()))["right"]
print(asked_twice["n"], "questions, k = 5, %")
pd.DataFrame(
    {
        row_name(name): {
            "follows": percent(entry["follows"]),
            "outdated": percent(entry["right"][now][then]),
            "right, earlier index": percent(entry["right"][then][then]),
            "right, current index": percent(entry["right"][now][now]),
        }
        for name, entry in asked_twice["methods"].items()
    }
).T

# %% tags=["remove-input", "stored-change"]
stale = {
    name: entry["right"][now][then]["mean"]
    for name, entry in asked_twice["methods"].items()
}
Markdown(
    f"With the current index, {cut_off(min(stale.values()))} to {cut_off(max(stale.values()))} % of a method's answers "
    "are the earlier edition's."
)

# %% [markdown]
# ### As a language model
#
# `ragbook perplexity --lm smollm2` measures perplexity on held-out articles, which are in no index: with the
# model alone, with a datastore of all MiniWiki's passages (kNN-LM, $\lambda$ and temperature tuned on other
# held-out articles), and with the best passage in the prompt.

# %% tags=["hide-input", "stored-smollm2-language"]
language = stored("language")
for name, entry in language.items():
    print(
        f"{name:<12} perplexity {entry['perplexity']:.2f} per token, {entry['word_perplexity']:.2f} per word"
    )
print(
    f"{language['base']['tokens']:,} tokens, {language['base']['words']:,} words"
)

# %% tags=["remove-input", "stored-smollm2-language"]
less = {
    kind: cut_off(1 - language["knn-lm"][kind] / language["base"][kind])
    for kind in ("perplexity", "word_perplexity")
}
Markdown(
    f"The datastore lowers the perplexity by {less['word_perplexity']} % per word and by "
    f"{less['perplexity']} % per token, although the articles are about other subjects than its passages. The "
    "command gives no interval."
)

# %% [markdown]
# ## What its makers report, and what is measured here
#
# SmolLM2's report gives no figures for these methods; the model is made for small devices and knows little.
# The papers on these ideas use larger models. Like them, we see that answers gain from passages in the prompt
# without any training {cite:p}`ram2023incontext`, and from an ensemble of passages at the next token
# {cite:p}`shi2024replug`. For fused caches, {cite:t}`ma2025block` report that Llama 3 falls far behind full
# attention without training for them, and keeps up once it is trained; the section on them has our paired tests. We
# did not try to contrast what the model says with passages and without, as context-aware decoding does
# {cite:p}`shi2024trusting`.
#
# ## What to remember
#
# On one decoder-only model, in-context retrieval, FiD, RAG-Token, RAG-Sequence and kNN-LM share the weights and
# differ only in where passages are combined: input, cache, next token, answer, or a memory beside the output.
# A small pretrained model needs passages, and gains from a little training to read them. Between one prompt and
# passages that were read apart and whose keys were moved, no difference was significant. With the adapter, both
# RAGs, which sum probabilities instead, answer more questions than either.
#
# ## Exercises
#
# <!-- exercise: ex-pretrained-fused -->
# **Exercise.** Write attention over fused caches: for a query [d] and a list of passages, each with keys [T, d] and values
# [T, d], the output [d] of attending to all of them at once. The lengths T may differ, and the scores are divided
# by $\sqrt{d}$.
#
# <!-- end of exercise -->


# %%
from exercises import one_pretrained_model as check


def my_fused(query, passages):
    raise NotImplementedError


check.fused(my_fused)

# %% [markdown]
# <!-- solution: ex-pretrained-fused -->
# <details>
# <summary>Solution</summary>
#
# Concatenate all keys and all values, then attend once. The softmax is over all tokens of all passages; a mean
# of one output per passage would give every passage the same weight. It is written out in
# `book/solutions/11-one-pretrained-model.py`.
#
# </details>
#
# <!-- exercise: ex-pretrained-layout -->
# **Exercise.** Two layouts of passages in a causal model differ in mask and positions. Given the lengths of the passages,
# return for "together" (one prompt) and "apart" (each read alone, before any key is moved) which token may attend to
# which, a boolean array [T, T] with a row per attending token, and the tokens' positions [T].
#
# <!-- end of exercise -->


# %%
def my_layout(lengths, apart):
    raise NotImplementedError


check.layout(my_layout)

# %% [markdown]
# <!-- solution: ex-pretrained-layout -->
# <details>
# <summary>Solution</summary>
#
# Together, the mask is a lower triangle and the positions count on. Apart, the mask is also zero between tokens of
# different passages, and the positions begin at 0 in each. It is written out in
# `book/solutions/11-one-pretrained-model.py`.
#
# </details>
#
# <!-- exercise: ex-pretrained-move -->
# **Exercise.** At position $p$, rotary positions turn the pair $(k_i, k_{i + d/2})$ of a key by the angle
# $p\,\omega_i$. Write the move that fused caches need: given keys [T, d], a distance and the frequencies
# $\omega$ [d/2], return the keys at positions greater by that distance.
#
# <!-- end of exercise -->


# %%
def my_move(keys, by, frequencies):
    raise NotImplementedError


check.move(my_move)

# %% [markdown]
# <!-- solution: ex-pretrained-move -->
# <details>
# <summary>Solution</summary>
#
# Turning by $p\,\omega_i$ and then by $s\,\omega_i$ is turning by $(p + s)\,\omega_i$, so $p$ need not be known: the
# pair $(a, b)$ becomes $(a \cos s\omega_i - b \sin s\omega_i,\; b \cos s\omega_i + a \sin s\omega_i)$. It is written
# out in `book/solutions/11-one-pretrained-model.py`.
#
# </details>
#
# <!-- exercise: ex-pretrained-one -->
# **Exercise.** With `k = 1`, four methods give every answer the same probability (equation {eq}`five`). Why may
# RAG-Sequence still return another answer than RAG-Token?
#
# <details>
# <summary>Solution</summary>
#
# They search differently. A beam search over tokens keeps a few prefixes and returns the best it has completed.
# RAG-Sequence collects complete candidates and scores each again, so it may keep one that the other search has
# dropped, or choose another when scores are normalised by length.
#
# </details>
#
# <!-- exercise: ex-pretrained-twice -->
# **Exercise.** Give the *same* passage twice, first to RAG-Token and then to `fused`. Does the distribution over
# the first token differ from that with one copy? How is it in chapter 6's FiD?
#
# <details>
# <summary>Solution</summary>
#
# RAG-Token's does not: it is a mean of two equal distributions. The fused cache's does: the answer attends to the
# prompt's beginning, to itself and to the passages in one softmax, in which two copies weigh twice as much as one.
# In chapter 6, cross-attention sees the encoder's states alone, so two equal copies share the same
# weight and nothing changes.
#
# </details>
#
# <!-- exercise: ex-pretrained-adapter -->
# **Exercise.** Train an adapter by RAG-Token's own likelihood, starting from the reading adapter
# (`ragbook train lora --method rag-token --reader smollm2-reading --steps 30 --out my-adapter`), and compare the
# two with `ragbook compare --reader my-adapter --methods rag-token`. Which paired test would convince you that
# it helped?
#
# <details>
# <summary>Solution</summary>
#
# Compare both readers on the same questions and use `ragbook diff` on the two results. The interval of the
# difference must exclude zero, and 200 questions can only show differences of several points.
#
# </details>
#
# <!-- exercise: ex-pretrained-two -->
# **Exercise.** Some questions need *two* passages. At which places of equation {eq}`five` can their evidence
# meet, and where can it not? Check your answer with the two-passage questions in `Comparison(...)`.
#
# <details>
# <summary>Solution</summary>
#
# In the input and in the cache, the answer's tokens attend to both passages, and in the input the second passage
# also attends to the first. At the next token, each token can come from another passage, but no single
# distribution sees both. RAG-Sequence explains the whole answer by one passage. kNN-LM mixes neighbours from both
# passages into one distribution, but each neighbour was stored after a context of its own passage alone.
#
# </details>

# %% [markdown]
# ## Where next
#
# Each of these goes further at one of the places above, or in a part of the pipeline that this book keeps
# fixed.
#
# * *The layers in between.* RETRO {cite:p}`borgeaud2022retro` retrieves for every chunk of the text, from a
#   database of two trillion tokens, and some of the decoder's layers attend to the neighbours through
#   cross-attention.
# * *The states.* Atlas {cite:p}`izacard2023atlas` trains FiD and its retriever jointly, before any task,
#   and compares objectives by which a reader can train a retriever, perplexity distillation among them.
# * *The next token.* REPLUG {cite:p}`shi2024replug` mixes the distributions of a language model that can only
#   be called, with one call per passage as in RAG-Token, and trains the retriever with its probabilities.
# * *The input.* In-Context RALM {cite:p}`ram2023incontext` puts retrieved text before the prompt of a
#   frozen model, and studies how often to retrieve and how to rerank.
# * *The cache.* Parallel context windows {cite:p}`ratner2023parallel` give several windows the same
#   positions, without training; Block-Attention {cite:p}`ma2025block` trains a model to read passages
#   independently, so that their keys and values can be reused.
# * *Whether to retrieve.* Self-RAG {cite:p}`asai2024selfrag` trains a model to write tokens that say when
#   to retrieve, and whether a passage is relevant and supports what was written.
# * *The retriever.* ColBERT {cite:p}`khattab2020colbert` keeps a vector for every token and compares
#   question and passage token by token; a reranker {cite:p}`nogueira2019passage` reads question and
#   passage together, which is more accurate than comparing two vectors but too slow for a whole corpus,
#   and therefore reorders what a retriever has found.
# * *Long context.* A model with a long context can be given whole documents: {cite:t}`xu2024retrieval`
#   find that retrieval helps models of either kind and that a short context with retrieval can match a
#   longer one without, while {cite:t}`liu2024lost` show that models make least use of the middle of a
#   long prompt.
