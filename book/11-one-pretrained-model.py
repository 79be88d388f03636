# %% [markdown]
# # The same five ideas on one pretrained model
#
# ## The problem
#
# The readers of this book were made for it: they read, and they know nothing of their own. The papers
# start from models that know a good deal, and ask what is in the weights and what in the passages. And
# the methods they describe differ in more than the idea: RAG has a BART, FiD a T5, REALM a BERT, kNN-LM a
# decoder trained on Wikipedia. Can all of them run on *one* pretrained model, on the same weights and the
# same states, so that the sole difference is where the evidence is combined?
#
# ## The idea
#
# They can, on any decoder-only language model. Such a model turns a text into keys and values of its
# tokens, these into hidden states, and those into a distribution over the next token; an answer is a
# string of such tokens. Several passages can be brought together at each of these places, and every one of
# the methods has chosen one ({doc}`the first page <index>` traces a question through each):

# %% tags=["hide-input"]
import gzip
import json
from pathlib import Path

import pandas as pd
import torch
from experiments import figures, papers
from IPython.display import Markdown

from ragbook import load_corpus, load_questions, methods
from ragbook.evaluation import Comparison
from ragbook.evaluation.names import called
from ragbook.evaluation.statistics import cut_off
from ragbook.evaluation.words import in_words, order
from ragbook.index import build_index
from ragbook.methods import rag
from ragbook.methods.base import doc_log_probs
from ragbook.models import load_encoder, load_reader
from ragbook.retrieval import DenseRetriever
from ragbook.training.lora import APART, Recipe

encoder, corpus = load_encoder(), load_corpus("miniwiki")
index = build_index(corpus, Path("../build/index"), encoder, progress=False)
retriever = DenseRetriever(index, encoder)
reader = load_reader("smollm2-reading")

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Where the passages are brought together, from the prompt to the answer.", "alt": "Five places from left to right: the input, the cache, the next token, a memory beside it, and the answer, each with the method that combines passages there"}}
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
# REALM alone stays away: it points at words of a passage and does not write. The others have descendants:
#
# * *the input*: In-Context RALM {cite:p}`ram2023incontext`, and most of what is called RAG today;
# * *the cache*: parallel context windows {cite:p}`ratner2023parallel`, and Block-Attention
#   {cite:p}`ma2025block`, which trains for them;
# * *the next token*: REPLUG {cite:p}`shi2024replug`, RAG-Token on a model that nobody may train;
# * *the answer*: candidates from one passage, scored by all of them.
#
# The model here is SmolLM2-135M-Instruct {cite:p}`allal2025smollm2`, which a Python package carries in 4
# bits. Every passage is read once, right after the beginning of the prompt, so that its keys and values
# depend on neither the question nor the other passages; RAG, FiD and kNN-LM use the same ones. In-context
# retrieval cannot: in one prompt a passage's keys depend on those before it, and are computed anew.

# %%
shape = reader.model.config
print(
    f"{reader.parameters:,} parameters, {shape.num_hidden_layers} layers of width {shape.hidden_size}"
)

# %% [markdown]
# ## The mathematics
#
# Write $K_z, V_z$ for the keys and values of passage $z$, and $p_\theta(\cdot \mid C)$ for the model's
# next-token distribution after a cache $C$, the question and the answer so far, $y_{<t}$. With
# $p(z \mid x)$ the retriever's softmax over the $k$ passages,
#
# $$
# \begin{aligned}
# \text{in-context:} &\quad \textstyle\prod_t p_\theta(y_t \mid K_{z_k \dots z_1}), \\
# \text{FiD:} &\quad \textstyle\prod_t p_\theta(y_t \mid K_{z_1} \cup \dots \cup K_{z_k}), \\
# \text{RAG-Token:} &\quad \textstyle\prod_t \sum_z p(z \mid x)\, p_\theta(y_t \mid K_z), \\
# \text{RAG-Sequence:} &\quad \textstyle\sum_z p(z \mid x) \prod_t p_\theta(y_t \mid K_z), \\
# \text{kNN-LM:} &\quad \textstyle\prod_t \left[(1 - \lambda)\, p_\theta(y_t \mid \emptyset) + \lambda\, p_{\text{kNN}}(y_t)\right].
# \end{aligned}
# $$ (five)
#
# In the first line every passage was read after those before it in the prompt: its keys know of them. In the
# second each was read alone, at the same places; only question and answer see them all. With one passage
# all lines but the last are the same.
#
# ## The code
#
# The first token of one answer, combined at each place by hand. `reader.read` gives the passages' states,
# `continuation` the next-token distributions after them.

