# %% [markdown]
# # RAG: the passage as a latent variable
#
# ## The problem
#
# A generator can give answers that are not a span of any passage, and it gives one even if the passage is
# wrong. {cite:t}`lewis2020rag` weight what the generator writes by the probability that each passage is the
# right one, and train retriever and generator together through the weighted sum.
#
# ## The idea
#
# The retriever gives a prior $p(z \mid x)$ over k passages, a softmax of their scaled scores
# $\alpha\, s(x, z)$, and the generator gives $p(y_t \mid x, z, y_{<t})$ for each of them. The sum over $z$ can be in one of two places (section 2.1):
#
# $$ p_{\text{Sequence}}(y \mid x) = \sum_z p(z \mid x) \prod_t p(y_t \mid x, z, y_{<t}), $$ (sequence)
#
# $$ p_{\text{Token}}(y \mid x) = \prod_t \sum_z p(z \mid x)\, p(y_t \mid x, z, y_{<t}). $$ (token)
#
# RAG-Sequence uses one passage for the whole answer; RAG-Token can use a different one for every token.
# Both are computed in logarithms: in RAG-Sequence the log-sum-exp over passages is outside the sum over
# tokens, in RAG-Token inside it.
#
# ![RAG-Sequence: each of three passages gives the whole answer a probability, and these are summed once](diagrams/rag-sequence.svg)
# ![RAG-Token: the probabilities under the three passages are summed at every token, and the sums are multiplied](diagrams/rag-token.svg)
#
# Both diagrams trace the same question. The numbers in their columns are almost the same, but the answer's
# probabilities are far apart. Only the third passage contains the answer. RAG-Sequence multiplies down
# each column first, so the passage's small prior enters once. RAG-Token sums along each row first,
# so the small prior enters at every token of the name.
#
# The two models differ in nothing else, and it is easy to overstate the difference. This chapter gives the
# mathematics with one reader for both, examines why answers are cut short, and compares the two after each
# was trained by its own objective.

# %% tags=["hide-input"]
import gzip
import json
import textwrap
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from experiments import causes, figures, interactive
from experiments.early_stops import without_shares
from experiments.examples import example
from experiments.made import makings
from experiments.papers import FOUR, gains
from experiments.report import percent
from experiments.sentences import compared, course
from experiments.source import source
from IPython.display import Markdown

from ragbook import load_corpus, load_questions, methods
from ragbook.evaluation.metrics import exact_match
from ragbook.evaluation.names import called, capital, listed
from ragbook.evaluation.statistics import ALPHA, cut_off, mean_ci
from ragbook.evaluation.words import in_words
from ragbook.index import build_index
from ragbook.methods import posterior, rag
from ragbook.methods.base import doc_log_probs
from ragbook.methods.decoding import beam_search
from ragbook.models import load_encoder, load_reader
from ragbook.models.generator import labels_of, pad_labels
from ragbook.retrieval import DenseRetriever, OracleRetriever
from ragbook.training.reader.objectives import Recipe

corpus, encoder, reader = load_corpus("miniwiki"), load_encoder(), load_reader()
index = build_index(corpus, Path("../build/index"), encoder, progress=False)
retriever = DenseRetriever(index, encoder)
dev = list(load_questions("miniwiki", "dev"))
questions = dev[:24]
measured, stops, own_training, same_weights = (
    json.loads(Path(f"results/{name}.json").read_text())
    for name in ("rag", "stops", "results", "same-weights")
)

# %% [markdown]
# ## Where is the sum?
#
# Take two equally likely passages and an answer of two tokens. The first passage makes the first token
# likely, the second passage the second token. In the shapes, B is the number of questions, n_docs the number
# of passages per question ($k$ in the formulas), and T the number of tokens in the answer
# ($\lvert y \rvert$):

# %%
p = torch.tensor(
    [[[0.9, 0.1], [0.1, 0.9]]]
)  # p(y_t | x, z, y_<t): [B, n_docs, T]
prior = torch.tensor([[0.5, 0.5]])  # p(z | x): [B, n_docs]
answers = p.prod(-1)  # p(y | x, z), one for each passage
mixed = (prior[..., None] * p).sum(1)  # one for each token
sequence = (prior * answers).sum(-1)
token = mixed.prod(-1)
for name, value in (
    ("RAG-Sequence: product over tokens", answers),
    ("              sum over passages", sequence),
    ("RAG-Token:    sum over passages", mixed),
    ("              product over tokens", token),
):
    print(f"{name:<36}{tuple(value.shape)!s:<7} {value.numpy().round(3)}")

# %% [markdown]
# No passage alone supports the answer, so RAG-Sequence gives it 0.09; RAG-Token combines the two and gives
# it 0.25. The package's functions work with logarithms, and a mask leaves out the padding of shorter answers:

# %%
for core in (
    rag._answer_log_probs,
    rag.sequence_log_prob,
    rag.token_log_prob,
):
    print(source(core) + "\n")
toy = p.log(), prior.log(), torch.ones(1, 2)
for core, by_hand in (
    (rag.sequence_log_prob, sequence),
    (rag.token_log_prob, token),
):
    print(f"{core.__name__:<18} p(y | x) = {core(*toy).exp().item():.3f}")
    assert torch.allclose(core(*toy).exp(), by_hand, atol=1e-6)

# %% [markdown]
# With one passage, or with an answer of one token, the two models are the same:

# %%
tokens, log_prior, mask = toy
one_passage = tokens[:, :1], torch.zeros(1, 1), mask
one_token = tokens[:, :, :1], log_prior, mask[:, :1]
for given in (one_passage, one_token):
    print(
        [
            round(core(*given).item(), 6)
            for core in (rag.sequence_log_prob, rag.token_log_prob)
        ]
    )

# %% [markdown]
# ## On the index
#
# The *bundled reader* has 27 million parameters: MiniLM's six-layer encoder, its upper four layers tuned to
# read question and passage together, and a two-layer decoder that shares its word embeddings. It was
# trained on invented passages and on MiniWiki's train questions, with the gold passage, without it, or with
# five or ten passages.
#
# The example is the first dev question that meets these conditions: its gold passage is retrieved but not
# first; its answer has three tokens or more; the reader answers it from the gold passage alone; and just one
# of the two models answers it, while each finds its own answer the more probable one. Listed are the
# passages, their prior, the right answer's log-probability under each, and the posterior
# $p(z \mid x, y)$, RAG-Sequence's evidence. `verbatim=True` is a rule of this book's comparisons: an answer
# must be a run of words of one of the passages.

