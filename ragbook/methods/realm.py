r"""REALM: retrieve, then predict (Guu et al. 2020), in its open question answering form.

The answer's distribution is a sum over the passage \(z\) (equation 1),

\[ p(y \mid x) = \sum_{z} p(y \mid z, x)\, p(z \mid x), \qquad
   p(y \mid z, x) = \sum_{s \in S(z, y)} p(s \mid z, x), \]

with \(S(z, y)\) the spans of \(z\) that read \(y\) (section 3.2) and \(p(s \mid z, x)\) a softmax
over all spans of the passage. Spans are few enough to enumerate, so the distribution over answers
is computed exactly and the answer is its mode.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from ragbook.corpus import Question
from ragbook.methods.base import Answer, check, doc_log_probs, evidence, posterior
from ragbook.models import SpanReader
from ragbook.retrieval import Retrieved, Retriever


def marginal_log_prob(answer_log_probs: Tensor, doc_log_probs: Tensor) -> Tensor:
    r"""log p(y | x) = log sum_z p(z | x) p(y | z, x) (equation 1).

    The paper's form: the sum runs over passages with the whole answer's probability inside. (The
    released code sums for each masked token by itself.)

    Parameters
    ----------
    answer_log_probs: [B, n_docs], log p(y | z, x), nats; -inf where the passage does not hold y.
    doc_log_probs: [B, n_docs], log p(z | x), normalised.

    Returns
    -------
    [B], nats; -inf where no passage holds y.
    """
    return torch.logsumexp(answer_log_probs + doc_log_probs, dim=-1)


Strings = dict[tuple[int, ...], float]
"""p(y | z, x) of every string y of one passage, by its tokens."""

_Read = tuple[list[Retrieved], Tensor, list[list[Strings]], list[list[dict[tuple[int, ...], str]]]]


class Realm:
    """Spans of the retrieved passages, weighed by reader and retriever together."""

    name = "realm"

    def __init__(self, reader: SpanReader, retriever: Retriever) -> None:
        self.reader, self.retriever = reader, retriever
        self.parameters = reader.parameters
        self._last: tuple[object, _Read] | None = None

    def _read(self, questions: Sequence[Question], k: int) -> _Read:
        """For each question and passage: p(y | z, x) of every string y, and how y is written.

        The last call's result is kept, for questions that are answered and then scored.
        """
        check(questions, k)
        key = (tuple(questions), k)
        if self._last is None or self._last[0] != key:
            self._last = (key, self._enumerate(questions, k))
        return self._last[1]

    def _enumerate(self, questions: Sequence[Question], k: int) -> _Read:
        retrieved = self.retriever.retrieve(questions, k)
        rows = [(q.text, p) for q, r in zip(questions, retrieved, strict=True) for p in r.passages]
        inputs, log_probs = self.reader.span_log_probs([q for q, _ in rows], [p for _, p in rows])
        probs = log_probs.exp().tolist()
        strings: list[list[Strings]] = []
        places: list[list[dict[tuple[int, ...], str]]] = []
        row = 0
        for found in retrieved:
            strings.append([])
            places.append([])
            for _ in found.ids:
                tokens = inputs.tensors["input_ids"][row].tolist()
                offsets = inputs.offsets[row].tolist()
                inside = inputs.passage_mask[row].tolist()
                mass: Strings = defaultdict(float)
                place: dict[tuple[int, ...], str] = {}
                for start in range(len(tokens)):
                    for width, probability in enumerate(probs[row][start]):
                        end = start + width
                        if not inside[start] or end >= len(tokens) or not inside[end]:
                            break
                        key = tuple(tokens[start : end + 1])
                        mass[key] += probability
                        place.setdefault(
                            key, inputs.texts[row][offsets[start][0] : offsets[end][1]]
                        )
                strings[-1].append(mass)
                places[-1].append(place)
                row += 1
        return retrieved, doc_log_probs(retrieved, self.retriever.score_scale), strings, places

    @staticmethod
    def _answer_log_probs(
        strings: list[list[Strings]], keys: Sequence[tuple[int, ...]], n: int
    ) -> Tensor:
        """log p(y | z, x), [B, n]."""
        out = torch.full((len(strings), n), float("-inf"))
        for b, (per_passage, key) in enumerate(zip(strings, keys, strict=True)):
            for z, mass in enumerate(per_passage):
                if mass.get(key, 0.0) > 0:
                    out[b, z] = math.log(mass[key])
        return out

    def log_prob(self, questions: Sequence[Question], answers: Sequence[str], k: int = 5) -> Tensor:
        """log p(answer | question), float32 [B]; -inf where no passage holds the answer."""
        _, log_prior, strings, _ = self._read(questions, k)
        ids = self.reader.tokenizer(list(answers), add_special_tokens=False)["input_ids"]
        given = self._answer_log_probs(strings, [tuple(one) for one in ids], log_prior.shape[1])
        return marginal_log_prob(given, log_prior)

    def answer(self, questions: Sequence[Question], k: int = 5) -> list[Answer]:
        """The most probable string of all retrieved passages."""
        began = self.reader.pairs.clock()
        if not questions:
            return []
        retrieved, log_prior, strings, places = self._read(questions, k)
        best = []
        for prior, per_passage in zip(log_prior.exp().tolist(), strings, strict=True):
            total: dict[tuple[int, ...], float] = defaultdict(float)
            for weight, mass in zip(prior, per_passage, strict=False):
                for key, probability in mass.items():
                    total[key] += weight * probability
            best.append(max(total, key=lambda key: total[key]))
        given = self._answer_log_probs(strings, best, log_prior.shape[1])
        log_probs = marginal_log_prob(given, log_prior)
        weights = posterior(log_prior, given)
        seconds = (self.reader.pairs.clock() - began) / len(questions)
        answers = []
        for b, question in enumerate(questions):
            text = next(place[best[b]] for place in places[b] if best[b] in place)
            answers.append(
                Answer(
                    question.text,
                    text,
                    float(log_probs[b]),
                    evidence(retrieved[b], weights[b]),
                    seconds,
                )
            )
        return answers
