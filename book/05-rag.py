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

# %%
import inspect
import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from experiments import figures
from experiments.report import percent, points

from ragbook import load_corpus, load_questions
from ragbook.index import build_index
from ragbook.methods import posterior, rag
from ragbook.methods.base import doc_log_probs
from ragbook.models import load_encoder, load_reader
from ragbook.models.generator import labels_of
from ragbook.retrieval import DenseRetriever

corpus, encoder, reader = load_corpus("miniwiki"), load_encoder(), load_reader()
index = build_index(corpus, Path("../build/index"), encoder, progress=False)
retriever = DenseRetriever(index, encoder)
questions = list(load_questions("miniwiki", "dev").head(24))
measured = json.loads(Path("results/rag.json").read_text())

print(inspect.getsource(rag.sequence_log_prob).split('"""')[-1])
print(inspect.getsource(rag.token_log_prob).split('"""')[-1])

# %% [markdown]
# ## Where does the log-sum-exp sit?
#
# Two passages, equally likely, and an answer of two tokens. Passage one is sure of the first token,
# passage two of the second. No single passage supports the answer; RAG-Token finds it all the same.

# %%
tokens = torch.tensor([[[0.9, 0.1], [0.1, 0.9]]]).log()  # log p(y_t | x, z, y_<t), [1, 2, 2]
prior, mask = torch.tensor([[0.5, 0.5]]).log(), torch.ones(1, 2)
toy = {
    "RAG-Sequence: log sum over z of prod over t": rag.sequence_log_prob(tokens, prior, mask),
    "RAG-Token: sum over t of log sum over z": rag.token_log_prob(tokens, prior, mask),
}
for name, log_p in toy.items():
    print(f"{name:<45} p(y | x) = {log_p.exp().item():.3f}")

# %% [markdown]
# With one passage, or with an answer of one token, the two are the same model:

# %%
one_passage = tokens[:, :1], torch.zeros(1, 1), mask
one_token = tokens[:, :, :1], prior, mask[:, :1]
for given in (one_passage, one_token):
    print([round(core(*given).item(), 6) for core in (rag.sequence_log_prob, rag.token_log_prob)])

# %% [markdown]
# ## On the index
#
# A real question: the passages, the prior, the answer's log-probability under each passage, and by
# Bayes' rule the posterior, the evidence that RAG reports.

# %%
question = questions[16]
found = retriever.retrieve([question], 5)
log_prior = doc_log_probs(found, retriever.score_scale)
memory = reader.read([question], [found[0].passages])
labels = labels_of(reader, [question.answers[0]])
per_token = reader.token_log_probs(memory, labels.expand(5, -1))[None]  # [1, 5, T]
given = per_token.sum(-1)
after = posterior(log_prior, given)
print(question.text, "|", question.answers[0])
for z, passage_id in enumerate(found[0].ids):
    print(
        f"{passage_id:<28} p(z|x) {log_prior[0, z].exp():.2f}   log p(y|x,z) {given[0, z]:7.2f}   "
        f"p(z|x,y) {after[0, z]:.2f}"
    )
own = torch.ones_like(labels)
for name, core in (("sequence", rag.sequence_log_prob), ("token", rag.token_log_prob)):
    print(f"log p_{name}(y | x) = {core(per_token, log_prior, own).item():.2f}")

# %% [markdown]
# RAG-Token has a posterior of its own at every token:
# $p(z \mid x, y_{\le t}) \propto p(z \mid x)\, p(y_t \mid x, z, y_{<t})$.

# %% mystnb={"figure": {"caption": "RAG-Token: which passage each token of the answer came from. The last column is the end of the answer, which any passage can supply.", "alt": "Heat map of document posteriors by token"}}
pieces = [*reader.tokenizer.convert_ids_to_tokens(labels[0, :-1].tolist()), "(end)"]
by_token = rag.token_posterior(per_token, log_prior)[0]
figures.heat_map(by_token.numpy(), rows=list(found[0].ids), columns=pieces, label="p(z | x, token)")

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
bound = {a: rag.elbo(q, log_prior, given).item() for a, q in zip(steps, mixed, strict=True)}
exact = rag.sequence_log_prob(per_token, log_prior, own).item()
gaps = [rag.elbo_gap(q, log_prior, given).item() for q in mixed]
assert np.allclose([bound[a] + gap for a, gap in zip(steps, gaps, strict=True)], exact, atol=1e-3)
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
# The passage tower and the index stay as they are, as in the paper. `ragbook train rag` trains the
# question tower and the generator together in this way, from pairs of question and answer; no gold
# passage is looked at. What it brings on MiniWiki's test questions, with the biases and layer norms
# of both ends trained for 100 steps, on eight questions and their twenty best passages each:

# %%
joint = measured["test"]["joint"]
rows = {}
for name in ("frozen", "trained"):
    rows[name] = {f"recall@{k} (%)": percent(joint[name]["recall"][k]) for k in ("1", "5", "20")}
    rows[name]["EM (%)"] = percent(joint[name]["em"])