# %%
alone = rag.RagSequence(
    reader, OracleRetriever(corpus, retriever), verbatim=True
)
alike = methods.load(
    ["rag-sequence", "rag-token"], retriever, verbatim=True, shared=True
)
question = example(retriever, dev, reader.tokenizer, alone, apart=alike)
found = retriever.retrieve([question], 5)
log_prior = doc_log_probs(found, retriever.score_scale)
memory = reader.read([question], [found[0].passages])
labels = labels_of(reader, [question.answers[0]])
per_token = reader.token_log_probs(memory, labels.expand(5, -1))[
    None
]  # [B, n_docs, T]
given = per_token.sum(-1)
after = posterior(log_prior, given)
print(question.text, "|", question.answers[0])
print(f"\n{'':<28} p(z|x)  log p(y|x,z)  p(z|x,y)")
for z, passage_id in enumerate(found[0].ids):
    gold = "  gold" if passage_id == question.gold_passage else ""
    print(
        f"{passage_id:<28} {log_prior[0, z].exp():>6.2f}  {given[0, z]:>12.2f}  "
        f"{after[0, z]:>8.2f}{gold}"
    )
own = torch.ones_like(labels)
for name, core in (
    ("sequence", rag.sequence_log_prob),
    ("token", rag.token_log_prob),
):
    print(f"log p_{name}(y | x) = {core(per_token, log_prior, own).item():.2f}")

# %% [markdown]
# Both models have the same reader and the same passages, yet they give different answers:

# %%
said = {model.name: model.answer([question])[0].text for model in alike}
print(f"{'log p':<22}" + "".join(f"{model.name:>14}" for model in alike))
for text in said.values():
    each = [model.log_prob([question], [text]).item() for model in alike]
    print(f"{text:<22}" + "".join(f"{log_p:>14.2f}" for log_p in each))
right = [
    name for name, text in said.items() if exact_match(text, question.answers)
]
assert len(right) == 1

# %% tags=["remove-input"]
gold = found[0].ids.index(question.gold_passage)
share = rag.token_posterior(per_token, log_prior)[0, gold]
nearly = int((share > 0.9).sum())
which = (
    f"each of the right answer's {nearly} tokens"
    if nearly == len(share)
    else f"{nearly} of the right answer's {len(share)} tokens"
)
Markdown(
    f"{called(right[0])} answers correctly; {called(*(set(said) - set(right)))} does not. The gold passage's prior is "
    f"{log_prior[0, gold].exp():.2f}, and RAG-Sequence multiplies by it once. RAG-Token multiplies by a prior at "
    f"every token, and for {which} (end included) nearly all of its probability comes from this passage. Which "
    "model is right varies from question to question; the table at the end of the chapter compares them on all "
    "test questions."
)

# %% [markdown]
# The figure shows the same numbers as probabilities, in the diagrams' layout: a column for each passage, a
# row for each token. RAG-Sequence multiplies down each column and then sums once, with the prior as weights;
# RAG-Token sums along each row with these weights and then multiplies the sums. If one passage has all of
# the prior, the two models agree.

# %% mystnb={"figure": {"caption": "The probability of each token of the answer under each passage, and where the two methods sum. The prior of the passage that contains the answer enters RAG-Sequence's sum once, and RAG-Token's at every token. On the site, the sliders change the prior.", "alt": "Prior and token probabilities of five passages, with RAG-Token's sum of every token's column and RAG-Sequence's sum of the whole answers"}}
pieces = [
    *reader.tokenizer.convert_ids_to_tokens(labels[0, :-1].tolist()),
    "(end)",
]
interactive.where_the_sum_is(
    found[0].ids,
    pieces,
    log_prior[0],
    per_token[0],
    found[0].ids.index(question.gold_passage),
)

# %% [markdown]
# ### RAG-Token's own evidence
#
# The posterior in the listing does not apply to RAG-Token, in which every token has its own latent
# passage, $z_t$. Given the answer up to this token,
#
# $$ p(z_t \mid x, y_{\le t}) \propto p(z_t \mid x)\, p(y_t \mid x, z_t, y_{<t}), $$ (token-posterior)
#
# and since the $z_t$ are drawn independently of each other, no later token changes it. RAG-Token's evidence
# for an answer is the mean of these posteriors over the answer's tokens. Under RAG-Sequence a passage has to
# explain the whole answer; under RAG-Token it gets credit for every token that it makes likely, even for
# those that all passages make likely.

# %% mystnb={"figure": {"caption": "RAG-Token: the posterior over passages for each token of the right answer. The tokens of the name come from the passage that contains it; the last row is the end of the answer.", "alt": "Heat map of the posteriors over passages, a row for each token of the answer"}}
by_token = rag.token_posterior(per_token, log_prior)[0]
assert (by_token.argmax(0)[:-1] == gold).all()  # as the caption says
figures.heat_map(
    by_token.T.numpy(),
    rows=pieces,
    columns=list(found[0].ids),
    label="p(z_t | x, y_<=t)",
)

# %% mystnb={"figure": {"caption": "Two measures of which passage the answer came from: one posterior for all of it, and the mean of the tokens' posteriors.", "alt": "Heat map of the evidence of RAG-Sequence and RAG-Token over five passages"}}
evidence = torch.stack([after[0], by_token.mean(-1)])
rows = ["RAG-Sequence, p(z | x, y)", "RAG-Token, mean over t"]
figures.heat_map(
    evidence.numpy(), rows=rows, columns=list(found[0].ids), label="evidence"
)

# %% [markdown]
# ### What RAG-Token forgets
#
# RAG-Sequence, too, can be written as a model of the next token. It then weights each passage by its
# probability *given what has been written*; RAG-Token uses the prior at every token:
#
# $$ p_{\text{Sequence}}(y_t \mid x, y_{<t}) = \sum_z p(z \mid x, y_{<t})\, p(y_t \mid x, z, y_{<t}), \qquad
#    p_{\text{Token}}(y_t \mid x, y_{<t}) = \sum_z p(z \mid x)\, p(y_t \mid x, z, y_{<t}), $$ (next-word)
#
# with $p(z \mid x, y_{<t}) \propto p(z \mid x) \prod_{s<t} p(y_s \mid x, z, y_{<s})$. RAG-Sequence remembers which
# passages made the beginning of the answer likely. RAG-Token gives every passage its full weight again at every
# token, even those under which the beginning was improbable. Such a passage does not say how the answer
# continues, and it often gives the end a high probability.
#
# The listing goes through the same answer prefix by prefix. *weight* is that of the passages that contain the
# whole answer, and *p(end)* the probability that the answer ends there, too early.

