# %% [markdown]
# # kNN-LM: a memory beside the model
#
# ## The problem
#
# A language model reads once that a river rises in a certain forest. After months of training, that fact
# is a small change spread over millions of weights. {cite:t}`khandelwal2020knnlm` leave the weights alone
# and store what was read: every context the model has seen, with the word that came next. To predict a
# word, the model looks for the stored contexts that are most similar to the present one.
#
# ## The idea
#
# The *datastore* holds a pair for every token of every passage. The **key** $k_i$ is the model's
# representation of a context: the input of its last feed-forward network, after the layer norm
# ({doc}`transformers` explains the parts). The **value** $v_i$ is the token that followed. For a context
# $c_t$, which is all tokens before $y_t$, with representation $q$, the nearest keys vote for their
# tokens, and the vote is mixed with the model's own distribution:
#
# $$ p_{\text{kNN}}(y_t \mid c_t) \propto \sum_{i:\, v_i = y_t} \exp\left(-\frac{\lVert q - k_i \rVert^2}{\tau}\right), $$ (knn)
#
# $$ p(y_t \mid c_t) = (1 - \lambda)\, p_{\text{LM}}(y_t \mid c_t) + \lambda\, p_{\text{kNN}}(y_t \mid c_t). $$ (interpolation)
#
# The passages are combined in the output distribution, after the language model has computed its own.
# The diagram traces one question of MiniWiki with its three best passages and the numbers of the trained
# model ({doc}`the first page <index>` has the same diagram for all six methods):
#
# ![kNN-LM: the pairs of three passages give the next token a distribution, which is mixed with the model's](diagrams/knn-lm.svg)
#
# The paper's formula has $\tau = 1$; for keys of a different scale, a different temperature works better. The
# distances are *squared*, and probabilities are mixed, not logits.

# %% tags=["hide-input"]
import json
import math
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from experiments import figures, interactive
from experiments.examples import example
from experiments.report import relative
from experiments.sentences import perplexity_changed
from experiments.source import source
from IPython.display import Markdown

from ragbook import load_corpus, load_questions
from ragbook.corpus import Corpus, miniwiki
from ragbook.evaluation.names import listed
from ragbook.evaluation.perplexity import contexts_of, look_up, prompted
from ragbook.evaluation.statistics import cut_off
from ragbook.index import build_index
from ragbook.index.datastore import build_datastore
from ragbook.index.neighbours import exact
from ragbook.methods import knn_lm
from ragbook.methods.knn_lm.text import OpenKnnLM
from ragbook.models import (
    load_adapted_language_model,
    load_encoder,
    load_language_model,
)
from ragbook.models.bundled import manifest
from ragbook.retrieval import DenseRetriever

corpus, lm = load_corpus("miniwiki"), load_language_model()
measured, real = (
    json.loads(Path(f"results/{name}.json").read_text())
    for name in ("language", "wikitext")
)

# %% [markdown]
# ## The method in ten lines
#
# Take three stored contexts in two dimensions and a vocabulary of four tokens. The first key equals the
# query; the others are at distance 1. Each neighbour's weight is $e^0 = 1$ or $e^{-1} = 0.368$, divided by
# their sum 1.736.

# %%
keys = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
values = torch.tensor([0, 2, 2])
q = torch.tensor([0.0, 0.0])
p_lm = torch.tensor([0.1, 0.2, 0.3, 0.4])
tau, lam = 1.0, 0.5

distances = (q - keys).square().sum(1)
weights = torch.exp(-distances / tau)
weights = weights / weights.sum()
p_knn = torch.zeros(4).index_add(0, values, weights)
p = (1 - lam) * p_lm + lam * p_knn

print("distances [k] =", tuple(distances.shape), distances.numpy())
print("weights   [k] =", tuple(weights.shape), weights.numpy().round(3))
print("p_kNN     [V] =", tuple(p_knn.shape), p_knn.numpy().round(3))
print("p_LM      [V] =", tuple(p_lm.shape), p_lm.numpy())
print("p         [V] =", tuple(p.shape), p.numpy().round(3))

# %% [markdown]
# The model alone would predict token 3, the memory alone token 0, and the mixture predicts token 2, the only
# one to which both give more than 0.1. The package does the same for several contexts at once, in logarithms:

# %%
print(source(knn_lm.knn_log_probs), "\n")
print(source(knn_lm.interpolate))

# %%
log_knn = knn_lm.knn_log_probs(distances[None], values[None], vocab_size=4)
log_p = knn_lm.interpolate(p_lm.log()[None], log_knn, lam)
print("log p [N, V] =", tuple(log_p.shape), log_p.exp().numpy().round(3))
print("as by hand:", torch.allclose(log_p.exp()[0], p))

