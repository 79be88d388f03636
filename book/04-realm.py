# %% [markdown]
# # REALM: retrieve, then predict
#
# ## The problem
#
# If a passage is needed to predict a word, then which passage is needed is itself something to
# learn, and nobody has labelled it. {cite:t}`guu2020realm` make the passage a latent variable and
# let the prediction's own likelihood teach the retriever, before the first question is asked.
#
# ## The idea
#
# *Retrieve, then predict*: draw a passage $z$ from $p(z \mid x)$, read it together with $x$, and predict
# $y$. Since nobody sees which $z$ was drawn, sum over all of them (equation 1):
#
# $$ p(y \mid x) = \sum_z p(y \mid z, x)\, p(z \mid x). $$ (realm)
#
# In pre-training $x$ is a sentence with a hidden span $y$, and every sentence of the corpus is a
# lesson. In question answering $x$ is a question and $y$ a span of some passage.
#
# The passages are combined over answers: each gives the whole answer a probability, and these are
# summed. In the diagram only the third passage contains the answer. It has the smallest prior; the
# posterior, the normalised product of prior and likelihood, gives it all the weight.
#
# ![REALM: each of three passages gives the answer a probability as a span, and these are summed with the prior as weights](diagrams/realm.svg)

# %% [markdown]
# ```{note}
# What this chapter reads from `realm.json` was measured on the questions of MiniWiki's second edition, with
# the readers of that time. What is computed on the page, and the two tables of {doc}`chapter 7 <07-side-by-side>`, are of the third.
# ```

# %%
import inspect
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from experiments import figures, interactive
from experiments.examples import example, told_twice
from experiments.report import percent, points
from experiments.sentences import compared
from IPython.display import Markdown

from ragbook import load_corpus, load_questions, methods
from ragbook.corpus.salient import SalientSpans, sentences
from ragbook.evaluation import exact_match
from ragbook.evaluation.names import capital
from ragbook.evaluation.statistics import cut_off
from ragbook.index import build_index
from ragbook.methods import realm
from ragbook.methods.base import doc_log_probs
from ragbook.models import load_encoder
from ragbook.retrieval import DenseRetriever, OracleRetriever

corpus, encoder = load_corpus("miniwiki"), load_encoder()
index = build_index(corpus, Path("../build/index"), encoder, progress=False)
(method,) = methods.load(["realm"], DenseRetriever(index, encoder))
assert isinstance(method, realm.Realm)
reader, retriever = (
    method.reader,
    method.retriever,
)  # with the question tower that REALM trained
dev = list(load_questions("miniwiki", "dev"))
questions = dev[:32]
measured = json.loads(Path("results/realm.json").read_text())


# %% [markdown]
# ## What is hidden
#
# Which span is hidden decides what can be learnt. "of" can be guessed from grammar, a year cannot:
# *salient* spans, names and dates, are what a passage is needed for (section 3.4). The paper finds
# them with a tagger and a regular expression; here rules do both (`ragbook.corpus.salient`):

# %%
tagger = SalientSpans(passage.text for passage in corpus)
for passage in (corpus.get("uranus-1"), corpus.get("akira-kurosawa-2")):
    for first, last in sentences(passage.text)[:2]:
        sentence = passage.text[first:last]
        print(sentence)
        print("   ", [sentence[a:b] for a, b in tagger(sentence)])

# %% [markdown]
# Three more rules keep the lesson honest. The passage that the sentence comes from is never among the
# candidates, or copying would be all there is to learn. A *null document*, an empty passage, is always
# among them: sentences that no passage helps with have somewhere to put their prior. And only spans
# are hidden that another passage of the same article, or one with another name of the sentence, can
# tell; in all of Wikipedia nearly every fact is told twice, in a small corpus few are.

# %%
start = measured["start"]
for masks in ("salient", "random"):
    print(
        f"{masks:<8} {start[masks]['masks']:,} masks in {start[masks]['sentences']:,} sentences"
    )