# %%
answer = labels[0, :-1].tolist()
holds = torch.tensor(
    [question.answers[0].lower() in p.text.lower() for p in found[0].passages]
)
for cut in range(1, len(answer)):
    ends = reader.token_log_probs(
        memory, pad_labels([[*answer[:cut], reader.end]] * 5)
    )[:, -1]
    so_far = torch.log_softmax(
        log_prior[0] + per_token[0, :, :cut].sum(-1), dim=0
    )
    said = " ".join(pieces[:cut]).replace(" ##", "")
    for name, weights in (
        ("RAG-Sequence", so_far),
        ("RAG-Token", log_prior[0]),
    ):
        early = torch.logsumexp(weights + ends, dim=0).exp()
        held = weights.exp()[holds].sum()
        print(
            f"{said + ' ...':<24} {name:<13} weight {held:.2f}   p(end) {early:.3f}"
        )

# %% [markdown]
# ## The likelihood and its bound
#
# For any distribution $q(z)$ over the passages,
#
# $$ \log p(y \mid x) = \underbrace{\mathbb{E}_q\left[\log \frac{p(y, z \mid x)}{q(z)}\right]}_{\text{ELBO}} + \mathrm{KL}\left(q \,\|\, p(z \mid x, y)\right), $$ (elbo)
#
# so the bound is tight exactly if $q$ is the posterior, and the gap is the divergence of $q$ from it. $q$ must
# not give weight to a passage whose joint probability is zero. With k passages the sum can be computed and
# no bound is needed; the identity shows what a bound would cost, here for $q$ on the way from the prior to
# the posterior.

# %% mystnb={"figure": {"caption": "The bound and the likelihood, in nats, as q moves from the prior to the posterior: the gap closes only at the posterior.", "alt": "ELBO against the mixture of prior and posterior, rising to the log-likelihood"}}
steps = [0.0, 0.25, 0.5, 0.75, 0.9, 1.0]
mixed = [(1 - a) * log_prior.exp() + a * after for a in steps]
bound = {
    a: rag.elbo(q, log_prior, given).item()
    for a, q in zip(steps, mixed, strict=True)
}
exact = rag.sequence_log_prob(per_token, log_prior, own).item()
gaps = [rag.elbo_gap(q, log_prior, given).item() for q in mixed]
assert np.allclose(
    [bound[a] + gap for a, gap in zip(steps, gaps, strict=True)],
    exact,
    atol=1e-3,
)
curves = {"ELBO": bound, "log p(y | x)": dict.fromkeys(steps, exact)}
figures.lines(curves, "share of the posterior in q", "nats")

# %% [markdown]
# ## What the question tower learns from
#
# RAG is never told which passage is right. As in {doc}`REALM <04-realm>`, the gradient of RAG-Sequence's
# log-likelihood with respect to a passage's scaled score is the posterior minus the prior; RAG-Token's is the
# sum of such differences over the tokens. Passages that explain the answer better than expected pull the
# question's vector towards them; the others push it away.

# %%
scores = log_prior.detach().clone().requires_grad_()
p = log_prior.exp()
for core, by_hand in (
    (rag.sequence_log_prob, after - p),
    (rag.token_log_prob, (by_token[None] - p[..., None]).sum(-1)),
):
    log_p = core(per_token, scores.log_softmax(-1), own).sum()
    (gradient,) = torch.autograd.grad(log_p, scores)
    print(core.__name__)
    print("   autograd         ", gradient[0].numpy().round(3))
    print("   posterior - prior", by_hand[0].numpy().round(3))

# %% [markdown]
# ## How both are trained
#
# As in the paper, the question tower and the generator are trained together, each model by its own marginal
# likelihood, equation {eq}`sequence` or {eq}`token`. The passage tower and the index do not change. Both
# start from one shared reader, see the same questions in the same order, and read the passages that the
# question tower finds at that step. `ragbook train methods` does this; it trains FiD and REALM with the
# same recipe and their own likelihoods.

# %%
recipe = Recipe()
print(
    f"{recipe.steps} steps of {recipe.batch} questions with {recipe.n} passages each"
)
pd.Series(asdict(recipe), dtype=object)

# %% [markdown]
# * *What is trained.* All of the decoder except the word embeddings and the output layer's bias, which could
#   memorise answers. The upper two layers of the encoder and of the question tower get a low-rank change
#   {cite:p}`hu2022lora`, so each model ships as a small file of changes.
# * *The likelihood* is that of verbatim decoding: only runs of the passages' words count as answers.
# * *Two more losses*, as in the shared reader's training: a passage without the answer should produce an
#   empty answer (*silence*), and the last decoder layer should attend to the token that comes next
#   (*pointer*).
# * *Exchanged answers.* In every third question another answer of the same form replaces the right one, in
#   passages and target, so that the reader has to read it and cannot recall it.
#
# `ragbook train rag` trains both parts for another corpus, with 20 passages per question.
#
# The table tests the trained question tower; both rows have RAG-Sequence's trained generator:

# %% tags=["hide-input", "stored-rag"]
joint = measured["test"]["joint"]
rows = {}
for name in ("frozen", "trained"):
    rows[name] = {
        f"recall@{k} (%)": percent(joint[name]["recall"][k])
        for k in ("1", "5", "20")
    }
    rows[name]["EM (%)"] = percent(joint[name]["em"])
print(f"n = {measured['test']['n']} test questions")
pd.DataFrame(rows).T

# %% tags=["remove-input", "stored-rag"]
pair = "the trained question tower", "the bundled one"
same, said = [], []
for what, name in (
    ("recall", f"recall@{measured['test']['k']}"),
    ("em", "exact match"),
):
    test = joint[f"{what}_difference"]
    if any(test["ci95"]):
        said.append(capital(f"by {name}, {compared(test, *pair)}."))
    else:
        same.append(name)
if same:
    said.insert(0, f"Both towers have the same {listed(same)}.")
