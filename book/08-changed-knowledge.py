# %% [markdown]
# # Knowledge that changes
#
# ## The problem
#
# Prime ministers change, records fall, countries take new names. A model that keeps its knowledge in
# its weights has to be trained again; a model that reads can be handed another page. This chapter
# swaps the index, leaves every weight as it is, and watches who follows.
#
# ## The idea
#
# Some of MiniWiki's articles exist in two dated editions, as the world stood at the end of 2012 and
# at the end of 2022. The same question then has two right answers, and which of them is right depends
# on nothing but the pages at hand.

# %%
import tempfile
from pathlib import Path

import numpy as np

from ragbook import figures, load_corpus, methods
from ragbook.corpus import Corpus, QuestionSet, miniwiki
from ragbook.evaluation import compare, exact_match
from ragbook.index import build_index
from ragbook.models import load_encoder
from ragbook.retrieval import DenseRetriever

pairs = miniwiki.changed_questions("dev")
editions = {"miniwiki-2012": [a for a, _ in pairs], "miniwiki": [b for _, b in pairs]}
print(len(pairs), "questions whose answer changed")
for earlier, current in pairs[:3]:
    print(f"{current.text}\n   2012: {earlier.answers[0]}\n   2022: {current.answers[0]}")

# %% [markdown]
# None of these questions, and none about another passage of the same articles, was seen in training:
# articles that exist in two editions belong to dev and test only.
#
# ## The mathematics
#
# Nothing in the methods' equations changes but the text of one $z$: retrieval finds it by
# $p(z \mid x)$ as before, and $p(y \mid x, z)$ is evaluated on the new words. Closed book has no $z$ at
# all, so its answer cannot change.
#
# ## The code
#
# Two indexes, one an edition. They hold every article that changed and some that did not, which keeps
# this page quick; `ragbook compare --corpus miniwiki-2012 --questions miniwiki-2012` searches all of
# them.

# %%
changing = {a.title for e in miniwiki.EDITIONS for a in miniwiki.articles(e) if a.changes}
folder = Path(tempfile.mkdtemp())
encoder, comparisons = load_encoder(), {}
for name, questions in editions.items():
    whole = load_corpus(name)
    others = [p for p in whole if p.title not in changing][:100]
    small = Corpus(name, [p for p in whole if p.title in changing] + others)
    index = build_index(small, folder / name, encoder, progress=False)
    retriever = DenseRetriever(index, encoder)
    comparisons[name] = compare(
        methods.load(methods.NAMES, retriever),
        QuestionSet(name, "dev", questions),
        k=5,
        progress=False,
    )
    print(f"{name:<14} {len(small)} passages")

# %% [markdown]
# ## The methods on the indexes
#
# Each method answers with each index, and each answer is marked twice: by what was right in 2012 and
# by what was right in 2022. A method follows its index if the first and the last column are high and
# the two in the middle are low.


# %% mystnb={"figure": {"caption": "Share of answers that match each edition, by the index that was searched. The methods say what their index says; closed book says neither.", "alt": "Heat map of right answers by method, index and edition of the answer"}}
def right(name: str, answers_of: str, method: str) -> float:
    """Share of the answers found in one edition's index that are right in another's."""
    texts = [p["methods"][method]["text"] for p in comparisons[name].predictions]
    asked = editions[answers_of]
    return float(np.mean([exact_match(t, q.answers) for t, q in zip(texts, asked, strict=True)]))


cells = [(i, a) for i in editions for a in editions]
table = np.array([[right(i, a, m) for i, a in cells] for m in methods.NAMES])
short = {"miniwiki-2012": "2012", "miniwiki": "2022"}
columns = [f"index {short[i]}, right in {short[a]}" for i, a in cells]
figures.heat_map(table, rows=list(methods.NAMES), columns=columns, label="share of answers")

# %%
for at in range(4):
    print(editions["miniwiki"][at].text)
    for name in methods.NAMES:
        then, now = (c.predictions[at]["methods"][name]["text"] for c in comparisons.values())
        print(f"   {name:<14} {then!r} -> {now!r}")

# %% [markdown]
# ## What moves it
#
# Reading, not memory. The readers have seen other people's names in training, and the encoder under
# them was trained on text in which the older facts are the commoner ones; where a method fails here
# it mostly names something else from its passages, and seldom the other edition's answer, which
# stands nowhere in its index unless another article mentions it.
#
# ## What the papers had
#
# {cite:t}`lewis2020rag` swap a 2016 for a 2018 index and ask about heads of state: with the matching
# index RAG answers about 70 % right, with the other one few.
#
# ## Exercises
#
# ```{exercise}
# :label: ex-delete
# Delete the changed passages instead of replacing them. What should each method say?
# ```
#
# ```{solution} ex-delete
# :class: dropdown
# REALM and the bundled reader can put mass on "not here", but they must answer; so they name
# something else from what was retrieved. Only a threshold on the probability would let them stay
# silent.
# ```