# %% [markdown]
# ## The mathematics
#
# With $s(x, z)$ the inner product of two embeddings ($f$ in the paper) and the softmax over the retrieved candidates,
# the gradient of the log-likelihood to a passage's score has a closed form (appendix A):
#
# $$ \frac{\partial \log p(y \mid x)}{\partial s(x, z)} = r(z) = \left[\frac{p(y \mid z, x)}{p(y \mid x)} - 1\right] p(z \mid x). $$ (pull)
#
# A passage's score rises exactly if $y$ is more probable with it than on average. That is the whole
# supervision that the retriever gets.

# %%
print(inspect.getsource(realm.marginal_log_prob).split('"""')[-1])
print(inspect.getsource(realm.score_gradient).split('"""')[-1])
scores = torch.tensor([[1.0, 0.5, 0.0, -0.5]], requires_grad=True)
given = torch.tensor(
    [[0.001, 0.2, 0.01, 0.001]]
).log()  # only the second passage tells y
log_p = realm.marginal_log_prob(given, scores.log_softmax(-1)).sum()
(gradient,) = torch.autograd.grad(log_p, scores)
print("autograd   ", gradient.numpy().round(3)[0])
print(
    "closed form",
    realm.score_gradient(given, scores.detach().log_softmax(-1))
    .numpy()
    .round(3)[0],
)

# %% [markdown]
# ### Whole answers or single tokens
#
# The paper sums over passages with the *whole* answer's probability inside; the released code sums
# for each masked token by itself. For one token they agree. For two tokens on which two passages
# each know one, they do not:

# %%
tokens = torch.tensor(
    [[[0.9, 0.1], [0.1, 0.9]]]
).log()  # [1, two passages, two tokens]
even, both = (
    torch.tensor([[0.5, 0.5]]).log(),
    torch.ones(1, 2, dtype=torch.bool),
)
for form in realm.FORMS:
    print(
        f"{form:<7} {realm.masked_log_prob(tokens, even, both, form).exp().item():.3f}"
    )

# %% [markdown]
# The same fork in the road separates RAG-Sequence from RAG-Token in the next chapter.
#
# ## Latent supervision, seen
#
# To see what the likelihood teaches, the retriever has to be a poor one. Here it is the embedded
# encoder behind a random map to 64 numbers, each stretched or shrunk at random so that a few drown
# all others, after a few steps of the *inverse cloze task* (find the passage that a sentence was
# taken out of), the warm start without which nothing useful is retrieved and nothing can be learnt.
# Only the map is trained. One of the masked sentences, with the passages that were found for it
# before and after pre-training; of twelve drawn at random it is the one for which most was learnt:


# %%
def telling(row, when):
    """Posterior on passages in which the hidden span stands."""
    return sum(z["posterior"] for z in row[when] if z["holds"])


shown = max(
    measured["latent"],
    key=lambda row: telling(row, "after") - telling(row, "before"),
)
print(shown["text"], "|", shown["answer"])
for when in ("before", "after"):
    print(f"\n{when} pre-training")
    for z in shown[when]:
        print(
            f"   {z['passage']:<28} p(z|x) {z['prior']:.2f}   p(z|x,y) {z['posterior']:.2f}   "
            f"RU(z|x) {z['utility']:+.1f}{'   tells it' if z['holds'] else ''}"
        )

# %% [markdown]
# The posterior of equation {eq}`pull` is the label that nobody wrote. RU is the *retrieval utility*
# (section 4.4), $\log p(y \mid z, x) - \log p(y \mid \varnothing, x)$: how many nats a passage is worth beside
# none. The likelihood raises the scores of passages of high utility, so over training the best
# passage found should become worth more.

# %% mystnb={"figure": {"caption": "Retrieval utility of the best passage found, in nats, over pre-training.", "alt": "Retrieval utility against steps for the refreshed, the stale and the random run"}}
RUNS = {
    "refreshed": "salient, refreshed",
    "stale": "salient, index of step 0",
    "random": "random masks",
}


def curve(run: str, figure: str, times: float = 1.0) -> dict[float, float]:
    return {
        row["step"]: times * row[figure]
        for row in measured[run]["log"]
        if figure in row
    }