wide = {
    name: joint[name]["recall"]["20"]["mean"] for name in ("frozen", "trained")
}
n = measured["test"]["n"]
moved = abs(round(n * (wide["trained"] - wide["frozen"])))
said.append(
    f"Recall@20 is {cut_off(wide['frozen'])} % for the bundled tower and {cut_off(wide['trained'])} % for the "
    f"trained one, a difference of {'one question' if moved == 1 else f'{moved} questions'} in {n}."
    if moved
    else f"Recall@20 is {cut_off(wide['frozen'])} % for both."
)
if same == ["recall@5", "exact match"] and moved < 0.01 * n:
    said.append(
        f"{recipe.steps} steps at a peak rate of {recipe.query_rate:.5f} have no measurable effect here, where the "
        f"bundled encoder's recall@5 is already {cut_off(joint['frozen']['recall']['5']['mean'])} %."
    )
Markdown(" ".join(said))

# %% [markdown]
# ## Thorough and fast
#
# RAG-Token is decoded like any other model: one beam search over the marginal distribution of the next
# token. RAG-Sequence's sum over passages comes at the end, so the paper gives each passage its own beam
# search; *thorough* decoding then scores every candidate under every passage, and *fast* decoding takes
# $p(y \mid x, z) \approx 0$ where the beam of $z$ did not propose $y$. The encoder runs once for each
# passage, and the cross-attention's keys and values are kept for the scoring.

# %%
thorough, as_tokens = methods.load(
    ["rag-sequence", "rag-token"], retriever, verbatim=True
)
assert isinstance(thorough, rag.RagSequence)
assert isinstance(as_tokens, rag.RagToken)
fast = rag.RagSequence(
    thorough.reader, thorough.retriever, verbatim=True, thorough=False
)
pairs = list(
    zip(thorough.answer(questions), fast.answer(questions), strict=True)
)
print(
    f"{sum(a.text == b.text for a, b in pairs)} of {len(pairs)} answers are the same"
)

# %% tags=["hide-input", "stored-rag"]
part = measured["test"]["decoding"]
print(
    f"the same answer to {percent(part['agreement'])} % of {measured['test']['n']} test questions"
)
pd.DataFrame(
    {
        way: {
            "EM (%)": percent(part[way]["em"]),
            "relative time": f"{part[way]['seconds_per_question'] / part['thorough']['seconds_per_question']:.2f}",
        }
        for way in ("thorough", "fast")
    }
).T

# %% [markdown]
# For the example question, now with each model's own training, the candidates' log-probabilities show that
# fast decoding leaves out almost nothing. RAG-Token's are listed last:

# %%
for name, way in (
    ("thorough", thorough),
    ("fast", fast),
    ("rag-token", as_tokens),
):
    (candidates,) = way.generate([question], 5, 3)
    texts = [reader.decode(c.tokens) for c in candidates]
    said = [
        f"{text} {c.log_prob:.2f}"
        + " (right)" * exact_match(text, question.answers)
        for text, c in zip(texts, candidates, strict=True)
    ]
    print(f"{name:<10}", " | ".join(said))
(whole,), (part,) = (way.generate([question], 5, 3) for way in (thorough, fast))
left_out = {c.tokens: c.log_prob for c in part}
lost = [c.log_prob - left_out[c.tokens] for c in whole if c.tokens in left_out]
print(f"thorough - fast: {max(lost):.5f} nats at most")
assert max(lost) < 0.01  # almost nothing, as the text says

# %% [markdown]
# ## Answers that stop too early
#
# Ending an answer multiplies its probability by one more factor below 1; continuing it multiplies by several.
# Any comparison of hypotheses of different lengths can therefore favour the short one. An answer is *cut short*
# if it is only a part of a gold answer, as `Francesco` is of Francesco Maria del Monte. On all test questions:

# %% tags=["hide-input", "stored-results", "stored-same-weights"]
both = {"same weights": same_weights, "own training": own_training}
n = own_training["questions"]["n"]
assert same_weights["questions"]["n"] == n
print(f"n = {n} test questions, answers cut short in %")
pd.DataFrame(
    {
        kind: {
            name: percent(mean_ci([1.0] * cut + [0.0] * (n - cut)))
            for name in figures.ORDER
            for cut in [results["methods"][name]["errors"]["cut"]]
        }
        for kind, results in both.items()
    }
)

# %% tags=["remove-input", "stored-results", "stored-same-weights"]
with gzip.open("results/predictions.jsonl.gz", "rt", encoding="utf-8") as file:
    said = [json.loads(line)["methods"] for line in file]
cut = {
    name: [float(each[name]["error"] == "cut") for each in said]
    for name in ("rag-token", "rag-sequence")
}
penalties = [
    f"{same_weights['methods'][name]['length_penalty']:g} for {called(name)}"
    for name in causes.METHODS
]
Markdown(
    f"After each model's own training, {causes.cut_short(cut)}. With the same weights, each is decoded with the "
    f"length penalty that was best on dev questions: {listed(penalties)}."
)

# %% [markdown]
# ### What keeps answers whole
#
# RAG-Token's share is small, and its decoding guards against early ends. The table takes one guard
# away at a time, or adds one, and shows what happens.
#
# * *The comparison.* At every token, a long answer loses the probability that the model gives to words that the
#   rule forbids. The package therefore compares *shares* of what is allowed. The change is to compare
#   probabilities.
# * *The passages.* Each passage of RAG-Token's mixture is restricted to its own words, so that only passages that
#   contain the beginning of the answer continue it. The change is one rule for all of them.
# * *The rule.* The change is to allow all words.
# * *The mixture.* With one passage there is nothing to mix or to fuse, and with the same weights the three
#   methods are one model. (The passage with the answer is then missing more often, so this does not change the
#   mixture alone.)
# * *The length.* The change is a penalty, which divides the score by a power of the length. No other row has one.
# * *The training.* The likelihood is taken under the rule, which leaves little to decide except whether the answer
#   ends or goes on; a likelihood over all words mostly rewards small probabilities for words that are wrong
#   anyway. Both trainings are compared with the shared reader.
#
# In a toy of the comparison, the short answer is one token with $p = 0.3$, after which it ends; the long one has
# tokens with 0.4 and 0.5, and ends with 0.5. By probability the short one wins, as 0.3 is more than
# $0.4 \cdot 0.5 \cdot 0.5 = 0.1$. Among what is allowed, its share is $0.3 / 0.7 = 0.43$ and that of the long
# one $0.4 / 0.7 = 0.57$, since each further token is the only one allowed.

# %%
start, end, short, a, b, forbidden = range(6)
likely = torch.full((6, 6), 1e-9)
likely[start, [short, a, forbidden]] = torch.tensor([0.3, 0.4, 0.3])
likely[short, end] = 1.0
for row, token in ((a, b), (b, end)):
    likely[row, [token, forbidden]] = 0.5
