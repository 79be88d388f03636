r"""The worked example of chapter 10, a whole method: the answer is one of the passages' names.

It is RAG (Lewis et al. 2020, section 2.1) with the simplest possible generator, which gives each
name and date of a passage the same probability, except those that are in the question:

\[ p(y \mid x) = \sum_z p(z \mid x)\, p(y \mid x, z), \qquad
   p(y \mid x, z) =
   \frac{\#\{\text{names of } z \text{ that read } y\}}{\#\{\text{names of } z\}}. \]

Nothing is trained: its right answers come from retrieval and counting alone.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from ragbook.corpus import Passage, Question
from ragbook.corpus.salient import SalientSpans, sentences
from ragbook.methods.base import (
    Answer,
    check,
    doc_log_probs,
    evidence,
    posterior,
)
from ragbook.retrieval import Retrieved, Retriever


def names(question: str, passages: Sequence[Passage]) -> list[Counter[str]]:
    """For each passage, how often each name and date occurs in its text (not in its title), without
    those that the question holds."""
    spans = SalientSpans(passage.text for passage in passages)
    out = []
    for passage in passages:
        parts = [
            passage.text[first:last] for first, last in sentences(passage.text)
        ]
        found = [
            part[first:last] for part in parts for first, last in spans(part)
        ]
        out.append(
            Counter(
                name for name in found if name.lower() not in question.lower()
            )
        )
    return out


def name_log_probs(counted: Sequence[Counter[str]], answer: str) -> Tensor:
    """log p(y | x, z) of one answer for each passage, float32 [n_docs]; -inf where the answer is
    not one of the passage's names (upper and lower case do not matter)."""
    shares = [
        sum(n for name, n in counts.items() if name.lower() == answer.lower())
        / max(counts.total(), 1)
        for counts in counted
    ]
    return torch.tensor(shares).log()


class Names:
    """Answers with the likeliest name or date of the retrieved passages."""

    name = "names"
    parameters = 0

    def __init__(self, retriever: Retriever) -> None:
        self.retriever = retriever

    def log_prob(
        self, questions: Sequence[Question], answers: Sequence[str], k: int = 5
    ) -> Tensor:
        """log p(answer | question), float32 [B]; -inf if no passage has the answer as a name."""
        return torch.tensor(
            [
                float((prior + name_log_probs(counted, answer)).logsumexp(-1))
                for (_, prior, counted), answer in zip(
                    self._read(questions, k), answers, strict=True
                )
            ]
        )

    def answer(self, questions: Sequence[Question], k: int = 5) -> list[Answer]:
        """The most probable name, with the posterior over the passages as its evidence. If they
        hold no name, the answer is an empty text of probability 0."""
        began = time.perf_counter()
        found: list[tuple[str, float, Retrieved, Tensor]] = []
        for retrieved, prior, counted in self._read(questions, k):
            scores = {
                name: float(
                    (prior + name_log_probs(counted, name)).logsumexp(-1)
                )
                for name in dict.fromkeys(
                    name for counts in counted for name in counts
                )
            }
            best = max(scores, key=lambda name: scores[name], default="")
            weights = posterior(
                prior[None], name_log_probs(counted, best)[None]
            )[0]
            found.append(
                (best, scores.get(best, float("-inf")), retrieved, weights)
            )
        seconds = (time.perf_counter() - began) / max(len(questions), 1)
        return [
            Answer(
                question.text,
                text,
                log_prob,
                evidence(retrieved, weights),
                seconds,
            )
            for question, (text, log_prob, retrieved, weights) in zip(
                questions, found, strict=True
            )
        ]

    def _read(
        self, questions: Sequence[Question], k: int
    ) -> list[tuple[Retrieved, Tensor, list[Counter[str]]]]:
        """Each question's passages, log p(z | x) over them, and their names."""
        check(questions, k)
        if not questions:
            return []
        retrieved = self.retriever.retrieve(questions, k)
        prior = doc_log_probs(retrieved, self.retriever.score_scale)
        return [
            (one, row[: len(one.ids)], names(question.text, one.passages))
            for question, one, row in zip(
                questions, retrieved, prior, strict=True
            )
        ]