figures.lines(
    {name: curve(run, "utility") for run, name in RUNS.items()},
    "step",
    "RU (nats)",
)

# %% [markdown]
# ## An index that is refreshed
#
# The index holds what the retriever said of the passages when it was built, and the retriever goes
# on learning. REALM re-embeds all passages while it trains, in a second process, and swaps the new
# index in when it is ready; `ragbook.training.realm.refresh` does so with one atomic replacement of a
# pointer, and in the trainer itself where runs must be repeatable, as here: every 25 steps. The
# stale run keeps its first index; only the candidates are scored anew. Warm start included, a run
# takes some twenty minutes on one core; `ragbook train realm --background` builds the indexes in a
# second process.

# %% mystnb={"figure": {"caption": "Recall@5 on the dev questions over pre-training. For the stale run the index is made anew only to be measured, at the end.", "alt": "Recall at 5 against steps for three runs"}}
recalls = {
    name: {
        row["step"]: 100 * row["recall@5"] for row in measured[run]["refresh"]
    }
    for run, name in RUNS.items()
}
figures.lines(recalls, "step", "recall@5 (%)")

# %%
rows = {
    name: {f"recall@{k} (%)": percent(start[key][k]) for k in ("1", "5", "20")}
    for name, key in (
        ("damaged", "damaged"),
        ("inverse cloze task, the start", "cloze"),
    )
}
for run, name in RUNS.items():
    rows[name] = {
        f"recall@{k} (%)": percent(measured[run]["recall"][k])
        for k in ("1", "5", "20")
    }
    rows[name]["gain at 5 (points)"] = points(measured[run]["gain"]["5"])
print(f"n = {start['questions']} test questions")
for run, difference in measured["differences"].items():
    print(
        f"refreshed - {RUNS[run]:<24} {points(difference)} points of recall@5"
    )
pd.DataFrame(rows).T.fillna("")

# %% tags=["remove-input"]
before, after = (
    part["5"]["mean"]
    for part in (start["cloze"], measured["refreshed"]["recall"])
)
named = {
    "stale": "the one with the stale index",
    "random": "the one with random masks",
}
said = [
    compared(difference, "the refreshed run", named[run])
    for run, difference in measured["differences"].items()
]
Markdown(
    "From sentences alone, without a question, an answer or a label, the damaged retriever finds the gold "
    f"passage among five for {cut_off(after)} % of the questions, where it found it for {cut_off(before)} % "
    f"at the start. {capital('; '.join(said))}."
)

# %% [markdown]
# Why anything is learnt with a stale index: only the *search* is stale, the candidates it returns are scored
# by the retriever as it is. But they are what the damaged retriever could find.


# %% tags=["remove-input"]
def ends(run, figure):
    return [row[figure] for row in measured[run]["log"] if figure in row][-1]


first = next(
    row["holder_found"]
    for row in measured["refreshed"]["log"]
    if "holder_found" in row
)
Markdown(
    f"Early in the refreshed run a passage that tells the hidden span is among the candidates for "
    f"{cut_off(first)} % of the sentences, at its end for {cut_off(ends('refreshed', 'holder_found'))} %; "
    f"in the stale run, at its end, for {cut_off(ends('stale', 'holder_found'))} %. The best passage is "
    f"worth {ends('refreshed', 'utility'):.1f} nats there, in the stale run {ends('stale', 'utility'):.1f}."
)

# %% [markdown]
# How far does a new index move what is retrieved? The share of the seven best passages that the old
# index had found too:

# %% mystnb={"figure": {"caption": "Overlap of the seven best passages before and after each refresh.", "alt": "Overlap against steps"}}
overlaps = {
    row["step"]: 100 * row["overlap"]
    for row in measured["refreshed"]["refresh"]
    if "overlap" in row
}
last = [
    row["overlap"] for row in measured["stale"]["refresh"] if "overlap" in row
][-1]
print(
    f"stale run, first index against one of the trained retriever: {100 * last:.0f} %"
)
figures.lines({"refreshed every 25 steps": overlaps}, "step", "overlap (%)")

