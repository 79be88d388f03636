# %% [markdown]
# # RAG: the passage as a latent variable
#
# ## The problem
#
# A generator that is shown a passage can say things a span cannot; a generator that is shown the
# wrong passage says them with the same confidence. {cite:t}`lewis2020rag` weigh the generator's
# word by how likely each passage was to be the right one, and train both ends through that sum.
#
# ## The idea
#
# The retriever gives a prior $p(z \mid x)$ over k passages, the generator $p(y_t \mid x, z, y_{<t})$ for
# each of them. The sum over $z$ can stand in two places (section 2.1):
#
# $$ p_{\text{Sequence}}(y \mid x) = \sum_z p(z \mid x) \prod_t p(y_t \mid x, z, y_{<t}), $$ (sequence)
#
# $$ p_{\text{Token}}(y \mid x) = \prod_t \sum_z p(z \mid x)\, p(y_t \mid x, z, y_{<t}). $$ (token)
#
# RAG-Sequence takes one passage for the whole answer; RAG-Token may take another for every token.
# In logarithms, which is how both are computed, the question is where the log-sum-exp over passages
# sits: outside the sum over tokens or inside it.
#
# ![RAG-Sequence: each of three passages gives the whole answer a probability, and these are summed once](diagrams/rag-sequence.svg)
# ![RAG-Token: the probabilities under the three passages are summed at every token, and the sums are multiplied](diagrams/rag-token.svg)
#
# Both diagrams trace the same question. The numbers in the columns are almost the same, and the answer's
# probabilities are far apart. Only the third passage contains the answer. RAG-Sequence multiplies down
# each column first, so that the passage's small prior enters once. RAG-Token sums along each row first,
# so that the small prior enters at every token of the name.
#
# Nothing else separates the two, and they are easily made to look further apart than they are. This
# chapter takes the mathematics first, on one reader that both share; then it follows a difference that
# turned out to be a fault of decoding, and at last compares the two as the paper trains them.

# %% [markdown]
# ```{note}
# What this chapter reads from `tasks.json`, on claims and clues, was measured on the questions of MiniWiki's second
# edition, with the readers of that time. All else is of the third, with the methods as they are trained now.
# ```

# %%
import inspect
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from experiments import figures, interactive
from experiments.early_stops import without_shares
from experiments.examples import example
from experiments.report import percent
from experiments.sentences import compared, course
from IPython.display import Markdown

from ragbook import load_corpus, load_questions, methods
from ragbook.evaluation.names import capital
from ragbook.evaluation.statistics import cut_off
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

print(inspect.getsource(rag.sequence_log_prob).split('"""')[-1])
print(inspect.getsource(rag.token_log_prob).split('"""')[-1])

# %% [markdown]
# ## Where does the log-sum-exp sit?
#
# Two passages, equally likely, and an answer of two tokens. Passage one is sure of the first token,
# passage two of the second. No single passage supports the answer; RAG-Token finds it all the same.

# %%
tokens = torch.tensor(
    [[[0.9, 0.1], [0.1, 0.9]]]
).log()  # log p(y_t | x, z, y_<t), [1, 2, 2]
prior, mask = torch.tensor([[0.5, 0.5]]).log(), torch.ones(1, 2)
toy = {
    "RAG-Sequence: log sum over z of prod over t": rag.sequence_log_prob(
        tokens, prior, mask
    ),
    "RAG-Token: sum over t of log sum over z": rag.token_log_prob(
        tokens, prior, mask
    ),
}
for name, log_p in toy.items():
    print(f"{name:<45} p(y | x) = {log_p.exp().item():.3f}")

# %% [markdown]
# With one passage, or with an answer of one token, the two are the same model:

# %%
one_passage = tokens[:, :1], torch.zeros(1, 1), mask
one_token = tokens[:, :, :1], prior, mask[:, :1]
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
# A question from the dev split: the first whose gold passage is retrieved and not the best one, whose
# answer has at least three tokens, and which the reader answers rightly from that passage alone. Its
# passages, the prior, the right answer's log-probability under each passage, and by Bayes' rule the
# posterior $p(z \mid x, y)$, which is RAG-Sequence's evidence:

