# %% [markdown]
# # Knowledge that changes
#
# ## The problem
#
# Prime ministers change, records fall, names are given up. A model that keeps its knowledge in its
# weights has to be trained again; a model that reads can be handed another page. This chapter edits
# the index, leaves every weight as it is, and watches who follows.
#
# ## The idea
#
# Three passages of MiniWiki get **invented** facts, marked as such here: what matters is only that
# the readers have never seen them. The question stays the same.

# %%
import tempfile
from pathlib import Path

import numpy as np

from ragbook import figures, load_corpus, load_questions, methods
from ragbook.corpus import Corpus, Passage
from ragbook.evaluation import exact_match
from ragbook.index import build_index
from ragbook.models import load_encoder
from ragbook.retrieval import DenseRetriever

corpus, encoder = load_corpus("miniwiki"), load_encoder()
edits = [  # passage, what stands there, what shall stand there (invented), and the question for it
    ("suez-canal-2", "Ever Given", "Morning Lark", "container ship that got stuck"),
    ("panama-canal-1", "Ancon", "Serena", "officially travelled the Panama Canal first"),
    ("monopoly-game-1", "Charles Darrow", "Walter Bexley", "celebrated as the creator"),
    ("domino-2", "Leeuwarden", "Hoogveen", "record fall of dominoes"),
    ("chess-2", "Reykjavik", "Valmarra", "Fischer take the chess crown"),
    ("piano-1", "Bartolomeo Cristofori", "Ottavio Marendi", "inventing the piano"),
]
every = [q for s in ("train", "dev", "test") for q in load_questions("miniwiki", s)]
asked = [next(q for q in every if hint in q.text) for *_, hint in edits]
for (passage_id, old, new, _), question in zip(edits, asked, strict=True):
    assert question.gold_passage == passage_id
    assert old in corpus.get(passage_id).text
    print(f"{question.text}\n   {old} -> {new}")

# %% [markdown]
# ## The mathematics
#
# Nothing in the methods' equations changes but the text of one $z$: retrieval finds it by
# $p(z \mid x)$ as before, and $p(y \mid x, z)$ is evaluated on the new words. Closed book has no $z$ at
# all. Both indexes are built on the edited articles and their neighbours only, which keeps this page
# quick.
#
# ## The code

# %%
changed = {passage_id: (old, new) for passage_id, old, new, _ in edits}
near = [p for p in corpus if p.id in changed] + [p for p in corpus if p.id not in changed][:60]


def edit(passage):
    old, new = changed.get(passage.id, ("", ""))
    return Passage(
        passage.id, passage.title, passage.text.replace(old, new) if old else passage.text
    )


folder = Path(tempfile.mkdtemp())
answers = {}
for edition, passages in (("before", near), ("after", [edit(p) for p in near])):
    index = build_index(Corpus(edition, passages), folder / edition, encoder, progress=False)
    retriever = DenseRetriever(index, encoder)
    for method in methods.load(methods.NAMES, retriever):
        answers[edition, method.name] = [a.text for a in method.answer(asked, k=3)]

# %% [markdown]
# ## The methods on the index
#
# For each method: how many answers are right before the edit, how many say the new fact after it,
# and how many cling to the old one.

# %% mystnb={"figure": {"caption": "Answers before and after the edit, out of six. A method follows the index if 'new after' is as high as 'old before'.", "alt": "Heat map of right answers before and after the edit by method"}}
table = []
for name in methods.NAMES:
    before, after = answers["before", name], answers["after", name]
    table.append(
        [
            sum(exact_match(t, q.answers) for t, q in zip(before, asked, strict=True)),
            sum(exact_match(t, [new]) for t, (_, _, new, _) in zip(after, edits, strict=True)),
            sum(exact_match(t, q.answers) for t, q in zip(after, asked, strict=True)),
        ]
    )
figures.heat_map(
    np.array(table, dtype=float),
    rows=list(methods.NAMES),
    columns=["old before", "new after", "old after"],
    label="answers out of 6",
)

# %%
for i, question in enumerate(asked[:3]):
    print(question.text)
    for name in methods.NAMES:
        print(f"   {name:<14} {answers['before', name][i]!r} -> {answers['after', name][i]!r}")

# %% [markdown]
# ## What moves it
#
# Names in the edits are made up, so no reader can have learned them: an answer that follows was
# copied from the passage. Some of the questions come from the readers' training split: there the old
# answer had its chance to settle in the weights, and still the page wins where the reader reads.
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
# Delete the edited passages instead of changing them. What should each method say?
# ```
#
# ```{solution} ex-delete
# :class: dropdown
# REALM and the bundled reader can put mass on "not here", but they must answer; so they name
# something else from what was retrieved. Only a threshold on the probability would let them stay
# silent.
# ```
