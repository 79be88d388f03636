r"""REALM: retrieve, then predict (Guu et al. 2020), masked words and open question answering.

The answer's distribution is a sum over the passage \(z\) (equation 1),

\[ p(y \mid x) = \sum_{z} p(y \mid z, x)\, p(z \mid x). \]

In pre-training \(x\) is a sentence with a hidden span \(y\), and \(p(y \mid z, x)\) is the product
of \(p(y_j \mid z, x)\) over its tokens (`ragbook.models.masked`). In question answering \(y\) is a
string and

\[ p(y \mid z, x) = \sum_{s \in S(z, y)} p(s \mid z, x), \]

with \(S(z, y)\) the spans of \(z\) that read \(y\) (section 3.2) and \(p(s \mid z, x)\) a softmax
over all spans of the passage. Spans are few enough to enumerate, so the distribution over answers
is computed exactly and the answer is its mode. ORQA (Lee et al. 2019, section 4), whose released
code REALM's fine-tuning is, has one softmax over passages and spans together instead: see `joint`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ragbook.corpus import Question
from ragbook.errors import InputError
from ragbook.methods.base import (
    Answer,
    check,
    doc_log_probs,
    evidence,
    posterior,
)
from ragbook.methods.leave_one_out import check_leaves_some, losses, prior_without_each
from ragbook.models import SpanReader
from ragbook.models.prompts import Inputs
from ragbook.models.sharing import one_at_a_time
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


def masked_log_prob(
    token_log_probs: Tensor, doc_log_probs: Tensor, mask: Tensor, form: str = "answer"
) -> Tensor:
    r"""log p(y | x) of hidden tokens, with the sum over passages in one of two places.

    * `answer`, the paper (equation 1): one passage explains all hidden tokens,
      \(\log \sum_z p(z \mid x) \prod_j p(y_j \mid z, x)\);
    * `token`, the released code: each token has a sum of its own,
      \(\sum_j \log \sum_z p(z \mid x)\, p(y_j \mid z, x)\). (The code then divides by the number
      of hidden tokens in the batch; this does not.)

    With one hidden token, or with one passage, the two are the same.

    Parameters
    ----------
    token_log_probs: [B, n_docs, T], log p(y_j | z, x), nats.
    doc_log_probs: [B, n_docs], log p(z | x), normalised.
    mask: bool [B, T], true on the hidden tokens, false on padding.

    Returns
    -------
    [B], nats.

    Raises
    ------
    InputError: `form` is neither `answer` nor `token`.
    """
    if form not in FORMS:
        raise InputError(f"there is no marginal {form!r}; choose from {', '.join(FORMS)}")
    own = token_log_probs * mask[:, None]
    if form == "answer":
        return marginal_log_prob(own.sum(-1), doc_log_probs)
    return torch.logsumexp(own + doc_log_probs[:, :, None], dim=1).masked_fill(~mask, 0).sum(-1)


def score_gradient(answer_log_probs: Tensor, doc_log_probs: Tensor) -> Tensor:
    r"""The gradient of log p(y | x) by each passage's score f(x, z) (appendix A of the paper):

    \[ r(z) = \left[\frac{p(y \mid z, x)}{p(y \mid x)} - 1\right] p(z \mid x)
           = p(z \mid x, y) - p(z \mid x). \]

    It is positive for a passage that predicts the answer better than the passages do on average,
    and the gradients of one question sum to 0. Parameters as in `marginal_log_prob`; returns
    [B, n_docs].
    """
    log_prob = marginal_log_prob(answer_log_probs, doc_log_probs)[:, None]
    return ((answer_log_probs - log_prob).exp() - 1) * doc_log_probs.exp()


def retrieval_utility(answer_log_probs: Tensor, null_log_prob: Tensor) -> Tensor:
    """RU(z | x) = log p(y | z, x) - log p(y | null, x), nats (section 4.4): how much likelier a
    passage makes the answer than the null document does.

    Parameters
    ----------
    answer_log_probs: [B, n_docs], log p(y | z, x).
    null_log_prob: [B], log p(y | null, x).

    Returns
    -------
    [B, n_docs].
    """
    return answer_log_probs - null_log_prob[:, None]


def joint(span_scores: Tensor, doc_scores: Tensor) -> tuple[Tensor, Tensor]:
    r"""ORQA's softmax over passages and spans together, as a prior and a reader:

    \[ p(z, s \mid x) =
       \frac{\exp(f(x, z) + g(x, z, s))}{\sum_{z', s'} \exp(f(x, z') + g(x, z', s'))}
       = p(s \mid z, x)\; p'(z \mid x), \qquad
       p'(z \mid x) \propto e^{f(x, z)} \sum_s e^{g(x, z, s)}. \]

    REALM's \(p(z \mid x)\) depends on the retriever alone; \(p'(z \mid x)\) also on the scores of
    the passage's spans, so that a passage in which nothing looks like an answer counts less.

    Parameters
    ----------
    span_scores: [B, n_docs, S], g; -inf where there is no span.
    doc_scores: [B, n_docs], f, up to a constant for each question.

    Returns
    -------
    (log p(s | z, x) [B, n_docs, S], log p'(z | x) [B, n_docs]).
    """
    total = span_scores.logsumexp(-1)
    return span_scores - total[..., None], (doc_scores + total).log_softmax(-1)


FORMS = ("answer", "token")
"""Where the sum over passages stands: see `masked_log_prob`."""

Strings = dict[tuple[int, ...], float]
"""p(y | z, x) of every string y of one passage, by its tokens."""

_Read = tuple[list[Retrieved], Tensor, list[list[Strings]], list[list[dict[tuple[int, ...], str]]]]


@dataclass(frozen=True)
class Span:
    """A span of a retrieved passage: the characters `start` to `end` of the passage as it is read,
    title first (:func:`ragbook.models.prompts.passage_text`), which say `text`; `probability` is
    p(z | x) p(s | z, x)."""

    passage_id: str
    start: int
    end: int
    text: str
    probability: float


class Realm:
    """Spans of the retrieved passages, weighed by reader and retriever together.

    Parameters
    ----------
    reader: scores the spans of each passage.
    retriever: gives the passages and their prior.
    orqa: one softmax over passages and spans, for a reader that was trained with it (see `joint`).
        The span at [CLS], "the answer is not here", is then left out.
    """

    name = "realm"

    def __init__(self, reader: SpanReader, retriever: Retriever, orqa: bool = False) -> None:
        self.reader, self.retriever, self.orqa = reader, retriever, orqa
        self.parameters = reader.parameters
        self._last: tuple[object, _Read] | None = None

    def _read(self, questions: Sequence[Question], k: int) -> _Read:
        """For each question and passage: p(y | z, x) of every string y, and how y is written.

        The last call's result is kept, as the same questions are often answered and then scored.
        """
        check(questions, k)
        key = (tuple(questions), k)
        if self._last is None or self._last[0] != key:
            self._last = (key, self._enumerate(questions, k))
        return self._last[1]

    def _scored(
        self, questions: Sequence[Question], k: int
    ) -> tuple[list[Retrieved], Tensor, Inputs, Tensor]:
        """The passages, log p(z | x), the tokenised pairs of all questions one after the other, and
        log p(s | z, x) of the spans of each pair."""
        retrieved = self.retriever.retrieve(questions, k)
        rows = [(q.text, p) for q, r in zip(questions, retrieved, strict=True) for p in r.passages]
        texts, passages = [q for q, _ in rows], [p for _, p in rows]
        log_prior = doc_log_probs(retrieved, self.retriever.score_scale)
        if self.orqa:
            inputs, scores = self.reader.span_scores(texts, passages)
            scores[:, 0, 0] = float("-inf")
            there = log_prior.isfinite()
            wide = torch.full((*there.shape, scores[0].numel()), float("-inf"))
            wide[..., 0] = 0.0  # for the padding of a row with fewer passages; its prior is 0
            wide[there] = scores.flatten(1)
            log_probs, log_prior = joint(wide, log_prior)
            log_probs = log_probs[there].reshape(scores.shape)
        else:
            inputs, log_probs = self.reader.span_log_probs(texts, passages)
        return retrieved, log_prior, inputs, log_probs

    @one_at_a_time
    def spans(self, question: Question, k: int = 5, count: int = 10) -> list[Span]:
        """The `count` most probable spans of a question's passages, best first. Spans that read
        alike are not summed, and "the answer is not here" is none."""
        check([question], k)
        (found,), log_prior, inputs, log_probs = self._scored([question], k)
        log_probs = log_probs.clone()
        log_probs[:, 0, 0] = float("-inf")
        joined = (log_prior[0, : len(found.ids), None, None] + log_probs).exp()
        best, at = joined.flatten().topk(min(count, joined.numel()))
        out = []
        for probability, place in zip(best.tolist(), at.tolist(), strict=True):
            z, within = divmod(place, joined[0].numel())
            first, more = divmod(within, joined.shape[2])
            if probability <= 0:
                break
            offsets = inputs.offsets[z]
            start, end = int(offsets[first, 0]), int(offsets[first + more, 1])
            text = inputs.texts[z][start:end]
            out.append(Span(found.ids[z], start, end, text, probability))
        return out

    def _enumerate(self, questions: Sequence[Question], k: int) -> _Read:
        retrieved, log_prior, inputs, log_probs = self._scored(questions, k)
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
                        if key not in place:
                            place[key] = inputs.texts[row][offsets[start][0] : offsets[end][1]]
                strings[-1].append(mass)
                places[-1].append(place)
                row += 1
        return retrieved, log_prior, strings, places

    @staticmethod
    def _answer_log_probs(
        strings: list[list[Strings]], keys: Sequence[tuple[int, ...]], n: int
    ) -> Tensor:
        """log p(y | z, x) of one string for each question, float32 [B, n]."""
        out = torch.full((len(strings), n), float("-inf"))
        for b, (per_passage, key) in enumerate(zip(strings, keys, strict=True)):
            for z, mass in enumerate(per_passage):
                if mass.get(key, 0.0) > 0:
                    out[b, z] = math.log(mass[key])
        return out

    @one_at_a_time
    def log_prob(self, questions: Sequence[Question], answers: Sequence[str], k: int = 5) -> Tensor:
        """log p(answer | question), nats, float32 [B]; -inf where no passage holds the answer."""
        check(questions, k)
        if not questions:
            return torch.zeros(0)
        _, log_prior, strings, _ = self._read(questions, k)
        ids = self.reader.tokenizer(list(answers), add_special_tokens=False)["input_ids"]
        given = self._answer_log_probs(strings, [tuple(one) for one in ids], log_prior.shape[1])
        return marginal_log_prob(given, log_prior)

    @one_at_a_time
    def leave_one_out(
        self, questions: Sequence[Question], answers: Sequence[str], k: int = 5
    ) -> Tensor:
        """How much the answer's log-likelihood falls without each passage: log p(y | x) minus that
        with the passage struck out and the prior renormalised over the rest. Nothing is read again.

        Returns
        -------
        float32 [B, n], nats, below 0 where the answer is likelier without the passage; +inf where
        only that passage holds the answer, 0 where no passage does; -inf where a question has fewer
        than n passages.

        Raises
        ------
        InputError: a question has a single passage, so that nothing would be left.
        """
        check(questions, k)
        if not questions:
            return torch.zeros(0, 0)
        retrieved, log_prior, strings, _ = self._read(questions, k)
        check_leaves_some(retrieved)
        ids = self.reader.tokenizer(list(answers), add_special_tokens=False)["input_ids"]
        given = self._answer_log_probs(strings, [tuple(one) for one in ids], log_prior.shape[1])
        without = marginal_log_prob(given[:, None], prior_without_each(log_prior))
        return losses(marginal_log_prob(given, log_prior), without, log_prior)

    @one_at_a_time
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