# %%
alone = rag.RagSequence(
    reader, OracleRetriever(corpus, retriever), verbatim=True
)
question = example(retriever, dev, reader.tokenizer, alone)
found = retriever.retrieve([question], 5)
log_prior = doc_log_probs(found, retriever.score_scale)
memory = reader.read([question], [found[0].passages])
labels = labels_of(reader, [question.answers[0]])
per_token = reader.token_log_probs(memory, labels.expand(5, -1))[
    None
]  # [1, 5, |y|]
given = per_token.sum(-1)
after = posterior(log_prior, given)
print(question.text, "|", question.answers[0])
for z, passage_id in enumerate(found[0].ids):
    gold = "  gold" if passage_id == question.gold_passage else ""
    print(
        f"{passage_id:<28} p(z|x) {log_prior[0, z].exp():.2f}   log p(y|x,z) {given[0, z]:7.2f}   "
        f"p(z|x,y) {after[0, z]:.2f}{gold}"
    )
own = torch.ones_like(labels)
for name, core in (
    ("sequence", rag.sequence_log_prob),
    ("token", rag.token_log_prob),
):
    print(f"log p_{name}(y | x) = {core(per_token, log_prior, own).item():.2f}")

# %% [markdown]
# The same numbers as probabilities, with the prior to move. RAG-Token sums each column with the prior as
# weights and multiplies the sums; RAG-Sequence multiplies each row and sums the last column once. With
# all of the prior on one passage the two are the same.

# %% mystnb={"figure": {"caption": "The probability of each token of the answer under each passage, and where the two methods sum. On the site, the sliders change the prior.", "alt": "Prior and token probabilities of five passages, with RAG-Token's sum of every column and RAG-Sequence's sum of the last"}}
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
# That posterior says nothing about RAG-Token, in which every token has a latent passage of its own,
# $z_t$. Given the answer up to this token,
#
# $$ p(z_t \mid x, y_{\le t}) \propto p(z_t \mid x)\, p(y_t \mid x, z_t, y_{<t}), $$ (token-posterior)
#
# and since the $z_t$ are drawn independently of each other, no later token changes it. Its evidence for
# an answer is the mean of these over the answer's tokens. Under RAG-Sequence a passage has to explain
# all of the answer; here it gets its share of every token that it would have written too, the easy
# ones included.

# %% mystnb={"figure": {"caption": "RAG-Token: which passage each token of the answer came from. The last column is the end of the answer, which any passage can supply.", "alt": "Heat map of the posteriors over passages, a column for each token of the answer"}}
by_token = rag.token_posterior(per_token, log_prior)[0]
figures.heat_map(
    by_token.numpy(),
    rows=list(found[0].ids),
    columns=pieces,
    label="p(z_t | x, y_<=t)",
)

# %% mystnb={"figure": {"caption": "Two answers to the question which passage the answer came from: one posterior for all of it, and the mean of the tokens' own.", "alt": "Heat map of the evidence of RAG-Sequence and RAG-Token over five passages"}}
evidence = torch.stack([after[0], by_token.mean(-1)])
rows = ["RAG-Sequence, p(z | x, y)", "RAG-Token, mean over t"]
figures.heat_map(
    evidence.numpy(), rows=rows, columns=list(found[0].ids), label="evidence"
)

# %% [markdown]
# ### What RAG-Token forgets
#
# RAG-Sequence is a model of the next word too. Its weights are those of the passages *given what has
# been written*, and RAG-Token's are the prior, every time:
#
# $$ p_{\text{Sequence}}(y_t \mid x, y_{<t}) = \sum_z p(z \mid x, y_{<t})\, p(y_t \mid x, z, y_{<t}), \qquad
#    p_{\text{Token}}(y_t \mid x, y_{<t}) = \sum_z p(z \mid x)\, p(y_t \mid x, z, y_{<t}), $$ (next-word)
#
# with $p(z \mid x, y_{<t}) \propto p(z \mid x) \prod_{s<t} p(y_s \mid x, z, y_{<s})$. The one remembers which
# passages have led here. The other asks all of them again at every token, also those that would never
# have begun so and have nothing to go on from; what is left for these to say is often that the answer
# ends. The same answer, prefix by prefix: how much weight the passages have that hold all of it, and
# how probable it is that the answer ends there, too early.

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
            f"{said + ' ...':<44} {name:<13} weight {held:.2f}   p(end) {early:.3f}"
        )