# %% [markdown]
# ### The null document's share
#
# Where no passage helps, the null document explains the sentence as well as any. Its score starts on a
# par with the best passage's; if the passages get better it loses its share to them, while the
# posterior on passages that tell the hidden span grows.

# %% mystnb={"figure": {"caption": "Prior and posterior of the null document, and how much posterior lies on passages that tell the hidden span, over the refreshed run.", "alt": "Null prior, null posterior and share of telling passages against steps"}}
figures.lines(
    {
        "null, prior": curve("refreshed", "null_prior", 100),
        "null, posterior": curve("refreshed", "null_posterior", 100),
        "telling passages, posterior": curve(
            "refreshed", "holder_posterior", 100
        ),
    },
    "step",
    "%",
)

# %% tags=["remove-input"]
Markdown(
    f"At the end the null document's prior is {cut_off(ends('refreshed', 'null_prior'))} %; with the stale "
    f"index it is {cut_off(ends('stale', 'null_prior'))} %."
)

# %% [markdown]
# ## Questions
#
# For open question answering $p(y \mid z, x)$ adds up the probabilities of all spans of $z$ that read $y$
# (section 3.2), and spans are few enough to enumerate. The bundled reader and its question tower were
# trained so from one shared reader, beside the other methods ({doc}`07-side-by-side`;
# `ragbook train methods`). One question, step by step, the first that is answered from its gold passage
# alone where another passage is ranked before it: the prior is a softmax over the retriever's scores; the
# reader then gives each passage's spans a distribution of their own, whose first entry says "the answer
# is not here".

# %%
alone = realm.Realm(reader, OracleRetriever(corpus, retriever))
question = example(retriever, dev, reader.tokenizer, alone)
found = retriever.retrieve([question], 5)[0]
prior = torch.log_softmax(
    torch.from_numpy(found.scores) * retriever.score_scale, dim=0
)
print(
    question.text, "|", " / ".join(question.answers), "|", question.gold_passage
)
inputs, spans = reader.span_log_probs([question.text] * 5, found.passages)
for z, passage in enumerate(found.passages):
    flat = spans[z].flatten().clone()
    nothing = flat[0].exp().item()
    flat[0] = -math.inf
    at, width = divmod(int(flat.argmax()), spans.shape[2])
    first, last = inputs.offsets[z, at, 0], inputs.offsets[z, at + width, 1]
    print(
        f"p(z|x) = {prior[z].exp():.2f}  not here {nothing:.2f}  best span "
        f"{flat.max().exp():.2f} {inputs.texts[z][first:last]!r}  ({passage.id})"
    )

# %% mystnb={"figure": {"caption": "Prior and posterior of the five retrieved passages: the answer's likelihood says which passage was worth reading.", "alt": "Heat map of prior and posterior of five passages"}}
answer = method.answer([question], k=5)[0]
weights = {e.passage_id: e.weight for e in answer.evidence}
table = np.array(
    [[math.exp(p) for p in prior.tolist()], [weights[i] for i in found.ids]]
)
print("answer:", answer.text)
figures.heat_map(
    table, rows=["p(z | x)", "p(z | x, y)"], columns=list(found.ids), label=""
)

# %% [markdown]
# The gradient of equation {eq}`pull` for the first question whose right answer has a probability of more
# than 0.01 under at least two of its five passages, the gold one among them. Adding to the gold passage's score
# shows that its gradient vanishes as its prior approaches its posterior. The less the reader knows, the
# more alike are its probabilities, and the smaller are all gradients.

# %% mystnb={"figure": {"caption": "Prior, likelihood, posterior and the gradient of each passage's score. On the site, the sliders change the gold passage's score and what the reader knows.", "alt": "Prior, likelihood of the right answer, posterior and score gradient of five passages in four columns"}}


def likelihood(question, found, z):
    """p(y | z, x) of the right answer under one passage alone."""
    alone = realm.Realm(reader, interactive.Kept(found, [z]))
    return alone.log_prob([question], [question.answers[0]]).exp()[0]