for what in ("recall", "em"):
    print(f"{what:<7} trained - frozen {points(joint[f'{what}_difference'])} points")
pd.DataFrame(rows).T

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
thorough, fast = (
    rag.RagSequence(load_reader(method="rag-sequence"), retriever, verbatim=True, thorough=way)
    for way in (True, False)
)
pairs = list(zip(thorough.answer(questions), fast.answer(questions), strict=True))
print(f"here: {sum(a.text == b.text for a, b in pairs)} of {len(pairs)} answers are the same")
part = measured["test"]["decoding"]
print(f"on {measured['test']['n']} test questions: {percent(part['agreement'])} %")
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
# How far the probabilities differ, candidate by candidate, shows what fast decoding leaves out:

# %%
for candidates in zip(
    thorough.generate(questions[16:18], 5, 3), fast.generate(questions[16:18], 5, 3), strict=True
):
    for name, found_by in zip(("thorough", "fast"), candidates, strict=True):
        said = [f"{reader.decode(c.tokens)} {c.log_prob:.2f}" for c in found_by]
        print(f"{name:<9}", " | ".join(said))

# %% [markdown]
# ## How many passages
#
# With more passages the right one is more often among them, and more wrong ones must be outvoted.
# RAG-Token mixes them at every token and pays more for each; RAG-Sequence lets every passage finish
# its own answer first.

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

# %% [markdown]
# ## How much should retrieval count?
#
# $p(z \mid x)$ is a softmax of the retriever's scores times a scale, the one the encoder was trained
# with. That scale is the weight of retrieval against generation: at 0 all k passages count alike and
# only the generator judges them; the larger it is, the more the best passage counts alone. How
# probable the right answers of the sample are, for the scale times a factor:

# %% mystnb={"figure": {"caption": "Negative log-likelihood of the right answers of 24 dev questions against the factor on the retriever's scale; 1 is the encoder's own.", "alt": "Negative log-likelihood against the factor on the scale for RAG-Sequence and RAG-Token"}}
factors = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
nll = {name: dict.fromkeys(factors, 0.0) for name in ("RAG-Sequence", "RAG-Token")}
for asked in questions:
    (documents,) = retriever.retrieve([asked], 5)
    memory = reader.read([asked], [documents.passages])
    target = labels_of(reader, [asked.answers[0]])
    per_token = reader.token_log_probs(memory, target.expand(len(documents.ids), -1))[None]
    scores = retriever.score_scale * torch.from_numpy(documents.scores)[None]
    for factor in factors:
        weights = (factor * scores).log_softmax(-1)
        for name, core in zip(nll, (rag.sequence_log_prob, rag.token_log_prob), strict=True):
            log_p = core(per_token, weights, torch.ones_like(target))
            nll[name][factor] -= log_p.item() / len(questions)
figures.lines(nll, "factor on the scale of the scores", "nats for the right answer")

# %% [markdown]
# Both models do best at 1, the scale of the encoder's own training, though generator and encoder were
# trained apart. For another retriever it is one number to fit to dev questions: in the code it is the
# encoder's `score_scale`.
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
# greatest posterior is the one that the claim was made from.

# %%
task_rows = json.loads(Path("results/tasks.json").read_text(encoding="utf-8"))

print("n =", next(row["n"] for row in task_rows if row["task"] == "claims"), "claims, %")
pd.DataFrame(table(task_rows, "claims")).T.fillna("")

# %% [markdown]
# The two models agree on every claim, as they must; shown no passage the reader does no better than
# chance: nothing in a claim's words gives it away.
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
# best. In answering, RAG-Sequence was ahead; here it is RAG-Token, as in the paper: a clue may take
# its parts from several passages, and a model that may change the passage at every token need not
# find one of them that says it all. Without passages the writer knows no more than the name, and
# often says it. The reader of clues is trained by `python -m book.experiments.claims_and_clues_training clues DIR
# rag-token layers`; it is as large as the shared reader and not shipped.
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
# Here, on MiniWiki's test questions, five passages each:

# %%
compared = json.loads(Path("results/results.json").read_text())
for name in ("rag-sequence", "rag-token"):
    row = compared["methods"][name]
    em = percent({"mean": row["em"], "ci95": row["ci95"]["em"]})
    print(f"{name:<13} EM {em}, n = {compared['questions']['n']}")

# %% [markdown]
# The absolute figures cannot be compared: other questions, another index, a generator of a fraction
# of the size. The order can: RAG-Sequence is ahead of RAG-Token here too, and by more, since a small
# generator is less sure of every token and a mixture of five such is less sure still. What does not
# come back is the gain of a trained question tower: the embedded encoder has seen a billion pairs of
# texts, where the paper's was a DPR of one data set, and little is left to learn from four thousand
# questions.
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