# %% [markdown]
# ## The likelihood and its bound
#
# For any distribution $q(z)$ over the passages,
#
# $$ \log p(y \mid x) = \underbrace{\mathbb{E}_q\left[\log \frac{p(y, z \mid x)}{q(z)}\right]}_{\text{ELBO}} + \mathrm{KL}\left(q \,\|\, p(z \mid x, y)\right), $$ (elbo)
#
# so the bound is tight exactly when $q$ is the posterior. $q$ may not give weight to a passage whose
# joint probability is zero, and the nearer it is to the posterior the tighter the bound. With k
# passages the sum is affordable and nothing has to be bounded; the identity shows what a bound would
# cost, here for $q$ on the way from the prior to the posterior.

# %% mystnb={"figure": {"caption": "The bound and the likelihood, in nats, as q moves from the prior to the posterior.", "alt": "ELBO against the mixture of prior and posterior, rising to the log-likelihood"}}
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
# Nobody tells RAG which passage is right. The gradient of the log-likelihood to a passage's score
# says it: it is the posterior minus the prior, so a passage that explains the answer better than it
# was expected to pulls the question towards itself, and the others push it away.

# %%
scores = log_prior.detach().clone().requires_grad_()
log_p = rag.sequence_log_prob(per_token, scores.log_softmax(-1), own).sum()
(gradient,) = torch.autograd.grad(log_p, scores)
by_hand = after - log_prior.exp()
print("autograd         ", gradient[0].numpy().round(3))
print("posterior - prior", by_hand[0].numpy().round(3))

# %% [markdown]
# ## How both are trained
#
# As in the paper, question tower and generator are trained together by the marginal likelihood of the
# answers, each model by its own: equation {eq}`sequence` or {eq}`token`. The passage tower and the index
# stay as they are. Both start from one shared reader, see the same questions in the same order, and
# read the passages that the question tower finds at that step (`ragbook train methods`; FiD and REALM
# are trained beside them, by the same recipe and their own likelihoods):

# %%
recipe = Recipe()
print(
    f"{recipe.steps} steps of {recipe.batch} questions with {recipe.n} passages each"
)
pd.Series(asdict(recipe), dtype=object)

# %% [markdown]
# The decoder is trained whole, but for the word embeddings and the output layer's bias, which could
# learn answers by heart. The likelihood is that under the rule by which answers are searched here, among
# the words of the passages. Beside it the shared reader's own lessons go on: a passage without
# the answer is asked to say nothing (*silence*), and the attention of the decoder's last layer to be on
# the token that is to be written (*pointer*). The encoder and the question tower move by a low-rank change of their upper
# two layers {cite:p}`hu2022lora`, so that what ships of each model is a small file of changes. In every
# third question the answer is exchanged, in passages and target, for another of its form: it has to
# be read. `ragbook train rag` trains the two ends alone, on twenty passages a question, for another
# corpus.
#
# What the trained question tower brings on test questions, under RAG-Sequence's trained generator in
# both rows:

# %%
joint = measured["test"]["joint"]
rows = {}
for name in ("frozen", "trained"):
    rows[name] = {
        f"recall@{k} (%)": percent(joint[name]["recall"][k])
        for k in ("1", "5", "20")
    }
    rows[name]["EM (%)"] = percent(joint[name]["em"])
pd.DataFrame(rows).T

# %% tags=["remove-input"]
pair = "the trained question tower", "the embedded one"
recall, em = (
    compared(joint[f"{what}_difference"], *pair) for what in ("recall", "em")
)
Markdown(
    capital(
        f"by recall@{measured['test']['k']}, {recall}; by exact match, {em}. "
    )
    + f"The tower has moved for {recipe.steps} steps only, at a peak rate of {recipe.query_rate:g}."
)