asked, several = told_twice(
    retriever, questions, lambda *place: likelihood(*place) > 0.01
)
print(asked.text, "|", asked.answers[0], "|", asked.gold_passage)
interactive.passages_posterior(
    several.ids,
    doc_log_probs([several], retriever.score_scale)[0],
    torch.stack([likelihood(asked, several, z) for z in range(5)]),
    several.ids.index(asked.gold_passage),
)

# %% [markdown]
# ### One softmax or two
#
# REALM's fine-tuning is ORQA's {cite:p}`lee2019orqa`, and ORQA has *one* softmax over passages and
# spans together. That is a product of a prior and a reader too, but of another prior: one that knows
# how high the spans of a passage score (`realm.joint`).

# %%
span_scores, doc_scores = (
    torch.tensor([[[2.0, 1.0], [-1.0, -2.0]]]),
    torch.tensor([[0.0, 1.0]]),
)
_, weighed = realm.joint(span_scores, doc_scores)
print("REALM's p(z|x)", doc_scores.softmax(-1).numpy().round(2)[0])
print("ORQA's  p(z|x)", weighed.exp().numpy().round(2)[0])

# %% [markdown]
# Fine-tuning leaves the passages' vectors as they are and trains the question side and the span
# scorer on pairs of question and answer, with a second sum over many passages that says which of
# them hold the answer at all (`ragbook.training.realm.open_qa`). `ragbook train realm` runs all of it,
# from the warm start to answers, on MiniWiki or on passages and questions of one's own.

# %%
rows = {}
for run, name in (
    ("realm", "pre-trained, two softmaxes"),
    ("orqa", "pre-trained, one softmax"),
    ("embedded", "embedded encoder, two softmaxes"),
):
    part = measured[run]
    rows[name] = {
        "EM (%)": percent(part["em"]),
        "recall@5 before (%)": percent(part["recall_before"]["5"]),
        "after (%)": percent(part["recall"]["5"]),
    }
own = measured["own"]
print(f"Natural Questions, n = {own['n']}: EM {percent(own['em'])}, ", end="")
print(f"recall@5 {percent(own['recall']['5'])}")
print(
    f"below: EM on {measured['realm']['n']} test questions, recall on {start['questions']}"
)
pd.DataFrame(rows).T

# %% tags=["remove-input"]
trained, orqa, whole = (measured[run] for run in ("realm", "orqa", "embedded"))
gained = [
    100 * (part["recall"]["5"]["mean"] - part["recall_before"]["5"]["mean"])
    for part in (trained, whole)
]
apart = trained["em"]["ci95"][0] > orqa["em"]["ci95"][1] or (
    orqa["em"]["ci95"][0] > trained["em"]["ci95"][1]
)
Markdown(
    f"Exact match goes with recall: the same span scorer answers {cut_off(trained['em']['mean'])} % of the "
    "questions with what the retriever learnt from sentences, and "
    f"{cut_off(whole['em']['mean'])} % with the embedded encoder. Fine-tuning the question side moves "
    f"recall@5 by {gained[0]:+.1f} points for the former and {gained[1]:+.1f} for the latter. The intervals "
    f"of one softmax and of two {'are apart' if apart else 'overlap'}."
)

# %% [markdown]
# The embedded encoder was trained on a billion pairs of texts, which sentences of a small corpus do not make up
# for. The line on Natural Questions is the embedded encoder's on 2,180 passages of Wikipedia, after a
# reader's training and this one on 1,180 questions (figures only).
#
# ## What moves it
#
# More passages raise the chance that the answer is among them, and the number of spans that can be
# mistaken for it.

# %% mystnb={"figure": {"caption": "Exact match of REALM on a sample of dev questions against the number of passages read.", "alt": "Exact match against k"}}
by_k = {}
for k in (1, 2, 5, 10):
    answers = method.answer(questions, k=k)
    by_k[k] = 100 * np.mean(
        [
            exact_match(a.text, q.answers)
            for a, q in zip(answers, questions, strict=True)
        ]
    )
figures.lines({"REALM": by_k}, "k, passages read", "exact match (%)", log=True)

