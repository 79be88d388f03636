"""What the methods share: an answer with its evidence, the interface, Bayes' rule over passages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from ragbook.corpus import Passage, Question
from ragbook.errors import InputError
from ragbook.methods.decoding import Hypothesis, Verbatim
from ragbook.methods.remembering import Remembers
from ragbook.models import LanguageModel
from ragbook.models.answers import detokenize
from ragbook.models.generator import Generator, Memory
from ragbook.retrieval import Retrieved, Retriever


@dataclass(frozen=True)
class Evidence:
    """How much of an answer came from one passage; the weights of an answer sum to 1."""

    passage_id: str
    weight: float


@dataclass(frozen=True)
class TokenEvidence:
    """How much of one token of an answer came from each passage, heaviest first; the weights of a
    token sum to 1. `token` is its text, that of a special token included."""

    token: str
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True)
class Answer:
    """A method's answer to one question.

    `log_prob` is log p(text | question) under the method, in nats; `seconds` the wall-clock time
    the question took, retrieval included (a batch's time is shared equally by its questions).
    `truncated` says that a generated answer would have gone on, and was closed because it had
    reached the greatest length; see `Hypothesis`. `token_evidence` is that of every token of the
    answer, the end token last, for a method in which each has its own; None for the others.
    """

    question: str
    text: str
    log_prob: float
    evidence: tuple[Evidence, ...]
    seconds: float
    truncated: bool = False
    token_evidence: tuple[TokenEvidence, ...] | None = None


class Method(Protocol):
    """The interface of every method.

    `name` stands for the method in every table; `parameters` is the number of its model's weights.
    """

    name: str
    parameters: int

    @property
    def retriever(self) -> Retriever | None:
        """Where the passages come from; None for a method that retrieves nothing."""
        ...

    def answer(self, questions: Sequence[Question], k: int = 5) -> list[Answer]:
        """Answer from the k best passages."""
        ...

    def log_prob(self, questions: Sequence[Question], answers: Sequence[str], k: int = 5) -> Tensor:
        """log p(answer | question), natural logarithm, float32 [batch]."""
        ...


def posterior(doc_log_probs: Tensor, answer_log_probs: Tensor) -> Tensor:
    r"""Which passage an answer came from: Bayes' rule over the retrieved passages,

    \[ p(z \mid x, y) =
       \frac{p(z \mid x)\, p(y \mid x, z)}{\sum_{z'} p(z' \mid x)\, p(y \mid x, z')}. \]

    Parameters
    ----------
    doc_log_probs: [B, n_docs], log p(z | x), natural logarithm.
    answer_log_probs: [B, n_docs], log p(y | x, z) of the whole answer.

    Returns
    -------
    [B, n_docs] in the inputs' dtype; rows sum to 1. Where no passage gives the answer any
    probability there is no posterior, and the row is the prior.
    """
    joint = doc_log_probs + answer_log_probs
    impossible = torch.isneginf(joint).all(-1, keepdim=True)
    return torch.softmax(torch.where(impossible, doc_log_probs, joint), dim=-1)


def doc_log_probs(retrieved: Sequence[Retrieved], score_scale: float) -> Tensor:
    r"""log p(z | x) over each question's retrieved passages (Lewis et al. 2020, section 2.2).

    A softmax of `score_scale` times the retriever's scores; the scale is the one the encoder was
    trained with.

    Parameters
    ----------
    retrieved: the passages and scores of B questions, n_docs passages at most.
    score_scale: factor of the scores; see `Retriever`.

    Returns
    -------
    float32 [B, n_docs], nats; a row with fewer passages ends with -inf.

    Raises
    ------
    InputError: a question has no passage at all.
    """
    _check_found(retrieved)
    width = max(len(r.ids) for r in retrieved)
    scores = torch.full((len(retrieved), width), float("-inf"))
    for row, found in enumerate(retrieved):
        scores[row, : len(found.ids)] = torch.from_numpy(found.scores) * score_scale
    return torch.log_softmax(scores, dim=-1)


class GenerativeMethod(Remembers):
    """What the methods share that write an answer from retrieved passages with a generator; their
    own docstrings say what the parameters mean."""

    def __init__(
        self,
        reader: Generator[Any],
        retriever: Retriever,
        beams: int = 2,
        max_length: int = 16,
        verbatim: bool = False,
        length_penalty: float = 0.0,
    ) -> None:
        check_length(reader, max_length)
        self.reader, self.retriever = reader, retriever
        self.beams, self.max_length, self.verbatim = beams, max_length, verbatim
        self.length_penalty = length_penalty
        self.parameters = reader.parameters

    def _retrieve(self, questions: Sequence[Question], k: int) -> list[Retrieved]:
        """At least one passage for each question.

        Raises
        ------
        InputError: a question is empty, k < 1, or nothing was retrieved for a question.
        """
        check(questions, k)
        retrieved = self.retriever.retrieve(questions, k)
        _check_found(retrieved)
        return retrieved

    def _read_apart(
        self,
        questions: Sequence[Question],
        k: int,
        later: Callable[[Memory], float] = lambda _: 0.0,
    ) -> tuple[list[Retrieved], Memory]:
        """What was retrieved, and a memory in which each passage was read by itself: the same for
        all methods with one retriever and one reader. `later` gives the seconds of work on it that
        the method needs as well and another may have done."""

        def anew() -> tuple[list[Retrieved], Memory]:
            retrieved = self._retrieve(questions, k)
            return retrieved, self.reader.read(questions, [r.passages for r in retrieved])

        what = ("apart", id(self.reader), id(self.retriever))
        return self._once(what, questions, k, anew, lambda read: later(read[1]))

    def _clock(self) -> float:
        """The same by the reader's clock; see `ragbook.models.generator.Generator.clock`."""
        return self.reader.clock() + self._saved


def check_length(model: Any, max_length: int) -> None:
    """Raise InputError if a model has no places for answers of `max_length` tokens."""
    longest = getattr(model, "longest_answer", None)
    if longest is not None and max_length >= longest:
        raise InputError(
            f"{model.name} has places for answers of at most {longest - 1} tokens, not {max_length}"
            f"; choose a --max-length of at most {longest - 1}."
        )


def _check_found(retrieved: Sequence[Retrieved]) -> None:
    for number, found in enumerate(retrieved, 1):
        if not found.ids:
            raise InputError(f"nothing was retrieved for question {number}; search another index")


def check(questions: Sequence[Question], k: int) -> None:
    """Raise InputError for an empty question or k < 1."""
    if k < 1:
        raise InputError(f"k must be at least 1, not {k}")
    for number, question in enumerate(questions, 1):
        if not question.text.strip():
            raise InputError(f"question {number} is empty; give it some words")


def evidence(retrieved: Retrieved, weights: Tensor) -> tuple[Evidence, ...]:
    """Pair the passages with their weights, heaviest first.

    `weights` is float [n], with n at least the number of passages; the rest of it is ignored.
    """
    pairs = zip(retrieved.ids, weights.tolist(), strict=False)
    return tuple(Evidence(*pair) for pair in sorted(pairs, key=lambda p: -p[1]))


def held_to(
    model: Generator[Any] | LanguageModel, shown: Sequence[Sequence[Passage]], verbatim: bool
) -> list[Verbatim] | None:
    """The argument `allowed` of `beam_search`: with `verbatim`, each row's answer may only be taken
    from the passages that `shown` lists for that row; otherwise None."""
    decode = partial(detokenize, model.tokenizer)
    return [Verbatim(model.runs, p, model.end, decode) for p in shown] if verbatim else None


def written_answer(
    question: Question,
    hypothesis: Hypothesis,
    retrieved: Retrieved,
    weights: Tensor,
    tokenizer: Any,
    seconds: float,
) -> Answer:
    """A generated answer, spelled as in the heaviest passage that contains it.

    `weights` is float [n], the weight of each retrieved passage; see `evidence`.
    """
    weighed = evidence(retrieved, weights)
    by_id = dict(zip(retrieved.ids, retrieved.passages, strict=True))
    passages = [by_id[one.passage_id] for one in weighed]
    text = detokenize(tokenizer, hypothesis.tokens, passages)
    log_prob, truncated = hypothesis.log_prob, hypothesis.truncated
    return Answer(question.text, text, log_prob, weighed, seconds, truncated)