# %% [markdown]
# ## Thorough and fast
#
# RAG-Token is decoded like any other model: one beam search over the marginal distribution of the
# next token. RAG-Sequence cannot be, since its sum over passages comes only at the end. Every
# passage has a beam search of its own; *thorough* decoding then scores every candidate under every
# passage, *fast* decoding takes $p(y \mid x, z) \approx 0$ where the beam of $z$ did not propose $y$.
# The encoder runs once for each passage, and what the decoder's cross-attention makes of its states
# is kept for the scoring.

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
    f"here: {sum(a.text == b.text for a, b in pairs)} of {len(pairs)} answers are the same"
)
part = measured["test"]["decoding"]
print(
    f"on {measured['test']['n']} test questions: {percent(part['agreement'])} %"
)
pd.DataFrame(
    {
        way: {
            "EM (%)": percent(part[way]["em"]),
            "s a question": round(part[way]["seconds_per_question"], 2),
        }
        for way in ("thorough", "fast")
    }
).T

# %% [markdown]
# How far the probabilities differ, candidate by candidate, shows what fast decoding leaves out. The
# example question, with RAG-Token's candidates below:

# %%
for name, way in (
    ("thorough", thorough),
    ("fast", fast),
    ("rag-token", as_tokens),
):
    (candidates,) = way.generate([question], 5, 3)
    said = [f"{reader.decode(c.tokens)} {c.log_prob:.2f}" for c in candidates]
    print(f"{name:<10}", " | ".join(said))

# %% [markdown]
# ## Answers that stop too early
#
# An answer that ends has one more factor below 1, and an answer that goes on has many. Whatever
# compares hypotheses of different lengths can favour the short one, and in an earlier edition of this
# book it did: RAG-Token stopped within the right answer several times as often as RAG-Sequence, at
# `Gottfried` for Gottfried van Swieten or `sleeping` for sleeping sickness, and most of the distance
# between the two models was that. Is this RAG-Token? There are six suspects, and each can be changed
# by itself.
#
# *The rule.* Answers are held to the passages' words, so most continuations are forbidden. If a beam
# search compares what is left by the model's own probabilities, every token of a long answer pays for
# what the model gave to forbidden ones, and a short answer pays less often. A toy: the short answer is
# one token with $p = 0.3$; the long one has three, with 0.4, 0.5 and 0.5, and beside each stands a
# forbidden token. Of what is *allowed* the long answer has the greater share.

# %%
start, end, short, a, b, forbidden = range(6)
likely = torch.full((6, 6), 1e-9)
likely[start, [short, a, forbidden]] = torch.tensor([0.3, 0.4, 0.3])
likely[short, end] = 1.0
for row, token in ((a, b), (b, end)):
    likely[row, [token, forbidden]] = 0.5
may_follow = {(): [short, a], (short,): [end], (a,): [b], (a, b): [end]}


def best():
    return beam_search(
        lambda prefixes, *_: likely[prefixes[:, -1]].log(),
        batch=1, start=start, end=end, beams=2,
        allowed=[lambda prefix: may_follow.get(tuple(prefix), [end])],
    )[0][0]  # fmt: skip


with without_shares():
    print(
        "compared by probability:      ",
        ["long", "short"][best().tokens == (short,)],
    )
print(
    "by shares of what is allowed: ",
    ["long", "short"][best().tokens == (short,)],
)

# %% [markdown]
# That was the rule of earlier editions, and a fault: it is mended, and `early_stops` brings it back for
# the comparison below (*without shares*).
#
# *Who has a say.* In RAG-Token's mixture the rule can hold for all passages together, or for each in its
# own words. Together, a passage that does not hold what was begun still has a say in how it goes on; as
# it knows nothing of it, it says that the answer is over. In its own words such a passage has nothing
# more to say, and those that hold the beginning go on with it. Earlier editions had *one rule* for all;
# now each passage is held to its own words, as RAG-Sequence's always were.
#
# The other suspects are *the length* (a penalty divides the score by a power of
# the length, so that longer answers win more often), *the mixture* (with one passage there is none),
# *the fusion* that FiD has instead, and *the training* (one shared reader, or each model's own). All on
# the same dev questions:

# %%
KINDS = ("same weights", "own training")
rows = {
    (kind, way): {
        (name, head): cut_off(stops[kind][name][way][key]["mean"])
        for name in stops[kind]
        for head, key in (("cut", "cut"), ("EM", "em"))
    }
    for kind in KINDS
    for way in next(iter(stops[kind].values()))
}
print(f"n = {stops['n']} dev questions, five passages but where one is said; %")
pd.DataFrame(rows).T

# %% mystnb={"figure": {"caption": "How many answers are cut short: a part of a gold answer and not the whole. Each row changes one thing, with one reader's weights for all or with each method's own.", "alt": "Share of answers that are cut short for RAG-Sequence, RAG-Token and FiD with 95 % intervals, by how they are decoded and trained"}}
WAYS = ("held, without shares", "held, one rule", "held", "free", "one passage")
figures.grouped(
    {
        f"{way}, {kind}": {
            name: stops[kind][name][way]["cut"] for name in stops[kind]
        }
        for kind in KINDS
        for way in WAYS
    },
    "answers cut short",
)


# %% tags=["remove-input"]
def cut_short(name, way, kind):
    return f"{percent(stops[kind][name][way]['cut'])} %"


said = []
for kind in KINDS:
    before, together, now, _, single = (
        cut_short("rag-token", way, kind) for way in WAYS
    )
    beside = cut_short("rag-sequence", "held", kind)
    said.append(
        f"With {'one reader for all' if kind == 'same weights' else 'their own training'}, "
        f"RAG-Token cuts {before} of its answers short if hypotheses are compared without dividing "
        f"by what is allowed, {together} with it but one rule for all passages, and {now} where each "
        f"is held to its own words; RAG-Sequence cuts {beside}. With one passage RAG-Token cuts "
        f"{single}."
    )
Markdown(" ".join(said))

# %% [markdown]
# With one passage and the same weights there is no mixture and nothing to fuse, so the three methods
# are one model. They are decoded alike but for the last choice: RAG-Sequence takes the proposal that is
# most probable under the model, the others the one with the greatest share of what is allowed.

# %%
for name, ways in stops["same weights"].items():
    one = ways["one passage"]
    print(
        f"{name:<13} one passage: EM {percent(one['em'])}, cut {percent(one['cut'])}"
    )

# %% [markdown]
# ### Is it the training?
#
# A model that is trained among all words of the vocabulary learns above all to give nothing to most of
# them. Under the rule most are forbidden anyway, and what is left to decide, after the first word of a
# name, is whether the answer ends here or goes on. So the methods' own training raises the likelihood
# under the rule, as the search compares it (`ragbook.training.reader.objectives`). Here beside the shared
# reader, and beside the same training by the likelihood among all words:

# %%
trainings = stops["objectives"]
print(f"n = {trainings['n']} dev questions, %")
pd.DataFrame(
    {
        (name, head): {
            how: percent(part[key]) for how, part in trainings[name].items()
        }
        for name in ("rag-sequence", "rag-token", "fid")
        for head, key in (("cut", "cut"), ("EM", "em"))
    }
).T

# %% [markdown]
# ### What is RAG-Token's own
#
# What of it is in the model, however it is decoded? Take every right answer of several tokens, and every
# place in it where it could end too early, with no rule at all. The retrieved passages are of two kinds there, those that hold the
# answer and others; what does each kind say next? *prior* is the weight that RAG-Token's mixture gives
# the kind, at this token as at every other; *end* the probability that the answer is over; *next* that
# it goes on as it should. Means over the places at which there is such a passage:

# %%
rows = {
    (kind, {"holds": "hold the answer", "others": "others"}[which]): {
        "places": part["n"],
        **{key: round(part[key], 3) for key in ("prior", "end", "next")},
    }
    for kind in KINDS
    for which, part in stops[f"end tokens, {kind}"].items()
}
pd.DataFrame(rows).T