# %%
question = next(
    q for q in load_questions("miniwiki", "dev") if q.kind == "plain"
)
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
    "closed book": next_token(reader.read([question]), 1)[0],
    "in-context": next_token(reader.read_together([question], passages), 1)[0],
    "fid": next_token(apart.fused(), 1)[0],
    "rag-token": torch.logsumexp(log_prior[:, None] + each, dim=0),
}
print(question.text, "|", question.answers[0], "|", list(found[0].ids))
for name, log_p in first.items():
    best = log_p.exp().topk(3)
    said = ", ".join(
        f"{reader.decode([token]) or '(end)'} {p:.2f}"
        for p, token in zip(
            best.values.tolist(), best.indices.tolist(), strict=True
        )
    )
    print(f"{name:<12} {said}")

# %% [markdown]
# RAG-Sequence has no distribution of the next token without those before it, so it is looked at with a whole
# answer. The two sums over passages, by hand and by the package:

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
# Out of the box a model of this size goes on writing where it should answer. Answered questions at the
# beginning of the prompt help (`--prompt few-shot`); what helps more is a low-rank *reading adapter*
# {cite:p}`hu2022lora`, trained once for all methods on MiniWiki's train questions, on one passage half of
# the time, and on several, one after the other or apart, for the rest (`ragbook train lora`). With it, all
# methods on eight test questions, here and now:

# %%
names = [
    "closed-book",
    "in-context",
    "knn-lm",
    "rag-sequence",
    "rag-token",
    "fid",
]
questions = list(load_questions("miniwiki", "test"))[:8]
live = methods.load(names, retriever, verbatim=True, reader="smollm2-reading")
answers = {method.name: method.answer(questions, 5) for method in live}
for at, asked in enumerate(questions):
    print(f"{asked.text} ({asked.answers[0]})")
    for name in names:
        print(f"   {name:<13} {answers[name][at].text}")

# %% [markdown]
# The same questions were among those of the tables below, measured earlier. Are the answers still these?

# %%
with gzip.open(
    "results/smollm2-reading.jsonl.gz", "rt", encoding="utf-8"
) as lines:
    before = [
        json.loads(line) for _, line in zip(questions, lines, strict=False)
    ]
assert [line["question"] for line in before] == [
    asked.text for asked in questions
]
same = [
    answers[name][at].text == line["methods"][name]["text"]
    for at, line in enumerate(before)
    for name in names
]
print(f"{sum(same)} of {len(same)} answers are the stored ones")

# %% [markdown]
# ### What each of them leans on
#
# One question, five accounts of where its answer came from. RAG's are posteriors, in-context's and FiD's are
# shares of the last layer's attention, kNN-LM's of the mass of neighbours: different things, laid beside each
# other and not to be compared by size.

# %% mystnb={"figure": {"caption": "The weight that each method gives to each of five passages, for the first of the eight questions.", "alt": "Heat map of evidence by method and passage"}}
shown = retriever.retrieve(questions[:1], 5)[0].ids
reading = [name for name in names if name != "closed-book"]
weights = {
    name: {e.passage_id: e.weight for e in answers[name][0].evidence}
    for name in reading
}
table = pd.DataFrame(weights).T.reindex(columns=list(shown)).fillna(0.0)
figures.heat_map(
    table.to_numpy(), rows=reading, columns=list(shown), label="evidence"
)