# %% [markdown]
# ## Perplexity needs one token's probability
#
# A perplexity needs, at each position, only the probability of the token that actually comes next. The
# memory's part of it is a sum over $k$ neighbours, $O(k)$ per token, whereas the whole distribution would
# have thirty thousand entries. Which neighbours are found does not depend on $\lambda$ or $\tau$ either, and
# those for a smaller $k$ are the first of those for a larger one. Once each neighbour's distance is stored,
# and whether its token is the right one, a whole grid of settings costs less than the model's own pass.

# %%
print(source(knn_lm.knn_target_log_prob))

# %% [markdown]
# Take one context with three neighbours, of which the last two have the right token, and a model that gives
# that token 0.01. With $k = 3$ and $\tau = 1$ the memory gives it
# $(e^{-1} + e^{-4}) / (e^{-0.5} + e^{-1} + e^{-4}) = 0.389$, and $\lambda = 0.5$ makes that
# $0.005 + 0.1945 = 0.1995$. With $k = 1$ the only neighbour is wrong, and half of 0.01 is left. (In the
# output the two values of $\tau$ are the rows, the two of $\lambda$ the columns.)

# %%
grid = knn_lm.grid(
    torch.tensor([0.01]).log(),
    [torch.tensor([[0.5, 1.0, 4.0]])],
    [torch.tensor([[False, True, True]])],
    lams=(0.0, 0.5),
    temperatures=(1.0, 10.0),
    ks=(1, 3),
)
print("[k, τ, λ] =", tuple(grid.shape))
print(grid.exp().numpy().round(4))

# %% [markdown]
# ## A memory, and what each neighbour says
#
# A small datastore holds MiniWiki's articles on waters, mountains and islands. Each neighbour belongs to
# a passage, so a prediction can be traced to its sources. Here are the six stored contexts nearest to an
# unfinished sentence, each with the token that followed it and its share of $p_{\text{kNN}}$:

# %%
families = {
    "rivers",
    "lakes-and-seas",
    "straits-and-rivers",
    "mountains-and-volcanoes",
    "islands",
}
passages = [
    p for a in miniwiki.articles() if a.family in families for p in a.passages
]
folder = Path(tempfile.mkdtemp())
datastore = build_datastore(
    Corpus("landscapes", passages), folder / "store", lm, progress=False
)
print(f"{len(passages)} passages, {len(datastore):,} pairs")
print("keys  ", datastore.keys.shape, datastore.keys.dtype)
print("values", datastore.values.shape, datastore.values.dtype)

# %%
tuned = manifest()["perplexity"]
memory = OpenKnnLM(lm, datastore, **tuned)
unfinished = "The Danube rises in the Black Forest and flows into the Black"
near = memory.neighbours(unfinished, shown=6)
pd.DataFrame(
    [
        {
            "share": round(n.weight, 3),
            "context": f"... {n.context}",
            "token": n.token,
            "passage": n.passage.id,
        }
        for n in near
    ]
)

# %% [markdown]
# The sentence is continued without memory, with the tuned weight, and a much larger one. `from` names
# the passage with the largest share of the votes for the words; at $\lambda = 0$ none counts.

# %%
written = {}
for lam in (0.0, tuned["lam"], 0.9):
    continued = OpenKnnLM(lm, datastore, lam, tuned["temperature"]).write(
        unfinished, length=8
    )
    written[lam] = continued.text
    print(f"λ = {lam:.1f}: ... Black {continued.text}")
    if lam:
        (best, *_) = continued.evidence
        print(f"         from {best.passage_id} {best.weight:.2f}")

# %% tags=["remove-input"]
share = {
    token: sum(n.weight for n in near if n.token == token)
    for token in ("forest", "sea")
}
wrong = [f"{lam:.1f}" for lam in written if written[lam].startswith("forest")]
Markdown(
    f"The Danube flows into the Black *Sea*. Of these six neighbours, those for *forest* have "
    f"{share['forest']:.2f} of the vote and those for *sea* {share['sea']:.2f}"
    + (
        f", so with λ = {listed(wrong)} the text sends the river into the Black Forest. "
        if wrong
        else ". "
    )
    + f"The memory stores contexts and not facts: the nearest of them was followed by "
    f"*{near[0].token}*, and nothing checks whether that token fits this sentence."
)

# %% [markdown]
# Here the 64 nearest contexts vote on the next token; both settings can be changed. At $\lambda = 0$ the
# mixture is the model, at $\lambda = 1$ the memory. A small $\tau$ lets only the nearest contexts vote, and a
# large one gives all 64 the same vote.

# %% mystnb={"figure": {"caption": "The most probable next tokens under the model, under the memory and under their mixture. On the site, the sliders set the memory's weight and the temperature.", "alt": "Probabilities of the most probable next tokens in three columns: model, memory and mixture"}}
pieces = lm.tokenizer(unfinished, add_special_tokens=False)["input_ids"]
queries, log_probs = lm.forward(torch.tensor([[lm.start, *pieces]]), last=1)
distances, rows = datastore.search(queries[0].numpy(), 64)
values = torch.from_numpy(datastore.values[rows]).long()
names = lm.tokenizer.convert_ids_to_tokens(list(range(lm.vocab_size)))
interactive.next_token(
    names, log_probs[0, 0], torch.from_numpy(distances[0]), values[0], **tuned
)