# %% tags=["remove-input"]
said = []
for kind in KINDS:
    holds_it, others = (
        stops[f"end tokens, {kind}"][which] for which in ("holds", "others")
    )
    more = "more" if others["end"] > holds_it["end"] else "no more"
    weights = (
        "the same weights" if kind == "same weights" else "its own training"
    )
    said.append(
        f"With {weights}, passages that do not hold the answer end it too early with probability "
        f"{others['end']:.3f}, {more} than those that do ({holds_it['end']:.3f}), and go on rightly "
        f"with {others['next']:.3f} against {holds_it['next']:.3f}."
    )
Markdown(" ".join(said))

# %% [markdown]
# Equation {eq}`next-word` says why this matters to one model only. Under RAG-Sequence a passage that
# gave the answer's beginning little probability has little weight by the time the question comes up
# whether to end. Under RAG-Token it has all of its prior again at every token, and what it gives to the
# end goes into the mixture. So a rule that favours short answers finds more to work on in RAG-Token:
# the readiness to end is the model's, and decoding decides how often it becomes a stop. A mixture at
# every token is right where passages agree on how to go on, or know different parts of the answer, and
# it costs where only one of them knows the whole.
#
# ## How many passages
#
# With more passages the right one is more often among them, and more wrong ones must be outvoted.
# RAG-Token mixes them at every token; RAG-Sequence lets every passage finish its own answer first. The
# paper finds that RAG-Sequence gains from every further passage up to 50, where RAG-Token is best with
# ten (section 4.5).

# %% mystnb={"figure": {"caption": "Recall of the gold passage and exact match of both models against the number of passages read.", "alt": "Recall and exact match of RAG-Sequence and RAG-Token for k from 1 to 20"}}
part = measured["dev"]
curves = {
    name: {float(k): 100 * value["mean"] for k, value in part[name].items()}
    for name in ("recall", "rag-sequence", "rag-token")
}
print(f"n = {part['n']} dev questions; exact match with its 95 % interval:")
for name in ("rag-sequence", "rag-token"):
    for k, value in part[name].items():
        print(f"{name:<13} k = {k:<3} {percent(value)}")
figures.lines(curves, "k, passages read", "% of questions", log=True)

# %% tags=["remove-input"]
said = [
    course(name, part[key])
    for name, key in (
        ("RAG-Sequence", "rag-sequence"),
        ("RAG-Token", "rag-token"),
    )
]
Markdown(
    f"{said[0]}. {said[1]}. The intervals above say how little of that this sample can tell."
)

# %% [markdown]
# ## How much should retrieval count?
#
# $p(z \mid x)$ is a softmax of the retriever's scores times a scale, the one the encoder was trained
# with. That scale is the weight of retrieval against generation: at 0 all k passages count alike and
# only the generator judges them; the larger it is, the more the best passage counts alone. How
# probable the right answers of the sample are, for the scale times a factor:

# %% mystnb={"figure": {"caption": "Negative log-likelihood of the right answers of 24 dev questions, one reader for both models, against the factor on the retriever's scale; 1 is the encoder's own.", "alt": "Negative log-likelihood against the factor on the scale for RAG-Sequence and RAG-Token"}}
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
    "The right answers are most probable at a factor of "
    + " and ".join(f"{factor:g} under {name}" for name, factor in least.items())
    + ", of those tried."
)

# %% [markdown]
# The encoder was trained with its scale and without this reader, so nothing but such a curve can say
# whether the scale fits both. For another retriever it is one number to choose on dev questions: in the
# code it is the encoder's `score_scale`.
#
# ## Checking claims
#
# A target of one token is a class, and there RAG-Sequence and RAG-Token are the same model. The
# paper checks claims of FEVER so; here claims are made from MiniWiki's own questions: a sentence
# around an answer is true, the same with another answer of its kind in place is false. A hundred
# kilobytes of biases and layer norms, trained through the same marginal likelihood, turn the reader
# into a checker (`experiments.claims_and_clues_training`):

# %%
from experiments import claims_and_clues_data as tasks
from experiments.claims_and_clues import classify, methods, table, task_reader