# %% [markdown]
# ## What is in the weights, and what in the passages
#
# All that follows was measured once and stored: the first test questions of MiniWiki, whose order is random,
# with the dense retriever's five passages or with the gold passage alone; seconds are those of one thread beside
# other work. kNN-LM's $\lambda$ and temperature for answers are those that were tuned for the bundled language
# model, the latter scaled to this one's keys; nothing of it was tuned here. First the model as it is, after four
# answered questions:


# %%
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
# And with the reading adapter, without answered questions:

# %%
print(reading_ones["questions"]["n"], "questions, k =", reading_ones["k"])
Comparison(reading_ones, [])

# %% tags=["remove-input"]
Markdown(
    papers.bullets(
        [
            f"{what}: {order(found)}"
            for what, found in (
                ("out of the box", few_shot),
                ("with the adapter", reading_ones),
            )
        ]
    )
)

# %% [markdown]
# Both beside each other:


# %% mystnb={"figure": {"caption": "Exact match of the six methods on SmolLM2, out of the box after four answered questions and with the reading adapter, with 95 % intervals.", "alt": "Exact match of closed-book, in-context, kNN-LM, RAG-Sequence, RAG-Token and FiD on SmolLM2, frozen and with an adapter"}}
def em(results: dict, name: str) -> dict:
    """A method's exact match with its interval, as the figures take it."""
    entry = results["methods"][name]
    return {"mean": entry["em"], "ci95": entry["ci95"]["em"]}


figures.grouped(
    {
        called(name): {
            "few-shot": em(few_shot, name),
            "adapter": em(reading_ones, name),
        }
        for name in names
    },
    "exact match",
)

# %% tags=["remove-input"]
best = {
    kind: max(names, key=lambda name, found=found: found["methods"][name]["em"])
    for kind, found in (("few-shot", few_shot), ("reading", reading_ones))
}
bound = {
    kind: max(entry["em"] for entry in found["methods"].values())
    for kind, found in gold.items()
}
Markdown(
    f"The highest mean out of the box is that of {called(best['few-shot'])}, and with the adapter that of "
    f"{called(best['reading'])}. With the gold passage alone the highest is "
    f"{cut_off(bound['few-shot'])} % out of the box and {cut_off(bound['reading'])} % with the adapter: what "
    "is missing to that is retrieval, and telling the right passage from the others. The closed book answers "
    f"{cut_off(few_shot['methods']['closed-book']['em'])} %: of what MiniWiki asks, the weights hold little."
)

# %% [markdown]
# ### Fused, or one after the other?
#
# The two methods that show all passages at once differ in whether a passage has been read with the others in
# view. Fused caches have no order of passages, cost no reading anew when the passages change their company,
# and the model was not made for them: in pretraining every token sees all before it. Does an adapter that has
# met them make up for it? By the stored paired tests:

# %% tags=["remove-input"]
recipe = Recipe()
Markdown(
    f"Of the adapter's {recipe.steps} steps, one in "
    f"{len(recipe.layouts) // recipe.layouts.count(APART)} showed passages so.\n\n"
    + papers.bullets(
        [
            f"{what}: {in_words(found, 'in-context', 'fid')}"
            for what, found in (
                ("out of the box", few_shot),
                ("with the adapter", reading_ones),
            )
        ]
    )
)

# %% [markdown]
# ### As a language model
#
# On MiniWiki's held-out articles, which no index holds (`ragbook perplexity --lm smollm2`): the model alone,
# with a memory of all of MiniWiki's passages (kNN-LM, $\lambda$ and temperature tuned on other held-out
# articles), and with the best passage in the prompt.

