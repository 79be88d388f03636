# %% [markdown]
# # kNN-LM
#
# ## The problem
#
# A language model has read that a river rises in some forest, and months of training later the fact
# has become a small push on a few million weights. {cite:t}`khandelwal2020knnlm` leave the weights
# alone and keep the reading itself: every context the model has seen, with the word that came next.
# To predict, the model asks which stored contexts look like the present one.
#
# ## The idea
#
# The *datastore* holds a pair for every token of every passage: the **key** $k_i$ is the model's
# representation of the context (the input of its last feed-forward network, after the layer norm),
# the **value** $v_i$ the token that followed.

# %%
import inspect
from pathlib import Path

import numpy as np
import torch

from ragbook import figures, load_corpus, load_questions
from ragbook.corpus import miniwiki
from ragbook.evaluation.perplexity import score
from ragbook.index import build_index
from ragbook.methods import knn_lm
from ragbook.models import load_encoder, load_lm
from ragbook.models.bundled import manifest
from ragbook.retrieval import DenseRetriever

corpus, encoder, lm = load_corpus("miniwiki"), load_encoder(), load_lm()
index = build_index(corpus, Path("../build/index"), encoder, progress=False)
retriever = DenseRetriever(index, encoder)
keys, values = lm.memory([corpus[0]])[0]
print(corpus[0].title, "gives", tuple(keys.shape), "keys; the first values are")
print(lm.tokenizer.convert_ids_to_tokens(values[:12].tolist()))

# %% [markdown]
# ## The mathematics
#
# For a context with representation $q$, the neighbours vote for their tokens, the near ones more
# than the far ones (equations 2 and 3 of the paper, with a temperature $T$):
#
# $$ p_{\text{kNN}}(y \mid x) \propto \sum_{i:\, v_i = y} \exp\left(-\frac{\lVert q - k_i \rVert^2}{T}\right), $$ (knn)
#
# $$ p(y \mid x) = (1 - \lambda)\, p_{\text{LM}}(y \mid x) + \lambda\, p_{\text{kNN}}(y \mid x). $$ (interpolation)
#
# Distances are *squared*, and probabilities are mixed, not logits: two places where public
# implementations differ from the paper.
#
# ## The code

# %%
print(inspect.getsource(knn_lm.knn_log_probs).split('"""')[-1])
print(inspect.getsource(knn_lm.interpolate).split('"""')[-1])

# %% [markdown]
# Three neighbours at distances 0, 1 and 1 by hand, two of them voting for token 2:

# %%
distances, tokens = torch.tensor([[0.0, 1.0, 1.0]]), torch.tensor([[0, 2, 2]])
print(knn_lm.knn_log_probs(distances, tokens, vocab_size=4).exp().numpy().round(3))
w = np.exp([0, -1, -1])
print(np.array([w[0], 0, w[1] + w[2], 0]).round(3) / w.sum().round(3))

# %% [markdown]
# ## On held-out text
#
# Articles that no index holds and no training saw. Each of their tokens is scored by the model
# alone, with the memory of the whole corpus, and with a retrieved passage put into the prompt (the
# other way to give a language model a passage). The neighbours' distances are computed once; any
# $\lambda$ and $T$ after that cost next to nothing.

# %%
documents = ["\n".join(p.text for p in a.passages) for a in miniwiki.heldout("test")]
scored = score(documents[:4], corpus, lm, progress=False)
base = torch.cat([s.base for s in scored])
in_context = torch.cat([s.in_context for s in scored])
tuned = manifest()["perplexity"]


def memory(lam, temperature):
    parts = [knn_lm.knn_target_log_prob(s.distances, s.hits, temperature) for s in scored]
    return knn_lm.interpolate(base, torch.cat(parts), lam)


for name, log_probs in (
    ("base", base),
    ("knn-lm", memory(**{"lam": tuned["lam"], "temperature": tuned["temperature"]})),
    ("in-context", in_context),
):
    print(f"{name:<11} perplexity {np.exp(-log_probs.double().mean().item()):.1f}")
print(len(base), "tokens; tuned on other articles:", tuned)

# %% [markdown]
# ## What moves it
#
# With $T$ too small only the nearest neighbour speaks; with $T$ too large all speak alike. And
# $\lambda = 0$ is the model itself, $\lambda = 1$ the memory alone.

# %% mystnb={"figure": {"caption": "Perplexity on held-out text against the weight of the memory, for three temperatures.", "alt": "Perplexity curves over lambda for three temperatures"}}
curves = {
    f"T = {t:g}": {
        lam: float(np.exp(-memory(lam, t).double().mean().item()))
        for lam in (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
    }
    for t in (10.0, 30.0, 100.0)
}
figures.lines(curves, "λ, weight of the memory", "perplexity")

# %% [markdown]
# ## Answering questions
#
# To stand beside the other methods, kNN-LM answers from the same k passages: the neighbours are
# searched among *their* contexts. The question is the prompt, and the answer is continued token by
# token. A small language model answers badly this way: nothing taught its representations that a
# question and the sentence that answers it belong together. What the memory changes is how probable
# the right answer becomes.

# %%
questions = list(load_questions("miniwiki", "dev").head(24))
answers = [q.answers[0] for q in questions]
for lam in (0.0, manifest()["knn_lm"]["lam"]):
    method = knn_lm.KnnLM(lm, retriever, lam, manifest()["knn_lm"]["temperature"])
    nll = -method.log_prob(questions, answers, k=5).double().mean().item()
    print(f"lambda = {lam:.2f}: {nll:.1f} nats for the right answer")

# %% mystnb={"figure": {"caption": "Which passage's neighbours spoke for the right answer: the evidence of kNN-LM for one question.", "alt": "Bars of the neighbours' mass by passage"}}
question = questions[3]
found = retriever.retrieve([question], 5)[0]
method = knn_lm.KnnLM(lm, retriever, **manifest()["knn_lm"])
own, distances, hits = method.neighbours(
    question,
    [*lm.tokenizer(question.answers[0], add_special_tokens=False)["input_ids"], lm.end],
    method.memory(found),
)
weights = (torch.softmax(-distances / method.temperature, -1) * hits)[:-1].sum(0)
source = method.memory(found)[2]
mass = torch.zeros(5).scatter_add_(0, source, weights)
print(question.text, "|", question.answers[0])
figures.bars(
    dict(zip(found.ids, (mass / mass.sum()).tolist(), strict=True)), "share of the neighbours' mass"
)

# %% [markdown]
# ## What the paper had
#
# On WikiText-103, with a datastore of 103 million tokens and k = 1024, the paper's model goes from
# 18.65 to 16.12 in perplexity without any training. Ours has some tens of thousands of pairs, and a
# base model that is far from 18: a weak model leaves more to gain, a small memory has less to give.
#
# ## Exercises
#
# ```{exercise}
# :label: ex-knn-mass
# Why is $p_{\text{kNN}}$ zero for most tokens, and why does that not matter after interpolation?
# ```
#
# ```{solution} ex-knn-mass
# :class: dropdown
# Only tokens that followed one of the k neighbours get any mass. For $\lambda < 1$ the language
# model's share keeps every token possible.
# ```
#
# ```{exercise}
# :label: ex-knn-delete
# A passage turns out to be false. What has to be done so that kNN-LM forgets it, and what if a model
# had been trained on it instead?
# ```
#
# ```{solution} ex-knn-delete
# :class: dropdown
# Its rows are taken out of the datastore; every row knows its passage. A trained model would have to
# be trained again without it.
# ```