may_follow = {(): [short, a], (short,): [end], (a,): [b], (a, b): [end]}


def best():
    found = beam_search(
        lambda prefixes, *_: likely[prefixes[:, -1]].log(),
        batch=1, start=start, end=end, beams=2,
        allowed=[lambda prefix: may_follow.get(tuple(prefix), [end])],
    )[0][0]  # fmt: skip
    return "short" if found.tokens == (short,) else "long"


with without_shares():
    print("compared by probability:     ", best())
print("by shares of what is allowed:", best())

# %% [markdown]
# The table shows how each change affects the share of cut answers, in points, on the same dev questions. A star
# marks a change that is significant after Holm's correction for all tests of the table (the intervals are not
# corrected); the verdict names the methods. Each change of decoding starts from the package's decoding, except
# *the comparison*: there all passages have one rule both before and after the change.

# %% tags=["hide-input", "stacks", "stored-stops"]
every = causes.effects(stops)
causes.table(every)

# %% tags=["remove-input", "stored-stops"]
each = []
for cause in dict.fromkeys(effect.cause for effect in every):
    one = causes.of_cause(every, cause)
    own = causes.in_words(one, "rag-token", "it")
    beside = causes.others(one, "rag-token")
    each.append(f"* *{capital(cause)}.* {own} {beside}".rstrip())
by_em = causes.summary(causes.effects(stops, "em"))
Markdown(
    f"For answers cut short, {causes.summary(every)}. {causes.whose(every)} For exact match, {by_em}.\n\n"
    "What happens to RAG-Token's share of cut answers:\n\n"
    + "\n".join(each)
    + f"\n\nThe intervals leave room for {causes.room(every, 'rag-token')}."
)

# %% [markdown]
# ### What belongs to RAG-Token
#
# How much of this is in the model itself, whatever the decoding? Take every right answer of several tokens, and
# every place at which it could end too early, with all words allowed. The retrieved passages are of two kinds:
# those that contain the answer, and the others. *prior* is the weight that RAG-Token's mixture gives a kind of
# passage, the same at every token; *end* is the probability that the answer ends there, *next* that it continues
# correctly. The table shows means over the places at which there is such a passage:

# %% tags=["hide-input", "stored-stops"]
rows = {
    (kind, {"holds": "contain the answer", "others": "others"}[which]): {
        "places": str(part["n"]),
        **{key: round(part[key], 3) for key in ("prior", "end", "next")},
    }
    for kind in causes.WEIGHTS
    for which, part in stops[f"end tokens, {kind}"].items()
}
pd.DataFrame(rows).T

# %% tags=["remove-input", "stored-stops"]
said = []
for kind in causes.WEIGHTS:
    holds_it, others = (
        stops[f"end tokens, {kind}"][which] for which in ("holds", "others")
    )
    weights = (
        "the same weights" if kind == "same weights" else "its own training"
    )
    said.append(
        f"With {weights}, the mean probability of an early end is {others['end']:.3f} under passages that do not "
        f"contain the answer and {holds_it['end']:.3f} under those that do; that of the right next token is "
        f"{others['next']:.3f} and {holds_it['next']:.3f}."
    )
Markdown(" ".join(said))

# %% [markdown]
# Equation {eq}`next-word` says why this matters for one model only. Under RAG-Sequence, a passage that made
# the beginning of the answer improbable has little weight when the answer may end. Under RAG-Token it has
# its full prior again at every token, and the probability that it gives to the end enters the mixture. This
# tendency to end early is in the model; the tests above show how far decoding and training decide whether it
# becomes a stop. Mixing at every token is right where passages agree on the continuation or know different parts
# of the answer. It is costly where only one knows the whole.
#
# ## How many passages
#
# With more passages, the right one is more often among them, and there are more wrong ones to outweigh.
# RAG-Token mixes them at every token; RAG-Sequence first lets each passage complete its own answer. The
# paper finds that RAG-Sequence gains from every further passage up to 50, whereas RAG-Token is best with
# ten (section 4.5).

# %% tags=["hide-input", "stored-rag"] mystnb={"figure": {"caption": "Recall of the gold passage and exact match of both models on 100 dev questions against the number of passages read, with 95 % intervals. Recall rises up to 20 passages; exact match rises from one passage to two, and then changes by at most two points.", "alt": "Recall and exact match of RAG-Sequence and RAG-Token for k from 1 to 20"}}
part = measured["dev"]
curves = {
    name: {float(k): value for k, value in part[name].items()}
    for name in ("recall", "rag-sequence", "rag-token")
}
print(f"n = {part['n']} dev questions; exact match with its 95 % interval:")
for name in ("rag-sequence", "rag-token"):
    for k, value in part[name].items():
        print(f"{name:<13} k = {k:<3} {percent(value)}")
figures.curves(curves, "k, passages read", "share of questions", log=True)

# %% tags=["remove-input", "stored-rag", "stored-sweep"]
sweep = json.loads(Path("results/sweep.json").read_text())
by_k = {k: sweep[f"dense, k = {k}"] for k in (1, 2, 5, 10)}
for k, each in by_k.items():  # the same answers to the same questions
    assert each["n"] == part["n"]
    for key in ("rag-sequence", "rag-token"):
        assert each["methods"][key]["em"] == part[key][str(k)]
gained = gains(by_k, ["in-context", *FOUR], list(pairwise(by_k)))
assert all(
    gain["adjusted_p"] >= ALPHA  # as the sentence says
    for gain in gained
    if gain["method"] in ("rag-sequence", "rag-token")
)
said = [
    course(name, part[key])
    for name, key in (
        ("RAG-Sequence", "rag-sequence"),
        ("RAG-Token", "rag-token"),
    )
]
Markdown(
    f"By exact match, {said[0]}. {said[1]}. Chapter 7 has paired tests of the steps up to {max(by_k)} passages, on "
    f"the same {part['n']} questions: after Holm's correction none is significant for either model, not even the "
    "first."
)

# %% [markdown]
# ## How much should retrieval count?
#
# $p(z \mid x)$ is a softmax of $\alpha\, s(x, z)$; the scale $\alpha$ is the one that the encoder was trained with.
# It sets the weight of retrieval against generation. At 0 all k passages count alike, and only the generator
# distinguishes them; with a very large scale only the passage ranked first counts. The figure multiplies the
# scale by a factor and shows how probable the right answers of a sample are:

# %% mystnb={"figure": {"caption": "Mean negative log-likelihood of the right answers to 24 dev questions, with one reader for both models, against the factor on the retriever's scale. The encoder's own scale is 1.", "alt": "Negative log-likelihood against the factor on the scale for RAG-Sequence and RAG-Token"}}
factors = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
nll = {
    name: dict.fromkeys(factors, 0.0) for name in ("RAG-Sequence", "RAG-Token")
}
for asked in questions:
    (documents,) = retriever.retrieve([asked], 5)
    memory = reader.read([asked], [documents.passages])
    target = labels_of(reader, [asked.answers[0]])
    per_token = reader.token_log_probs(
        memory, target.expand(len(documents.ids), -1)
    )[None]
    scores = retriever.score_scale * torch.from_numpy(documents.scores)[None]
    for factor in factors:
        weights = (factor * scores).log_softmax(-1)
        for name, core in zip(
            nll, (rag.sequence_log_prob, rag.token_log_prob), strict=True
        ):
            log_p = core(per_token, weights, torch.ones_like(target))
            nll[name][factor] -= log_p.item() / len(questions)
figures.lines(
    nll, "factor on the scale of the scores", "nats for the right answer"
)

# %% tags=["remove-input"]
least = {
    name: min(values, key=values.__getitem__) for name, values in nll.items()
}
Markdown(
    f"Of the factors tried, the right answers to these {len(questions)} questions are most probable with a "
    "factor of "
    + (
        f"{min(least.values()):g} under both models"
        if len(set(least.values())) == 1
        else " and ".join(
            f"{factor:g} under {name}" for name, factor in least.items()
        )
    )
    + "."
)

# %% [markdown]
# The encoder's scale was chosen without this reader, and such a curve shows whether it suits both. For another
# retriever, choose this one number, the encoder's `score_scale`, on dev questions.
#
# ## Checking claims
#
# A target of one token is a class, and for one token RAG-Sequence and RAG-Token are the same model. The
# paper checks claims of FEVER in this way. Here claims are made from MiniWiki's questions: a sentence with the
# right answer is true, and the same sentence with another answer of its kind is false. A hundred kilobytes of
# biases and layer norms, trained by the same marginal likelihood, turn the reader into a checker
# (`experiments.claims_and_clues_training`):

# %%
from experiments import claims_and_clues_data as tasks
from experiments.claims_and_clues import classify, methods, table, task_reader

claims = list(tasks.claims("dev"))[:48]
both = ["rag-sequence", "closed-book"]
checker, blind = methods("claims", task_reader("claims"), retriever, both)
given_labels, blind_labels = classify(checker, claims), classify(blind, claims)
for claim, given_label in list(zip(claims, given_labels, strict=True))[:4]:
    print(
        textwrap.fill(
            f"{given_label} (is {claim.answers[0]}): {claim.text}", 80
        )
    )
for name, said in (("with passages", given_labels), ("without", blind_labels)):
    right = sum(a == q.answers[0] for a, q in zip(said, claims, strict=True))
    print(f"{name:<14} {right} of {len(claims)} right")

# %% [markdown]
# The table is for the whole test split, with intervals. *Evidence* is how often the passage with the greatest
# weight is the one that the claim was made from.

# %% tags=["hide-input", "stored-tasks"]
task_rows = json.loads(Path("results/tasks.json").read_text(encoding="utf-8"))

print(
    "n =",
    next(row["n"] for row in task_rows if row["task"] == "claims"),
    "claims, %",
)
pd.DataFrame(table(task_rows, "claims")).T.fillna("")

# %% [markdown]
# A label is one token, whose end is never in doubt, so the two models give the same answers. Their evidence
# can differ, since RAG-Token counts the end as a token.

# %% tags=["remove-input", "stored-tasks"]
found = {
    (row["model"], row["k"], row["metric"]): row["value"]
    for row in task_rows
    if row["task"] == "claims"
}
NUMBER = {1: "one passage", 5: "five passages"}
differ = [
    f"evidence with {NUMBER[k]} ({cut_off(value)} % for RAG-Sequence, {cut_off(other)} % for RAG-Token)"
    for (model, k, metric), value in found.items()
    if model == "rag-sequence" and metric == "evidence on the gold passage"
    for other in [found["rag-token", k, metric]]
    if f"{value:.3f}" != f"{other:.3f}"
]
blind_share, blind_true, blind_false = (
    next(
        value
        for (model, _, metric), value in found.items()
        if (model, metric) == ("closed-book", f"accuracy{part}")
    )
    for part in ("", ", true claims", ", false claims")
)
one_label = abs(blind_true - blind_false) > 0.5
(older,) = (each.measured_on for each in makings() if each.name == "tasks")
Markdown(
    "The two models have the same accuracy and "
    + (f"different {listed(differ)}. " if differ else "the same evidence. ")
    + (
        f"Without passages the checker answers *{'false' if blind_true < blind_false else 'true'}* to nearly every "
        f"claim (it is right on {cut_off(blind_true)} % of the true and {cut_off(blind_false)} % of the false ones), "
        f"so its {cut_off(blind_share)} % does not say whether the words of a claim give its label away."
        if one_label
        else f"Without passages the checker is right on {cut_off(blind_true)} % of the true and "
        f"{cut_off(blind_false)} % of the false claims."
    )
    + (f" The next section was measured on {older}." if older else "")
)

# %% [markdown]
# ## Writing questions
#
# The paper's Jeopardy task reverses question answering: given a name, write the clue that asks for
# it. The output is a sentence, and the two models differ. Here the input is a name from MiniWiki, BM25
# finds its passages (a sentence encoder knows little about a bare name), and the target is the question of the
# training set whose answer is the name. A written question is judged by the *round trip*: it counts if it does
# not contain the name and RAG-Sequence, asked this question, answers with the name.

# %% tags=["hide-input", "stored-tasks"]
print(
    "n =",
    next(row["n"] for row in task_rows if row["task"] == "clues"),
    "dev names, % except for nats",
)
pd.DataFrame(table(task_rows, "clues")).T.fillna("")

# %% [markdown]
# *reference* is the round trip of MiniWiki's own questions. It shows how good the judging reader is.

# %% tags=["remove-input", "stored-tasks"]
trips = {
    row["model"]: row
    for row in task_rows
    if row["task"] == "clues"
    and row["metric"] == "round trip"
    and row["k"] == 5
}
better, other = sorted(
    (trips["rag-sequence"], trips["rag-token"]), key=lambda row: -row["value"]
)
apart = better["ci95"][0] > other["ci95"][1]
Markdown(
    f"{called(better['model'])}'s clues lead back to the name in {cut_off(better['value'])} % of the cases and "
    f"{called(other['model'])}'s in {cut_off(other['value'])} %"
    + (
        ", and the intervals do not overlap."
        if apart
        else "; the intervals overlap (no paired test is stored)."
    )
)