# %% [markdown]
# The beginning of a held-out article shows, token by token, where the memory improves the prediction and
# where it does not.

# %% mystnb={"figure": {"caption": "Log-probability of each token at the beginning of a held-out passage, by the model alone (base) and with the memory, in nats.", "alt": "Heat map of log-probabilities by token, of the model alone and with the memory"}}
landscapes = [
    a for a in miniwiki.heldout("test") if a.family == "heldout-geography"
]
article = landscapes[0]
(contexts,) = contexts_of([article.passages[0].text], lm, progress=False)
((distances, hits, _),) = look_up([contexts], datastore, 1024)
neighbours = knn_lm.knn_target_log_prob(distances, hits, tuned["temperature"])
with_memory = knn_lm.interpolate(contexts.base, neighbours, tuned["lam"])
some = slice(0, 14)
rows = torch.stack([contexts.base, with_memory])[:, some]
pieces = lm.tokenizer.convert_ids_to_tokens(contexts.targets[some].tolist())
figures.heat_map(rows.numpy(), ["base", "with memory"], pieces, "log p, nats")

# %% tags=["remove-input"]
gain = (with_memory - contexts.base)[some]
best, worst = int(gain.argmax()), int(gain.argmin())
Markdown(
    f"The memory makes {int((gain > 0).sum())} of these {len(gain)} tokens more probable. It helps most "
    f"with *{pieces[best]}* ({gain[best]:+.2f} nats) and costs most at *{pieces[worst]}* "
    f"({gain[worst]:+.2f}). The cost is bounded: where no neighbour has the right token, it is "
    f"-log(1 - λ) = {-math.log(1 - tuned['lam']):.2f} nats."
)

# %% [markdown]
# ## On held-out text
#
# The following articles are in no memory and were not used in training. One model scores them in four
# ways: alone; with the datastore of all of MiniWiki; with that datastore and a separate weight
# $\lambda(c_t)$ for each context, given by a logistic regression on what is known before the token comes
# (how near the neighbours are, whether they agree, how certain the model is); and *in context*, with a
# passage in the prompt, found by BM25 for each window {cite:p}`ram2023incontext`. Every setting was fitted
# to the tuning articles, which are others; the last column has the perplexity on these (for *adaptive*,
# cross-fitted by article). Intervals are over articles.

# %% tags=["hide-input", "stored-language"]
settings, test = measured["settings"], measured["test"]
print(
    f"{test['base']['articles']} articles, {test['base']['tokens']:,} tokens; ",
    end="",
)
print(
    f"memory of {settings['pairs']:,} pairs, {settings['bytes'] / 1e6:.0f} MB"
)
print(
    f"tuned on {settings['dev_articles']} others: λ = {settings['lam']}, ",
    end="",
)
print(f"τ = {settings['temperature']:g}")
pd.DataFrame(
    {
        name: {
            "perplexity": f"{row['perplexity']:.1f}",
            "relative to the base (%)": relative(
                row["difference"], row["ci95"]
            ),
            "on the tuning articles": f"{settings['dev'][name]:.1f}"
            if name in settings["dev"]
            else "",
        }
        for name, row in test.items()
    }
).T

# %% [markdown]
# The regression's weights are for standardised features; where a feature with a positive weight is larger,
# the memory gets a larger $\lambda(c_t)$.

# %% tags=["hide-input", "stored-language"]
difference, interval = test["adaptive"]["from_knn_lm"]
print("adaptive to fixed weight (%)", relative(difference, interval))
for feature, weight in settings["weights"].items():
    print(f"{weight:+.2f}  {feature}")

# %% tags=["remove-input", "stored-language"]
Markdown(
    f"{perplexity_changed('The memory', test['knn-lm']['difference'], test['knn-lm']['ci95'])}. "
    f"{perplexity_changed('A separate weight for each context', difference, interval, further=True)}: "
    "either one weight fits nearly everywhere, or these features do not say where it does not. "
    f"{perplexity_changed('A passage in the prompt', test['in-context']['difference'], test['in-context']['ci95'])}. "
    "This small model saw some passages after a neighbour in training, and its few hundred steps "
    "did not teach it to use them. The memory needs no such skill, only that similar contexts have similar keys."
)

# %% [markdown]
# For the held-out articles about landscapes and the small memory from above, the same is computed here:

# %%
texts = ["\n".join(p.text for p in a.passages) for a in landscapes]
scored = contexts_of(texts, lm, progress=False)
found = look_up(scored, datastore, 1024)
base = torch.cat([one.base for one in scored])
distances, hits = zip(*(one[:2] for one in found), strict=True)


