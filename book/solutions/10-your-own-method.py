# %% [markdown]
# # Your own method: solutions
#
# Solutions of the exercises of chapter 10 that are code.

# %%
import time

import torch
from exercises import your_own_method as check

from ragbook.methods.base import Answer, doc_log_probs, evidence

# %% [markdown]
# ## A method that answers with titles
#
# The joint probability of a title and a passage is the prior if the passage has the title, and 0 otherwise. Its sum is
# $p(y \mid x)$, and its normalised values are the posterior.


# %%
class MyTitles:
    """Answers with the likeliest title."""

    name = "titles"
    parameters = 0

    def __init__(self, retriever):
        self.retriever = retriever

    def _joint(self, retrieved, prior, title):
        """log p(z | x) p(title | x, z), [n]."""
        same = torch.tensor([p.title == title for p in retrieved.passages])
        return prior[: len(same)].masked_fill(~same, float("-inf"))

    def _read(self, questions, k):
        retrieved = self.retriever.retrieve(questions, k)
        prior = doc_log_probs(retrieved, self.retriever.score_scale)
        return zip(retrieved, prior, strict=True)

    def answer(self, questions, k=5):
        """An Answer for each question."""
        began, out = time.perf_counter(), []
        for question, (found, prior) in zip(
            questions, self._read(questions, k), strict=True
        ):
            joint = {
                p.title: self._joint(found, prior, p.title)
                for p in found.passages
            }
            title = max(joint, key=lambda t: joint[t].logsumexp(-1))
            log_prob = float(joint[title].logsumexp(-1))
            shares = evidence(found, joint[title].softmax(-1))
            seconds = (time.perf_counter() - began) / len(questions)
            out.append(Answer(question.text, title, log_prob, shares, seconds))
        return out

    def log_prob(self, questions, answers, k=5):
        """log p(answer | question), float32 [B]."""
        return torch.stack(
            [
                self._joint(found, prior, answer).logsumexp(-1)
                for (found, prior), answer in zip(
                    self._read(questions, k), answers, strict=True
                )
            ]
        )


check.titles(MyTitles)

# %% [markdown]
# ## A factor for the kind of name
#
# The weighted counts are divided by their own sum, so that $p(y \mid x, z)$ sums to 1 over the names of the passage.


# %%
def my_shares(counts, factor):
    """How often each name occurs, and its factor (a dict; 1 if it has
    none) -> p(y | x, z) of each name (a dict)."""
    weights = {name: n * factor.get(name, 1) for name, n in counts.items()}
    return {name: w / sum(weights.values()) for name, w in weights.items()}


check.weighted(my_shares)