# %% [markdown]
# In the paper RAG-Token writes the better Jeopardy questions (section 4.3). A reason may be that it can change
# the passage at every token: the parts of a clue can come from several passages, and no passage has to support
# the whole clue. Without passages the writer knows only the name (*tells the name* is how often it writes it).
#
# Both models use one reader of clues, which was trained by RAG-Token's likelihood
# (`python -m book.experiments.claims_and_clues_training clues DIR rag-token layers`). This favours RAG-Token, so
# the table cannot say how much of its lead is due to where the sum is. The reader is as large as the shared one
# and is not shipped.
#
# ## What the paper reports
#
# Exact match on the open-domain test sets and, on Natural Questions' dev set, the contribution of a trained
# question tower ({cite:t}`lewis2020rag`, tables 1 and 6; generator BART-large, 21 million passages):
#
# | | NQ | TriviaQA | WebQ | CuratedTrec | NQ dev: BM25 | frozen | trained |
# |---|---|---|---|---|---|---|---|
# | RAG-Token | 44.1 | 55.2 | 45.5 | 50.0 | 29.7 | 37.8 | 43.5 |
# | RAG-Sequence | 44.5 | 56.8 | 45.2 | 52.2 | 31.8 | 41.2 | 44.0 |
#
# The next table compares both models on MiniWiki's test questions twice: with the weights that all methods
# share, so that they differ only in where the sum is and in the length penalty of decoding, and with each model's
# own training.
# *contains* is the lenient score, a gold answer within the answer; *evidence* is how often the passage with the
# greatest weight is the gold one, by each model's own measure; *left out* is how often leaving out the gold
# passage costs the answer most, the same measure for both, on the first of the questions.

# %% tags=["hide-input", "stored-results", "stored-same-weights"]
rows = {}
for kind, results in (
    ("same weights", same_weights),
    ("own training", own_training),
):
    for name in ("rag-sequence", "rag-token"):
        row, n = results["methods"][name], results["questions"]["n"]
        rows[kind, name] = {
            "EM": percent({"mean": row["em"], "ci95": row["ci95"]["em"]}),
            "contains": cut_off(row["contains"]),
            "cut short": cut_off(row["errors"]["cut"] / n),
            "recall@5": cut_off(row["recall_at_k"]),
            "evidence": cut_off(row["evidence_accuracy"]),
            f"left out (n = {row['leave_one_out_n']})": cut_off(
                row["leave_one_out_accuracy"]
            ),
        }
print(
    f"n = {own_training['questions']['n']} test questions except for the last column, "
    f"k = {own_training['k']}; %"
)
pd.DataFrame(rows).T

# %% tags=["remove-input", "stored-results", "stored-same-weights"]
pair = "rag-sequence", "rag-token"
Markdown(
    f"With the same weights: {in_words(same_weights, *pair)} "
    f"With each model's own training: {in_words(own_training, *pair)}"
)

# %% [markdown]
# These are results of one training seed; {doc}`chapter 7 <07-side-by-side>` has several. The absolute
# figures cannot be compared with the paper's, since questions and index differ and the generator is a
# fraction of the size. The difference between the two models can: in the paper it is 2.2 points at most,
# and its sign changes from one data set to the next. The gain from training the question tower cannot be
# compared either. The paper's tower was a DPR encoder trained on two data sets, and training it further gained
# 2.8 and 5.7 points (RAG-Sequence, RAG-Token); the bundled encoder has seen a billion text pairs, and the table
# in "How both are trained" shows what a few more steps add.
#
# The well-known implementation in `transformers` agrees with the definition in the usual case, and tests
# check that this one gives the same losses, answers and order there. It differs in some edge cases: its
# RAG-Sequence drops the prior for targets of one token, attends to padding during generation, and runs the
# encoder again for every candidate; its number of passages cannot be changed at generation.
# `python benchmarks/rag.py` runs both on one random checkpoint of BART-base's shape.
#
# ## RAG against REALM
#
# Both sum over a latent passage, and both retrievers learn from posterior minus prior. They differ in
# three ways.
#
# *The reader.* REALM's $p(y \mid x, z)$ is a distribution over the spans of $z$, RAG's over all strings.
# An answer that no passage contains has probability zero in REALM ({doc}`07-side-by-side` counts such
# questions) and a positive one in RAG. In return, RAG may write what no passage says.
#
# *What is trained, and when.* {doc}`REALM <04-realm>` learns from the corpus before any question is asked.
# It also changes the passages' vectors, so it has to rebuild its index during training. RAG starts from a
# trained retriever and a trained generator, needs only questions with answers, and changes only the question
# tower: its index never becomes stale.
#
# *Where the sum is.* REALM sums once for a whole answer or, in the released code, once for each masked
# token; RAG has both, as two models.
#
# ## What to remember
#
# RAG-Sequence and RAG-Token differ in one place: the sum over passages is outside the product over tokens,
# or inside it. RAG-Sequence remembers which passages have explained the answer so far, and its posterior
# follows from Bayes' rule; RAG-Token starts each token from the prior again, so that it can combine
# passages, and passages that know nothing of the answer take part at every token. With one passage, or for
# targets of one token, the two are the same model. Both train generator and question tower by the marginal
# likelihood, whose gradient with respect to a score is posterior minus prior, for RAG-Token summed over the
# tokens. Whatever compares hypotheses of different lengths while decoding can favour the short one.
#
# ## Exercises
#
# <!-- exercise: ex-rag-toys -->
# **Exercise.** Two passages have a prior of 1/2 each, and the answer has three tokens. Find token probabilities
# [n_docs, T], all above 0, with which RAG-Sequence gives the answer more than three times the probability that
# RAG-Token gives it, and others with which RAG-Token gives it more than a hundred times as much as RAG-Sequence.
#
# <!-- end of exercise -->

# %%
from exercises import rag as check


def my_toys():
    raise NotImplementedError  # for RAG-Sequence, for RAG-Token


check.toys(my_toys)