def perplexity(log_probs):
    return math.exp(-log_probs.double().mean())


def with_vote(distances, hits, lam=tuned["lam"], tau=tuned["temperature"]):
    vote = knn_lm.knn_target_log_prob(
        torch.cat(distances), torch.cat(hits), tau
    )
    return knn_lm.interpolate(base, vote, lam)


ways = {
    "base": base,
    "knn-lm": with_vote(distances, hits),
    "in-context": torch.cat(prompted(texts, corpus, lm, progress=False)),
}
print(", ".join(a.title for a in landscapes), f"- {len(base):,} tokens")
for name, log_probs in ways.items():
    print(f"{name:<11} perplexity {perplexity(log_probs):.1f}")

# %% [markdown]
# ## What affects it
#
# **Weight and temperature.** If $\tau$ is too small, only the nearest neighbour has a vote; if it is too
# large, all votes are equal. With $\lambda = 0$ only the model counts, near 1 almost only the memory.

# %% tags=["hide-input", "stored-language"] mystnb={"figure": {"caption": "The logarithm of the perplexity on the articles used for tuning, by temperature and by weights of the memory up to 0.7. From a weight of 0.1 on, τ = 10 is the best temperature, whatever the weight.", "alt": "Heat map of log-perplexity over the weight λ and the temperature τ, with a valley"}}
surface = measured["surface"]
shown = [lam for lam in surface["lams"] if lam <= 0.7]
figures.heat_map(
    np.log(surface["perplexity"])[:, : len(shown)],
    rows=[f"τ = {t:g}" for t in surface["temperatures"]],
    columns=[f"λ = {lam:g}" for lam in shown],
    label="nats a token",
)

# %% [markdown]
# The distances found above give perplexities of the landscapes with the small memory:

# %%
lams, temperatures = (
    (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9),
    (1.0, 3.0, 10.0, 100.0),
)
small = knn_lm.grid(base, distances, hits, lams, temperatures, ks=(1, 16, 1024))
pd.DataFrame(
    torch.exp(-small[-1]).numpy().round(1),
    index=[f"τ = {t:g}" for t in temperatures],
    columns=[f"λ = {lam:g}" for lam in lams],
)

# %% tags=["remove-input", "stored-language"]
large = np.array(surface["perplexity"])
row, column = np.unravel_index(large.argmin(), large.shape)
t, j = divmod(int(small[-1].argmax()), len(lams))
Markdown(
    f"On the {settings['dev_articles']} articles used for tuning ({settings['dev_tokens']:,} tokens), "
    f"the large memory is best at τ = {surface['temperatures'][row]:g} and λ = "
    f"{surface['lams'][column]:g}. The small one is best at τ = {temperatures[t]:g} and λ = "
    f"{lams[j]:g} on its {len(landscapes)} articles."
)

# %% [markdown]
# **Neighbours.** Each $k$ has its best $\lambda$ and $\tau$, first as stored, then computed here:

# %% tags=["hide-input", "stored-language"] mystnb={"figure": {"caption": "Perplexity on the articles used for tuning against the number of neighbours, each with its best weight and temperature. It falls up to the largest number tried.", "alt": "A falling curve of perplexity over k"}}
figures.lines(
    {"knn-lm": {float(k): v for k, v in surface["ks"].items()}},
    "k, neighbours",
    "perplexity",
    log=True,
)

# %%
for k, of_k in zip((1, 16, 1024), small, strict=True):
    print(f"k = {k:<5} perplexity {math.exp(-of_k.max()):.1f}")

# %% [markdown]
# **Size of the memory.** In the paper's growth curve, more pairs mean a lower perplexity and a larger
# $\lambda$. Here are samples of the passages, each tuned again on the other articles, with the perplexity and
# its difference from the base model's:

# %% tags=["hide-input", "stored-language"] mystnb={"figure": {"caption": "Perplexity on held-out text against the size of the datastore: it falls with every enlargement, and the base model is above it throughout.", "alt": "A falling curve of perplexity over the number of pairs, below the base model's line"}}
grown = measured["growth"]
for row in grown:
    print(
        f"{row['pairs']:>8,} pairs, λ = {row['lam']:<5} {row['perplexity']:.1f}, "
        f"{relative(row['difference'], row['ci95'])} %"
    )
curves = {
    "base": {float(row["pairs"]): test["base"]["perplexity"] for row in grown},
    "knn-lm": {float(row["pairs"]): row["perplexity"] for row in grown},
}
figures.lines(curves, "pairs in the datastore", "perplexity", log=True)

# %% [markdown]
# The small memory can be made smaller still. Here the landscapes are scored with a quarter, half and all of
# it, at the same $\lambda$ and $\tau$:

# %%
for size in (len(datastore) // 4, len(datastore) // 2, len(datastore)):
    part = look_up(
        scored,
        datastore,
        1024,
        search=lambda queries, k, n=size: exact(datastore.keys[:n], queries, k),
    )
    near_part, hit_part = zip(*(one[:2] for one in part), strict=True)
    print(
        f"{size:>6,} pairs  perplexity {perplexity(with_vote(near_part, hit_part)):.1f}"
    )

# %% [markdown]
# **Length of the context.** Each passage is read by itself, title first, so its keys depend on nothing
# else. It can be removed or replaced without changing the others, and it has the same keys in every
# datastore. The alternative is to read whole articles, in windows that overlap by half:

# %% tags=["hide-input", "stored-language"]
whole = measured["whole articles"]
print(f"whole articles: perplexity {whole['perplexity']:.1f}, ", end="")
print(
    f"{relative(whole['difference'], whole['ci95'])} % compared with single passages"
)

# %% tags=["remove-input", "stored-language"]
Markdown(
    f"{perplexity_changed('Reading whole articles', whole['difference'], whole['ci95'], further=True)}. "
    "What comes before a passage adds little to what makes two contexts similar."
)

# %% [markdown]
# **Exact or approximate.** At the paper's scale no search is exact: the keys are divided into cells, and
# each is compressed to a code of 64 bytes (Faiss's IVF-PQ, {doc}`09-scale`). This causes two kinds of
# error: neighbours are missed because their cell is not searched, and distances are computed from the
# codes. The second kind can be corrected by computing the distances again from the stored keys.

# %% tags=["hide-input", "stored-language"]
searched = measured["approximate search"]
print(f"exact search: perplexity {searched['exact']:.2f}")
pd.DataFrame(
    [
        {
            "cells searched": row["probes"],
            "distances": "of the keys" if row["recomputed"] else "of the codes",
            "recall of the neighbours": f"{row['recall']:.3f}",
            "perplexity": f"{row['perplexity']:.2f}",
        }
        for row in searched["approximate"]
    ]
)

# %% tags=["remove-input", "stored-language"]
by = {
    (row["probes"], row["recomputed"]): row for row in searched["approximate"]
}
few, many = min(by)[0], max(by)[0]
cost = {cell: row["perplexity"] - searched["exact"] for cell, row in by.items()}
recovered = {
    probes: math.floor(100 * (1 - cost[probes, True] / cost[probes, False]))
    for probes in (few, many)
}
Markdown(
    f"With {few} cells, {100 * (1 - by[few, True]['recall']):.0f} % of the neighbours are missed, which "
    f"raises the perplexity by {cost[few, False]:.1f}; computing distances again recovers "
    f"{recovered[few]} % of that. With {many} cells, {100 * (1 - by[many, True]['recall']):.0f} % are missed, "
    f"the perplexity rises by {cost[many, False]:.1f}, and {recovered[many]} % are recovered."
)

# %% [markdown]
# ## Real text, and another domain
#
# WikiText-2's validation split has sixty real articles. The first fifty are memory and training text; the
# other ten are scored (`python -m book.experiments.knn_lm_real_text FILE OUT`). The bundled model was
# trained on MiniWiki, and real articles are far harder for it to predict. It can be given a memory of the
# new domain without training, trained on the fifty articles (*adapted*), or both.

# %% tags=["hide-input", "stored-wikitext"]
test_real, memory_of = real["bundled"]["test"], real["articles"]["memory"]
print(
    f"memory of {memory_of} articles, {real['bundled']['pairs']:,} pairs; measured on ",
    end="",
)
print(
    f"{test_real['base']['articles']} articles, {test_real['base']['tokens']:,} tokens"
)
rows = {}
for name in ("bundled", "adapted"):
    for way, row in real[name]["test"].items():
        rows[f"{name}, {way}"] = {
            "perplexity": f"{row['perplexity']:.1f}",
            "relative to its base (%)": relative(
                row["difference"], row["ci95"]
            ),
        }
print("adapted to bundled base (%)", relative(*real["adapted"]["from_bundled"]))
pd.DataFrame(rows).T

# %% tags=["remove-input", "stored-wikitext"]
untrained, adapted_row = (
    real[name]["test"]["knn-lm"] for name in ("bundled", "adapted")
)
prompt_row = real["adapted"]["test"]["in-context"]
Markdown(
    f"{perplexity_changed('Without training, the memory', untrained['difference'], untrained['ci95'])}. "
    f"{perplexity_changed('Training on the same articles', *real['adapted']['from_bundled'])}. "
    f"{perplexity_changed('After that training, the memory', adapted_row['difference'], adapted_row['ci95'], further=True)}: "
    "the weights did not keep everything that was read. "
    f"{perplexity_changed('For the adapted model, a passage in the prompt', prompt_row['difference'], prompt_row['ci95'])}: "
    "as on MiniWiki, this small model does not benefit from it."
)

# %% [markdown]
# Without training, each text is now scored with each memory, with $\lambda$ and $\tau$ tuned on articles of
# that text. A memory of the wrong domain helps little, and its tuned weight is smaller.

# %% tags=["hide-input", "stored-wikitext"]
pairs = {
    ("MiniWiki", "MiniWiki"): real["miniwiki, own memory"],
    ("MiniWiki", "WikiText"): real["miniwiki, the file's memory"],
    ("WikiText", "MiniWiki"): real["the file, miniwiki's memory"],
    ("WikiText", "WikiText"): real["bundled"],
}
pd.DataFrame(
    [
        {
            "text": text,
            "memory": memory_text,
            "λ": each["settings"]["lam"],
            "perplexity": f"{each['test']['knn-lm']['perplexity']:.1f}",
            "relative to the base (%)": relative(
                each["test"]["knn-lm"]["difference"],
                each["test"]["knn-lm"]["ci95"],
            ),
        }
        for (text, memory_text), each in pairs.items()
    ]
)

# %% [markdown]
# ## Answering questions
#
# To be comparable with the other methods, kNN-LM answers from the same $k$ passages (in this section $k$
# counts passages): all contexts of *these passages* are neighbours, and no others. The question is the prompt, and the answer is its continuation, token by token. A
# small language model answers badly this way, because nothing taught it to represent a question like the
# sentence that answers it. What the memory changes is the probability of the right answer. If the
# interpolation itself is trained, keys included {cite:p}`zhong2022trime`, the representations can be
# learnt: the last line is a model adapted in this way, for as many steps as the other methods are trained
# by their own objective (`ragbook.training.reader.memory`).

# %%
index = build_index(
    corpus, Path("../build/index"), load_encoder(), progress=False
)
retriever = DenseRetriever(index, load_encoder())
dev = list(load_questions("miniwiki", "dev"))
questions = dev[:24]
answers = [question.answers[0] for question in questions]
tuned, adapted = manifest()["knn_lm"], load_adapted_language_model()
assert adapted is not None
nats, ways = {}, {}
for name, model, lam, temperature in (
    ("the model", lm, 0.0, tuned["shared"]["temperature"]),
    ("with a memory", lm, *tuned["shared"].values()),
    ("adapted to it", adapted, *tuned["own"].values()),
):
    ways[name] = method = knn_lm.KnnLM(model, retriever, lam, temperature)
    nats[name] = -method.log_prob(questions, answers, k=5).double()
    print(
        f"{name}, λ = {lam:.2f}: {nats[name].mean():.1f} nats for the right answer"
    )

# %% tags=["remove-input"]
alone, with_pairs, trained = nats.values()
Markdown(
    f"These are means of n = {len(questions)} dev questions. The memory makes the right answer more "
    f"probable for {int((with_pairs < alone).sum())} of them; the adapted model makes it more probable "
    f"than that for {int((trained < with_pairs).sum())}."
)

# %% [markdown]
# Where in the answer does the memory help? Here is one answer token by token, each given the right tokens
# before it: that of the first dev question whose gold passage is found but not ranked first, and whose answer
# has several tokens.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Probability of each token of a right answer, by the model, by the memory of the five passages, and by their mixture. The memory gives the first token almost nothing, as the model does, and every later token more than 0.9: it can continue the answer but not begin it.", "alt": "Heat map of probabilities: the memory's are near zero for the first token and near one for all others"}}
method = ways["with a memory"]


def by_token(question):
    """What was retrieved, the answer's tokens, what the formula needs of them, and the passage of
    each neighbour."""
    (retrieved,) = retriever.retrieve([question], 5)
    tokens = lm.tokenizer(question.answers[0], add_special_tokens=False)[
        "input_ids"
    ]
    stored = method.datastore(retrieved)
    return (
        retrieved,
        tokens,
        method.neighbours(question, tokens, stored),
        stored[2],
    )


question = example(retriever, dev, lm.tokenizer)
retrieved, tokens, (base, distances, hits), sources = by_token(question)
vote = knn_lm.knn_target_log_prob(distances, hits, method.temperature)
rows = torch.stack([base, vote, knn_lm.interpolate(base, vote, method.lam)])
assert rows[:2, 0].exp().max() < 0.01  # the caption
assert rows[1, 1:].exp().min() > 0.9
print(question.text, "|", question.answers[0], "|", question.gold_passage)
figures.heat_map(
    rows.exp().numpy(),
    ["model", "memory", "mixture"],
    lm.tokenizer.convert_ids_to_tokens(tokens),
    "probability",
)

# %% tags=["remove-input"]
mass = knn_lm.passage_mass(distances, hits, sources, 5, method.temperature)
own = retrieved.ids.index(question.gold_passage)
first, later = [], []
for one in questions:
    _, _, (_, far, right), _ = by_token(one)
    each = knn_lm.knn_target_log_prob(far, right, method.temperature).exp()
    first.append(each[0].item())
    later += each[1:].tolist()
Markdown(
    "After the first token, the context resembles the one in which the gold passage states the answer. Before "
    "it there is only a question, and the contexts nearest to a question are followed by other words. In the "
    f"{len(questions)} questions above, the memory gives the first token of the right answer a probability of "
    f"{np.median(first):.3f} and later ones {np.median(later):.2f} (medians of {len(first)} and {len(later)} "
    "tokens). This is why the memory makes right answers far more probable, and kNN-LM still seldom gives "
    f"them. Evidence can be traced all the same: a share of {mass[own]:.2f} of the votes for this answer's "
    f"tokens comes from `{question.gold_passage}`, the gold passage, which the retriever ranked "
    f"{('second', 'third', 'fourth', 'fifth')[own - 1]}."
)

# %% [markdown]
# ## What the paper reports
#
# On WikiText-103, {cite:t}`khandelwal2020knnlm` report (table 1; a Transformer of 247 million parameters, a
# datastore of 103 million pairs, k = 1024, $\lambda = 0.25$):
#
# | | validation | test |
# |---|---|---|
# | base | 17.96 | 18.65 |
# | kNN-LM | 16.06 | 16.12 |
#
# These are the two texts of this chapter with the bundled model, with the adapted one, and with SmolLM2, the
# pretrained model of {doc}`chapter 11 <11-one-pretrained-model>`:

# %% tags=["hide-input", "stored-language", "stored-wikitext", "stored-smollm2-language"]
known = json.loads(Path("results/smollm2-language.json").read_text())
compared = {"WikiText-103, paper": (18.65, 16.12)}
for name, test in (
    ("MiniWiki, bundled", measured["test"]),
    ("MiniWiki, SmolLM2", known),
    ("WikiText-2, bundled", real["bundled"]["test"]),
    ("WikiText-2, adapted", real["adapted"]["test"]),
):
    compared[name] = test["base"]["perplexity"], test["knn-lm"]["perplexity"]
drop = {name: 1 - knn / alone for name, (alone, knn) in compared.items()}
assert max(drop, key=lambda name: drop[name]) == "WikiText-2, bundled"
assert min(drop.values()) > 0
lower = {name: cut_off(less) for name, less in drop.items()}
for name, (alone, knn) in compared.items():
    print(
        f"{name:<20} base {alone:6.2f}, kNN-LM {knn:6.2f}: {lower[name]} % lower"
    )
print(f"parameters of the bundled model: {lm.parameters / 1e6:.1f} million")

# %% tags=["remove-input", "stored-language", "stored-wikitext", "stored-smollm2-language"]
Markdown(
    "Across models, the absolute figures cannot be compared: the tokens differ, the bundled model drops upper case, "
    "and it was mostly trained to encode and not to predict. The direction can: the memory lowers all of them. As in "
    "the paper (section 4.3), a text of a domain that the model never read gains the most, WikiText-2 with the bundled "
    f"model ({lower['WikiText-2, bundled']} %). SmolLM2, a pretrained model, gains {lower['MiniWiki, SmolLM2']} % on "
    "MiniWiki's held-out articles."
)

# %% [markdown]
# Two public implementations differ from the formulas above in details.
# [knnlm](https://github.com/urvashik/knnlm), by the paper's first author, adds up the neighbours that have the
# right token, as this chapter does; with its option for half-precision keys, it stores tokens as integers of
# 16 bits, too few for a vocabulary of more than 32,767.
# [knn-transformers](https://github.com/neulab/knn-transformers) expands every batch over the whole vocabulary;
# with inner products that are recomputed from the keys, its sign is wrong, and the farthest neighbours get
# the most votes. (Its default, L2 distances, is right.) `python benchmarks/knn_lm.py` runs a straightforward
# implementation that expands over the vocabulary and this one, and prints both perplexities and times.
#
# ## What to remember
#
# kNN-LM changes no weight: it stores a key and a value for every token of the memory and interpolates
# the distribution of the nearest keys with that of the model. The interpolation is of probabilities,
# the distances are squared, and $\lambda$ and $\tau$ are tuned together. On held-out text the memory
# lowers the perplexity of the small model by about a quarter, and the gain grows with the number of
# pairs stored; a memory of another domain helps little and, with a smaller $\lambda$, does no harm. As
# a way to answer questions it makes the right answer far more probable than the model alone does, and
# rarely the most probable one, since it continues an answer better than it begins one
# ({doc}`chapter 7 <07-side-by-side>`).
#
# ## Exercises
#
# <!-- exercise: ex-knn-pairs -->
# **Exercise.** Write the function that makes the pairs of one text. `tokens` [n] are its tokens, and `states[i]` [d] is
# the model's representation after it has read the tokens 0 to i. Return the keys and the values. How many
# pairs does a text of n tokens give?
#
# <!-- end of exercise -->


# %%
from exercises import knn_lm as check


def my_pairs(states, tokens):
    raise NotImplementedError


check.pairs(my_pairs)

# %% [markdown]
# <!-- solution: ex-knn-pairs -->
# <details>
# <summary>Solution</summary>
#
# `states[i]` represents the context that ends with token i, so its value is token i + 1. The last state
# has no next token, hence n - 1 pairs. (The package puts a start token in front, so that the first token
# has a context too.) The code is in `book/solutions/03-knn-lm.py`.
#
# </details>
#
# <!-- exercise: ex-knn-vote -->
# **Exercise.** Write equation {eq}`knn` for one context: from the keys [k, d] of its neighbours, their values [k], the
# query [d], the size of the vocabulary and the temperature, compute $p_{\text{kNN}}$ [V] in NumPy. It has
# to work for distances of several thousand, where $e^{-d}$ is zero in floating point.
#
# <!-- end of exercise -->


# %%
def my_vote(keys, values, query, vocab_size, temperature):
    raise NotImplementedError


check.vote(my_vote)

# %% [markdown]
# <!-- solution: ex-knn-vote -->
# <details>
# <summary>Solution</summary>
#
# Subtract the smallest distance from all of them before the exponential: the factor cancels in the
# normalisation, and the nearest neighbour then has the weight 1. Neighbours with the same token have to be
# added, which `np.add.at` does and `p[values] = weights` does not. The code is in
# `book/solutions/03-knn-lm.py`.
#
# </details>
#
# <!-- exercise: ex-knn-weight -->
# **Exercise.** Tune $\lambda$. From $\log p_{\text{LM}}$ and $\log p_{\text{kNN}}$ of the right token at each
# position, both [T], of which the second may be $-\infty$ and the first as low as -2000, return the one of `lams`
# with the lowest perplexity. Which $\lambda$ can never win if the memory's probability is zero at some position?
#
# <!-- end of exercise -->


# %%
def my_weight(lm_log_probs, knn_log_probs, lams):
    raise NotImplementedError


check.weight(my_weight)

# %% [markdown]
# <!-- solution: ex-knn-weight -->
# <details>
# <summary>Solution</summary>
#
# Probabilities are mixed, their logarithms averaged. `np.logaddexp` of the two logarithms, with
# $\log(1 - \lambda)$ and $\log \lambda$ added, never leaves the logarithms, so nothing underflows. With
# $\lambda = 1$ a token that no neighbour has gets probability zero, and the perplexity is infinite. The code is in
# `book/solutions/03-knn-lm.py`.
#
# </details>
#
# <!-- exercise: ex-knn-mass -->
# **Exercise.** Why is $p_{\text{kNN}}$ zero for most tokens, and why does that not matter after interpolation?
#
# <details>
# <summary>Solution</summary>
#
# Only tokens that followed one of the k neighbours get any mass. For $\lambda < 1$ the language
# model's share keeps every token possible.
#
# </details>
#
# <!-- exercise: ex-knn-temperature -->
# **Exercise.** Two neighbours at the squared distances 1 and 3 have different tokens. At which $\tau$ does the
# nearer one get three quarters of the vote? What happens to that share if all representations are multiplied by 10?
#
# <details>
# <summary>Solution</summary>
#
# $e^{2 / \tau} = 3$, so $\tau = 2 / \ln 3 = 1.82$. The squared distances become a hundred times as large, and the
# share $1 / (1 + e^{-110})$, which is 1 in floating point: a temperature belongs to the scale of the keys.
#
# </details>
#
# <!-- exercise: ex-knn-replace -->
# **Exercise.** Suppose that the datastore had been built by reading whole articles. What would have to be computed
# again if one passage of an article were replaced, and why not here?
#
# <details>
# <summary>Solution</summary>
#
# Besides its own rows, the keys of all later tokens with some of the passage in their window. Here each passage
# is read by itself, so only its own rows change.
#
# </details>

# %% [markdown]
# ## Where next
#
# * *In the paper:* section 4.2, where a model trained on 100 million tokens, with a memory of 3 billion, beats
#   one trained on all 3 billion, and section 5 on what keys, $k$, $\lambda$ and the size of the memory change.
# * *In this book:* {doc}`04-realm` reads passages instead of looking up tokens;
#   {doc}`08-changed-knowledge` removes and replaces what is stored.
# * *Later work:* RETRO {cite:p}`borgeaud2022retro` retrieves whole chunks and trains layers that attend to
#   them; {cite:t}`zhong2022trime` train the keys. {cite:t}`he2021efficient` make the search faster by skipping
#   it where it helps little and by storing fewer and shorter vectors. {cite:t}`xu2023why` ask why the memory
#   helps even if it holds only text that the model was trained on. {cite:t}`wang2023knnlm` find that a lower
#   perplexity does not make the generated text better.