claims = list(tasks.claims("dev"))[:48]
both = ["rag-sequence", "closed-book"]
checker, blind = methods("claims", task_reader("claims"), retriever, both)
given_labels, blind_labels = classify(checker, claims), classify(blind, claims)
for claim, given_label in list(zip(claims, given_labels, strict=True))[:4]:
    print(f"{given_label:<6} (is {claim.answers[0]})  {claim.text}")
for name, said in (("with passages", given_labels), ("without", blind_labels)):
    right = sum(a == q.answers[0] for a, q in zip(said, claims, strict=True))
    print(f"{name:<14} {right} of {len(claims)} right")

# %% [markdown]
# On the whole test split, with the interval of each figure. *Evidence* is how often the passage of
# greatest weight is the one that the claim was made from.

# %%
task_rows = json.loads(Path("results/tasks.json").read_text(encoding="utf-8"))

print(
    "n =",
    next(row["n"] for row in task_rows if row["task"] == "claims"),
    "claims, %",
)
pd.DataFrame(table(task_rows, "claims")).T.fillna("")

# %% [markdown]
# A label is one token, whose end is never in doubt, so the two models say the same. Their evidence need
# not be the same: RAG-Token counts the end as a token too. The row without passages is the check of the
# data: if it were far from one half, a claim's words alone would give it away.
#
# ## Writing questions
#
# The paper's Jeopardy task turns question answering round: given a name, write the clue that asks for
# it. Now the output is a sentence, and the two models differ. Here a name from MiniWiki goes in, BM25
# finds its passages (an encoder of sentences knows little of a bare name), and a question should
# come out whose answer the name is. The target is the question of the training set; what is written
# is judged by what a reader makes of it, the *round trip*: RAG-Sequence is asked the written
# question, and it counts if its answer is the name and the question does not tell it.

# %%
print(
    "n =",
    next(row["n"] for row in task_rows if row["task"] == "clues"),
    "dev names, % but for nats",
)
pd.DataFrame(table(task_rows, "clues")).T.fillna("")

# %% [markdown]
# *reference* is the round trip of MiniWiki's own questions: what the reader that judges could give at
# best.

# %% tags=["remove-input"]
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
called = {"rag-sequence": "RAG-Sequence", "rag-token": "RAG-Token"}
Markdown(
    f"By the round trip {called[better['model']]} comes out higher, {cut_off(better['value'])} % "
    f"against {cut_off(other['value'])} %, and the intervals {'are apart' if apart else 'overlap'}."
)

# %% [markdown]
# In the paper RAG-Token writes the better Jeopardy questions (section 4.3), and the reason is the one that
# costs it answers: a clue may take its parts from several passages, and a model that may change the
# passage at every token need not find one of them that says it all. Without passages the writer knows
# no more than the name, and often says it. The reader of clues is trained by
# `python -m book.experiments.claims_and_clues_training clues DIR rag-token layers`; it is as large as
# the shared reader and not shipped.
#
# ## What the paper had
#
# Exact match on the open-domain test sets and, on Natural Questions' dev set, what a trained question
# tower is worth ({cite:t}`lewis2020rag`, tables 1 and 6; generator BART-large, 21 million passages):
#
# | | NQ | TriviaQA | WebQ | CuratedTrec | NQ dev: BM25 | frozen | trained |
# |---|---|---|---|---|---|---|---|
# | RAG-Token | 44.1 | 55.2 | 45.5 | 50.0 | 29.7 | 37.8 | 43.5 |
# | RAG-Sequence | 44.5 | 56.8 | 45.2 | 52.2 | 31.8 | 41.2 | 44.0 |
#
# Here, on MiniWiki's test questions, twice: with the weights that all methods share, so that nothing
# differs but where the sum stands, and with each model's own training. *contains* is the lenient score,
# a gold answer within the answer; *evidence* how often the heaviest passage is the gold one, by each
# model's own measure; *left out* how often leaving out the gold passage costs the answer most, which is
# one measure for both.

# %%
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
            "left out": cut_off(row["leave_one_out_accuracy"])
            if "leave_one_out_accuracy" in row
            else "–",
        }
print(
    f"n = {own_training['questions']['n']} test questions, k = {own_training['k']}; %"
)
pd.DataFrame(rows).T