# %%
language = stored("language")
for name, entry in language.items():
    print(
        f"{name:<12} perplexity {entry['perplexity']:.2f} by token, {entry['word_perplexity']:.2f} by word"
    )
print(
    f"{language['base']['tokens']:,} tokens, {language['base']['words']:,} words"
)

# %% tags=["remove-input"]
less = {
    kind: cut_off(1 - language["knn-lm"][kind] / language["base"][kind])
    for kind in ("perplexity", "word_perplexity")
}
Markdown(
    f"The memory takes {less['word_perplexity']} % off the perplexity by word and {less['perplexity']} % off that "
    "by token. The articles are about other subjects than those that it holds; the command gives no interval."
)

# %% [markdown]
# ## What its makers report, and what is measured here
#
# SmolLM2's report gives no figure for any of these methods; it is a model for devices, whose closed-book
# knowledge is slight. The papers on these ideas report the same shape as is seen here,
# with larger models: answers gain from passages in the prompt without any training
# {cite:p}`ram2023incontext`, and from an ensemble of passages at the next token {cite:p}`shi2024replug`;
# fused caches fall behind full attention and, once trained for, keep up {cite:p}`ma2025block`. Not tried here
# is to set the closed book against the passages, as context-aware decoding does {cite:p}`shi2024trusting`.
#
# ## Where next
#
# Each of these takes one of the places above, or a part of the pipeline that this book keeps fixed,
# and goes further.
#
# * *The layers in between.* RETRO {cite:p}`borgeaud2022retro` retrieves for every chunk of the text, from a
#   database of two trillion tokens, and some of the decoder's layers attend to the neighbours through
#   cross-attention.
# * *The states.* Atlas {cite:p}`izacard2023atlas` trains FiD and its retriever jointly, before any task,
#   and compares objectives by which a reader can train a retriever, perplexity distillation among them.
# * *The next token.* REPLUG {cite:p}`shi2024replug` mixes the distributions of a language model that may
#   only be called, one call for each passage, as RAG-Token does, and trains the retriever with its
#   probabilities.
# * *The input.* In-Context RALM {cite:p}`ram2023incontext` puts retrieved text before the prompt of a
#   frozen model, and studies how often to retrieve and how to rerank.
# * *The cache.* Parallel context windows {cite:p}`ratner2023parallel` give several windows the same
#   positions, without training; Block-Attention {cite:p}`ma2025block` trains a model to read passages
#   independently, so that their keys and values can be reused.
# * *Whether to retrieve.* Self-RAG {cite:p}`asai2024selfrag` trains a model to write tokens that say when
#   to retrieve, and whether a passage is relevant and supports what was written.
# * *The retriever.* ColBERT {cite:p}`khattab2020colbert` keeps a vector for every token and compares
#   question and passage token by token; a reranker {cite:p}`nogueira2019passage` reads question and
#   passage together, which is more accurate than comparing two vectors and too slow for a whole corpus,
#   so that it reorders what a retriever has found.
# * *Long context.* A model with a long context can be given whole documents: {cite:t}`xu2024retrieval`
#   find that retrieval helps models of either kind and that a short context with retrieval can match a
#   longer one without, while {cite:t}`liu2024lost` show that what stands in the middle of a long prompt
#   is used least.
#
# ## Exercises
#
# 1. Set `k = 1` in `methods.load(...)[i].answer(questions, 1)`. Which methods now say the same, and with the
#    same probability? Read it off the equations first.
# 2. Turn the order of the passages around before `read_together` and before `fused`. Which of the two
#    distributions over the first token changes, and why?
# 3. Train an adapter by RAG-Token's own likelihood from the reading one
#    (`ragbook train lora --method rag-token --reader smollm2-reading --steps 30 --out my-adapter`) and compare
#    it with `ragbook compare --reader my-adapter --methods rag-token`.
# 4. Where would you combine the evidence of *two* passages that only answer together? Look at the two-passage
#    questions in `Comparison(...)`.
