r"""The worked example of chapter 10, a method in forty lines: the answer is a passage's title.

It is RAG (Lewis et al. 2020, section 2.1) with a generator that has one thing to say about a
passage, its title:

\[ p(y \mid x) = \sum_z p(z \mid x)\, p(y \mid x, z), \qquad
   p(y \mid x, z) = \begin{cases} 1 & y = \mathrm{title}(z) \\ 0 & \text{else.} \end{cases} \]

Nothing is trained: what it gets right, retrieval alone gets right.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from ragbook.corpus import Question
from ragbook.methods.base import Answer, check, doc_log_probs, evidence, posterior
from ragbook.retrieval import Retrieved, Retriever


def title_log_probs(retrieved: Sequence[Retrieved], answers: Sequence[str]) -> Tensor:
    """log p(y | x, z): 0 where the answer is the passage's title, whatever its case, else -inf.

    Returns
    -------
    float32 [B, n_docs], -inf too where a question has fewer passages than others.
    """
    width = max(len(found.ids) for found in retrieved)
    out = torch.full((len(retrieved), width), float("-inf"))
    for row, (found, answer) in enumerate(zip(retrieved, answers, strict=True)):
        for column, passage in enumerate(found.passages):
            if passage.title.casefold() == answer.casefold():
                out[row, column] = 0.0
    return out


class Titles:
    """Answers with the likeliest title among the retrieved passages'."""

    name = "titles"
    parameters = 0

    def __init__(self, retriever: Retriever) -> None:
        self.retriever = retriever

    def log_prob(self, questions: Sequence[Question], answers: Sequence[str], k: int = 5) -> Tensor:
        """log p(answer | question), float32 [B]; -inf for what is no retrieved passage's title."""
        check(questions, k)
        if not questions:
            return torch.zeros(0)
        retrieved = self.retriever.retrieve(questions, k)
        prior = doc_log_probs(retrieved, self.retriever.score_scale)
        return (prior + title_log_probs(retrieved, answers)).logsumexp(-1)

    def answer(self, questions: Sequence[Question], k: int = 5) -> list[Answer]:
        """The most probable title, with the posterior over the passages as its evidence."""
        began = time.perf_counter()
        check(questions, k)
        if not questions:
            return []
        retrieved = self.retriever.retrieve(questions, k)
        prior = doc_log_probs(retrieved, self.retriever.score_scale)
        answers, log_probs = [], []
        for found, row in zip(retrieved, prior, strict=True):
            titles = list(dict.fromkeys(passage.title for passage in found.passages))
            scores = [title_log_probs([found], [t])[0] + row[: len(found.ids)] for t in titles]
            totals = torch.stack(scores).logsumexp(-1)
            answers.append(titles[int(totals.argmax())])
            log_probs.append(float(totals.max()))
        weights = posterior(prior, title_log_probs(retrieved, answers))
        seconds = (time.perf_counter() - began) / len(questions)
        return [
            Answer(question.text, text, log_prob, evidence(found, row), seconds)
            for question, text, log_prob, found, row in zip(
                questions, answers, log_probs, retrieved, weights, strict=True
            )
        ]