# %% [markdown]
# ## What the paper had
#
# REALM reports 40.4 on NQ-open, against 33.3 of ORQA, whose retriever it shares. What each part is
# worth, on Natural Questions' dev set ({cite:t}`guu2020realm`, table 2), beside this chapter's runs:
#
# | | paper: EM | paper: recall@5 before fine-tuning | here |
# |---|---|---|---|
# | REALM | 38.2 | 38.5 | salient, refreshed |
# | random span masks | 35.3 | 26.1 | random masks |
# | random single-token masks | 32.3 | 24.2 | |
# | index refreshed 30 times less often | 28.7 | 15.1 | salient, index of step 0 |
# | no pre-training, inverse cloze task only (ORQA) | 31.3 | 13.9 | start |

# %%
paper = {"start": 13.9, "refreshed": 38.5, "stale": 15.1, "random": 26.1}
here = {"start": start["cloze"]["5"]} | {
    run: measured[run]["recall"]["5"] for run in RUNS
}
pd.DataFrame(
    {
        run: {"paper's recall@5 (%)": value, "here (%)": percent(here[run])}
        for run, value in paper.items()
    }
).T

# %% tags=["remove-input"]
ours = sorted(here, key=lambda run: -here[run]["mean"])
theirs = sorted(paper, key=lambda run: -paper[run])
lost = 100 * measured["differences"]["stale"]["difference"]
Markdown(
    f"From best to worst the paper has {', '.join(theirs)}; here it is {', '.join(ours)}. A stale index costs "
    f"the paper {paper['refreshed'] - paper['stale']:.1f} points of recall, and this run {lost:.1f}."
)

# %% [markdown]
# The distances need not agree: only a map of 64 numbers is learnt here, in 500 steps, and among 1,806
# passages even an old index has some of the right ones.
#
# The original checkpoints, which `transformers` no longer reads, run here
# (`ragbook.models.checkpoints.realm`). `python benchmarks/realm.py OLD_PYTHON` has an old
# `transformers` make random ones with the originals' layout and compares: vectors, hidden words and
# spans agree to within 0.00002, and all 32 answers are the same.
#
# ## What to remember
#
# REALM treats the passage as a latent variable and sums over it, so that the likelihood of a hidden
# span, or of an answer, trains the retriever without a label. The gradient of a passage's score is its
# posterior minus its prior: a score rises exactly if the passage predicts the answer better than the
# passages do on average. Pre-training on salient spans raises the damaged retriever's recall
# among five passages from less than a third of the questions to half of them, and both the choice of
# the spans and the refreshing of the index contribute to that. An answer must be a span of a retrieved
# passage; any other has probability zero.
#
# ## Exercises
#
# ```{exercise}
# :label: ex-realm-zero
# The comparison's table gives REALM no mean negative log-likelihood over all questions. Why?
# ```
#
# ```{solution} ex-realm-zero
# :class: dropdown
# An answer that stands in none of the k passages has no span, hence probability zero, hence an
# infinite negative logarithm. One such question makes the mean infinite.
# ```
#
# ```{exercise}
# :label: ex-realm-gradient
# Show that the derivative of $\log p(y \mid x)$ by the score of passage $z$ is
# $p(z \mid x, y) - p(z \mid x)$, and that this is equation {eq}`pull`.
# ```
#
# ```{solution} ex-realm-gradient
# :class: dropdown
# With $p(z \mid x) = e^{s_z} / \sum e^{s}$, $\partial p(z') / \partial s_z = p(z')(\delta_{zz'} - p(z))$.
# Summed against $p(y \mid z', x)$ and divided by $p(y \mid x)$ this is
# $p(z)p(y \mid z, x)/p(y \mid x) - p(z)$; the first term is the posterior by Bayes' rule.
# ```
#
# ```{exercise}
# :label: ex-realm-reader
# Suppose the reader knows nothing: $p(y \mid z, x)$ is the same for all $z$. What does pre-training do to
# the retriever?
# ```
#
# ```{solution} ex-realm-reader
# :class: dropdown
# Nothing: posterior and prior are equal and every gradient is zero. If the reader's probabilities
# differ by chance, the gradient is noise, and the retriever drifts. So the reader must be able to
# use a passage before it can teach which one to fetch.
# ```