# %% tags=["remove-input"]
pair = "rag-sequence", "rag-token"
Markdown(
    f"With the same weights: {in_words(same_weights, *pair)} "
    f"As each is trained: {in_words(own_training, *pair)}"
)

# %% [markdown]
# One training can be lucky: this is one seed. The absolute figures cannot be compared with the paper's: other questions, another index, a generator of
# a fraction of the size. The order can. In the paper it is a matter of 2.2 points at most, and falls
# either way from one data set to the next. What a trained question tower brings is another thing: the
# paper's was a DPR of one data set, and gained 2.8 and 5.7 points; the embedded encoder has seen a
# billion pairs of texts, and the table further up says what so short a training can still teach it.
#
# A well-known implementation, in `transformers`, agrees with the definition on the main path, and
# tests hold this one equal to it there: losses, answers, order. At some edges it does not. Its
# RAG-Sequence drops the prior for targets of one token, attends to padding while it generates, and
# runs the encoder again for every candidate; its number of passages cannot be changed when it
# generates. `python benchmarks/rag.py` runs both on one random checkpoint of BART-base's shape.
#
# ## RAG against REALM
#
# Both sum over a latent passage, and both retrievers learn by posterior minus prior. They differ in
# three things.
#
# *What reads.* REALM's $p(y \mid x, z)$ is shared out among the spans of $z$, RAG's among all strings.
# An answer that no passage holds has the probability zero in REALM ({doc}`07-side-by-side` counts such
# questions) and some in RAG, which may also write what no passage says.
#
# *What is trained, and when.* {doc}`REALM <04-realm>` learns from the corpus itself before any question is asked,
# moves the passages' vectors too, and so has to make its index anew while it trains. RAG starts from a
# retriever and a generator that others trained, needs nothing but questions with answers, and moves the
# question's side only: its index never grows old.
#
# *Where the sum is.* REALM's has the whole answer inside, or, in the released code, single masked
# tokens; RAG offers both forms as two models.
#
# ## What to remember
#
# RAG-Sequence and RAG-Token differ in one place: the sum over passages is outside the product over
# tokens, or inside it. RAG-Sequence remembers which passages have explained the answer so far, and its
# posterior is Bayes' rule; RAG-Token starts each token from the prior again, so that it can combine
# passages, and passages that know nothing of the answer take part at every token. With one passage the
# two are the same model, and so they are for targets of a single token. Both train generator and
# question encoder by the marginal likelihood, whose gradient to a score is posterior minus prior. How
# hypotheses of different lengths are compared while decoding changes how often answers are cut short.
#
# ## Exercises
#
# ```{exercise}
# :label: ex-rag-order
# Which of the two models can give a higher probability to the same answer than its best passage
# does? Which can never?
# ```
#
# ```{solution} ex-rag-order
# :class: dropdown
# RAG-Token can, as the toy shows. RAG-Sequence is an average over passages of the answer's
# probability, and an average is never above its largest term.
# ```
#
# ```{exercise}
# :label: ex-rag-forgets
# Both models are given the same first token, which one passage alone could have written. How much
# weight has this passage at the second token, under each?
# ```
#
# ```{solution} ex-rag-forgets
# :class: dropdown
# Under RAG-Sequence nearly all: the weights are $p(z \mid x, y_{<t})$, and the others gave the first token
# next to nothing. Under RAG-Token its prior, as before: $z_2$ is drawn anew.
# ```
#
# ```{exercise}
# :label: ex-rag-length
# Why does thorough decoding score every candidate under *every* passage?
# ```
#
# ```{solution} ex-rag-length
# :class: dropdown
# A candidate that one passage's beam did not propose may still have some probability under it, and
# the sum over passages counts it. Leaving it out is the fast approximation.
# ```
#
# ```{exercise}
# :label: ex-rag-gradient
# A passage has the prior 0.2 and the posterior 0. What happens to its score in training, and what
# happens to a passage of prior 0.999 and posterior 0.999?
# ```
#
# ```{solution} ex-rag-gradient
# :class: dropdown
# The first one's score falls with a gradient of -0.2. The second one's hardly moves: where the
# retriever is right and sure of it there is nothing left to learn.
# ```