# %% [markdown]
# <!-- solution: ex-rag-toys -->
# <details>
# <summary>Solution</summary>
#
# RAG-Sequence is ahead where one passage knows the whole answer and the other nothing: its prior is a factor
# once, in RAG-Token at every token. With three tokens the ratio stays below $2^3 / 2 = 4$. RAG-Token is ahead
# where each passage knows what the other does not, and then the ratio has no bound. Both are written out in
# `book/solutions/05-rag.py`.
#
# </details>
#
# <!-- exercise: ex-rag-prior-gradient -->
# **Exercise.** With respect to the scores, the gradient of RAG-Token's log-likelihood is posterior minus prior,
# summed over the tokens. Write its gradient [B, n_docs] with respect to the probabilities $p(z \mid x)$
# themselves, each taken as free, from `token_log_probs` [B, n_docs, T] and `doc_log_probs` [B, n_docs], without
# autograd. Why is it never negative?
#
# <!-- end of exercise -->


# %%
def my_prior_gradient(token_log_probs, doc_log_probs):
    raise NotImplementedError


check.prior_gradient(my_prior_gradient)

# %% [markdown]
# <!-- solution: ex-rag-prior-gradient -->
# <details>
# <summary>Solution</summary>
#
# Each token contributes the ratio of its probability under the passage to its probability in the mixture.
# Nothing makes these probabilities sum to 1, so more of any passage adds to the mixture; the softmax over the
# scores has that constraint, and subtracts the prior. It is written out in `book/solutions/05-rag.py`.
#
# </details>
#
# <!-- exercise: ex-rag-running -->
# **Exercise.** Write the weights $p(z \mid x, y_{<t})$ of equation {eq}`next-word` for every t, [B, n_docs, T],
# from the same arguments. Check with them that RAG-Sequence's likelihood is the product over t of the weighted
# sums.
#
# <!-- end of exercise -->


# %%
def my_weights(token_log_probs, doc_log_probs):
    raise NotImplementedError


check.running_weights(my_weights)

# %% [markdown]
# <!-- solution: ex-rag-running -->
# <details>
# <summary>Solution</summary>
#
# The weights before token t contain the tokens *before* t: a cumulative sum that is shifted by one, so that
# the weights before the first token are the prior. It is written out in `book/solutions/05-rag.py`.
#
# </details>
#
# <!-- exercise: ex-rag-elbo -->
# **Exercise.** Write the ELBO [B] of equation {eq}`elbo` from `q`, `doc_log_probs` and `answer_log_probs`, all
# [B, n_docs]. A passage with $q(z) = 0$ contributes nothing.
#
# <!-- end of exercise -->


# %%
def my_elbo(q, doc_log_probs, answer_log_probs):
    raise NotImplementedError


check.elbo(my_elbo)

# %% [markdown]
# <!-- solution: ex-rag-elbo -->
# <details>
# <summary>Solution</summary>
#
# The expectation under q of the log-joint minus log q; where q is 0, `torch.where` puts 0 in place of nan.
# It is written out in `book/solutions/05-rag.py`.
#
# </details>
#
# <!-- exercise: ex-rag-bound -->
# **Exercise.** Prove that RAG-Sequence never gives an answer more than its best passage does. Then take two
# passages with a prior of 1/2 each, an answer of two tokens, and token probabilities of at least $\varepsilon$: by
# which factor can RAG-Token exceed the best passage?
#
# <details>
# <summary>Solution</summary>
#
# RAG-Sequence is a weighted mean over passages, and a mean is never above its largest term. RAG-Token gains most
# if each passage is certain of one token and gives the other $\varepsilon$: then it has $((1 + \varepsilon) / 2)^2$ and
# either passage $\varepsilon$, a factor of $(1 + \varepsilon)^2 / (4 \varepsilon)$, which has no bound as
# $\varepsilon \to 0$.
#
# </details>
#
# <!-- exercise: ex-rag-forgets -->
# **Exercise.** A passage is added under which every token of the answer has probability 0. It takes half of the
# prior, and the other passages' weights are halved. By what factor does the probability of an answer of
# $\lvert y \rvert$ tokens change under each model? What follows for a short and a long answer?
#
# <details>
# <summary>Solution</summary>
#
# Under RAG-Sequence it is halved, however long the answer is. Under RAG-Token each token's sum is halved, so the
# factor is $2^{-\lvert y \rvert}$. There the long answer loses more, and a short one that was less probable may
# overtake it.
#
# </details>
#
# <!-- exercise: ex-rag-cost -->
# **Exercise.** Each of k passages has a beam search that ends with b answers. How many pairs of a passage and an
# answer does thorough decoding have to score after that, at most, and how many fast decoding? When is it fewer?
#
# <details>
# <summary>Solution</summary>
#
# At most $k b$ different answers with $k$ passages each make $k^2 b$ pairs, of which $k b$ are known from the beams:
# $k (k - 1)\, b$ remain. They are fewer if several beams propose the same answer. Fast decoding scores none.
#
# </details>
#
# <!-- exercise: ex-rag-gradient -->
# **Exercise.** A passage has the prior 0.2 and the posterior 0. What happens to its score in training, and what
# happens to that of a passage with prior 0.999 and posterior 0.999?
#
# <details>
# <summary>Solution</summary>
#
# The first one's score falls: its gradient is -0.2. The second one's does not change: where the
# retriever is right and certain of it, there is nothing left to learn.
#
# </details>
#
# ## Where next
#
# * *In the paper:* section 2 of {cite:t}`lewis2020rag` on both models and their decoding, and section 4.5 on
#   what retrieval, training and the number of passages contribute.
# * *In this book:* {doc}`chapter 6 <06-fid>` lets one decoder read all passages at once, without any sum over
#   them, and {doc}`chapter 7 <07-side-by-side>` compares all three.
# * *Later work:* REPLUG {cite:p}`shi2024replug` keeps RAG-Token's sum with a language model that can only be
#   called, and trains the retriever with that model's probabilities. Re2G {cite:p}`glass2022re2g` puts a
#   reranker between retriever and generator, so that passages of BM25 and of a dense retriever can be merged.
#   Stochastic RAG {cite:p}`zamani2024stochastic` samples sets of passages and maximises the expected quality of
#   the output, where RAG sums over single passages. Self-RAG {cite:p}`asai2024selfrag` lets
#   the generator decide when to retrieve and judge what it has read. KILT {cite:p}`petroni2021kilt` is the
#   benchmark for such methods: eleven data sets on one snapshot of Wikipedia, which also score the passages
#   that an answer is based on. {cite:t}`gao2023survey` survey what retrieval-augmented generation has become
#   with large language models.
