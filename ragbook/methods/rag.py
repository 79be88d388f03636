r"""Retrieval-augmented generation: RAG-Sequence and RAG-Token (Lewis et al. 2020).

A passage \(z\) is a latent variable with prior \(p(z \mid x)\) from the retriever; the generator
gives \(p(y_t \mid x, z, y_{<t})\). The two models differ in where the sum over passages stands
(section 2.1):

\[ p_{\text{Sequence}}(y \mid x) = \sum_z p(z \mid x) \prod_t p(y_t \mid x, z, y_{<t}), \qquad
   p_{\text{Token}}(y \mid x) = \prod_t \sum_z p(z \mid x)\, p(y_t \mid x, z, y_{<t}). \]

RAG-Sequence commits to one passage for the whole answer, RAG-Token may change it at every token.
So the first has one posterior over the passages, and the second one for each token (`posterior`,
`token_posterior`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ragbook.corpus import Question
from ragbook.methods.base import (
    Answer,
    GenerativeMethod,
    TokenEvidence,
    check,
    doc_log_probs,
    evidence,
    held_to,
    posterior,
    written_answer,
)
from ragbook.methods.decoding import Hypothesis, Verbatim, beam_search, share
from ragbook.methods.leave_one_out import check_leaves_some, losses, prior_without_each
from ragbook.methods.rescoring import complete
from ragbook.models.generator import Generator, Memory, labels_of, pad_labels
from ragbook.models.sharing import one_at_a_time
from ragbook.retrieval import Retrieved, Retriever


def _answer_log_probs(token_log_probs: Tensor, mask: Tensor) -> Tensor:
    """log p(y | x, z): the sum over the answer's own tokens, [B, n_docs]."""
    return torch.where(mask.bool()[:, None, :], token_log_probs, 0.0).sum(-1)


def sequence_log_prob(
    token_log_probs: Tensor,
    doc_log_probs: Tensor,
    mask: Tensor,
) -> Tensor:
    r"""log p_Sequence(y | x): the sum over passages stands outside the product over tokens.

    Each passage's prior is counted once, however many tokens the target has.

    Parameters
    ----------
    token_log_probs: [B, n_docs, T], log p(y_t | x, z, y_<t) of the target's tokens, nats.
    doc_log_probs: [B, n_docs], log p(z | x), normalised over the passages; -inf on padding.
    mask: [B, T], 1 (or True) on the target's tokens, 0 on padding, whose values are ignored.

    Returns
    -------
    [B], nats; 0 for a target without tokens.
    """
    given = _answer_log_probs(token_log_probs, mask)  # [B, n_docs]
    return torch.logsumexp(doc_log_probs + given, dim=-1)


def token_log_prob(
    token_log_probs: Tensor,
    doc_log_probs: Tensor,
    mask: Tensor,
) -> Tensor:
    r"""log p_Token(y | x): the sum over passages stands inside the product, at every token.

    Parameters and result as in `sequence_log_prob`.
    """
    # The padding is replaced before the sum, so that no gradient flows into it.
    own = torch.where(mask.bool()[:, None, :], token_log_probs, 0.0)
    marginal = torch.logsumexp(doc_log_probs[:, :, None] + own, dim=1)  # [B, T]
    return torch.where(mask.bool(), marginal, 0.0).sum(-1)


def token_posterior(token_log_probs: Tensor, doc_log_probs: Tensor) -> Tensor:
    r"""Which passage RAG-Token took each token from:

    \[ p(z_t \mid x, y_{\le t}) \propto p(z_t \mid x)\, p(y_t \mid x, z_t, y_{<t}). \]

    Parameters
    ----------
    token_log_probs, doc_log_probs: [B, n_docs, T] and [B, n_docs], as in `sequence_log_prob`.

    Returns
    -------
    [B, n_docs, T], sums to 1 over the passages.
    """
    return torch.softmax(doc_log_probs[:, :, None] + token_log_probs, dim=1)


def elbo(q: Tensor, doc_log_probs: Tensor, answer_log_probs: Tensor) -> Tensor:
    r"""The evidence lower bound of log p_Sequence(y | x) for any distribution q over the passages,

    \[ \mathbb{E}_q\left[\log \frac{p(z \mid x)\, p(y \mid x, z)}{q(z)}\right]
       = \log p(y \mid x) - \mathrm{KL}\left(q \,\|\, p(z \mid x, y)\right). \]

    Parameters
    ----------
    q: [B, n_docs], rows sum to 1.
    doc_log_probs: [B, n_docs], log p(z | x).
    answer_log_probs: [B, n_docs], log p(y | x, z) of the whole answer.

    Returns
    -------
    [B], nats; -inf where q gives weight to a passage that cannot have given the answer.
    """
    terms = q * (doc_log_probs + answer_log_probs - q.log())
    return torch.where(q > 0, terms, 0.0).sum(-1)


def elbo_gap(q: Tensor, doc_log_probs: Tensor, answer_log_probs: Tensor) -> Tensor:
    """KL(q || p(z | x, y)) [B], nats, the difference between log p(y | x) and `elbo`; parameters as
    in `elbo`."""
    log_posterior = torch.log_softmax(doc_log_probs + answer_log_probs, dim=-1)
    return torch.where(q > 0, q * (q.log() - log_posterior), 0.0).sum(-1)


@dataclass(frozen=True)
class Candidate:
    """An answer that was scored under every passage.

    `tokens` without start and end; `log_prob` is log p(y | x) under the model, `given`
    log p(y | x, z) of each passage, float32 [n_docs]. `truncated` is that of `Hypothesis`; an
    answer that ended by itself in the beam of at least one passage is not. Under RAG-Token
    `token_given` is log p(y_t | x, z, y_<t), float32 [n_docs, T], of its tokens and the end token.
    """

    tokens: tuple[int, ...]
    log_prob: float
    given: Tensor
    truncated: bool = False
    token_given: Tensor | None = None


@dataclass(frozen=True)
class _PerPassage:
    """What was retrieved for B questions and read once, n passages each."""

    retrieved: list[Retrieved]
    log_prior: Tensor  # log p(z | x), float32 [B, n]; -inf where a question has fewer passages
    memory: Memory  # of B * n inputs


def _token_log_probs(
    reader: Generator[Any], read: _PerPassage, labels: Tensor, owner: Tensor
) -> Tensor:
    """log p(y_t | x, z, y_<t), [C, n, T], of labels [C, T] under every passage of the question that
    `owner`, int64 [C], names."""
    n = read.log_prior.shape[1]
    rows = (owner[:, None] * n + torch.arange(n)).flatten()
    found = reader.token_log_probs(read.memory, labels.repeat_interleave(n, 0), rows)
    return found.reshape(len(labels), n, -1)


class _Rag(GenerativeMethod, ABC):
    """What both models share: retrieve, read each (question, passage) once, weigh by Bayes."""

    name: str
    _marginal: Callable[[Tensor, Tensor, Tensor], Tensor]

    @one_at_a_time
    def log_prob(self, questions: Sequence[Question], answers: Sequence[str], k: int = 5) -> Tensor:
        """log p(answer | question), nats, float32 [B]."""
        check(questions, k)
        if not questions:
            return torch.zeros(0)
        read = self._read(questions, k)
        labels = labels_of(self.reader, answers)
        each = _token_log_probs(self.reader, read, labels, torch.arange(len(labels)))
        return self._marginal(each, read.log_prior, labels != -100)

    @one_at_a_time
    def leave_one_out(
        self, questions: Sequence[Question], answers: Sequence[str], k: int = 5
    ) -> Tensor:
        """How much the answer's log-likelihood falls without each passage: log p(y | x) minus that
        with the passage struck out and the prior renormalised over the rest. Nothing is read again.

        Returns
        -------
        float32 [B, n], nats, below 0 where the answer is likelier without the passage; -inf where
        a question has fewer than n passages.

        Raises
        ------
        InputError: a question has a single passage, so that nothing would be left.
        """
        check(questions, k)
        if not questions:
            return torch.zeros(0, 0)
        read = self._read(questions, k)
        check_leaves_some(read.retrieved)
        labels = labels_of(self.reader, answers)
        mask = labels != -100
        each = _token_log_probs(self.reader, read, labels, torch.arange(len(labels)))
        whole = self._marginal(each, read.log_prior, mask)
        without = [
            self._marginal(each, prior, mask)
            for prior in prior_without_each(read.log_prior).unbind(1)
        ]
        return losses(whole, torch.stack(without, 1), read.log_prior)

    @one_at_a_time
    def answer(self, questions: Sequence[Question], k: int = 5) -> list[Answer]:
        """The most probable candidate, with the model's posterior over the passages as its
        evidence."""
        began = self._clock()
        if not questions:
            return []
        read = self._read(questions, k)
        best = [candidates[0] for candidates in self._candidates(read, 1)]
        weighed = [self._weights(*each) for each in zip(read.log_prior, best, strict=True)]
        seconds = (self._clock() - began) / len(questions)
        answers = []
        for q, one, r, (whole, each) in zip(questions, best, read.retrieved, weighed, strict=True):
            found = Hypothesis(one.tokens, one.log_prob, one.log_prob, one.truncated)
            answer = written_answer(q, found, r, whole, self.reader.tokenizer, seconds)
            if each is not None:
                texts = [self.reader.tokenizer.decode([t]) for t in (*one.tokens, self.reader.end)]
                by_token = zip(texts, each.T, strict=True)
                tokens = tuple(TokenEvidence(text, evidence(r, w)) for text, w in by_token)
                answer = replace(answer, token_evidence=tokens)
            answers.append(answer)
        return answers

    @one_at_a_time
    def generate(
        self, questions: Sequence[Question], k: int = 5, num_return_sequences: int = 1
    ) -> list[list[Candidate]]:
        """For each question up to `num_return_sequences` different answers, best first.

        `k` is the number of passages, which may differ from call to call. There are fewer answers
        where the beam search found fewer.
        """
        if not questions:
            return []
        return self._candidates(self._read(questions, k), num_return_sequences)

    def _read(self, questions: Sequence[Question], k: int) -> _PerPassage:
        retrieved, memory = self._read_apart(questions, k, lambda read: read.seconds)
        log_prior = doc_log_probs(retrieved, self.retriever.score_scale)
        return _PerPassage(retrieved, log_prior, memory)

    @abstractmethod
    def _weights(self, log_prior: Tensor, one: Candidate) -> tuple[Tensor, Tensor | None]:
        """Each passage's weight [n] in a candidate, and in each of its tokens [n, T], end included,
        if these differ; log_prior [n]."""

    @abstractmethod
    def _candidates(self, read: _PerPassage, count: int) -> list[list[Candidate]]:
        """Each question's `count` best candidates, best first, at least one."""


class RagSequence(_Rag):
    """RAG-Sequence (section 2.5): every passage has a beam search of its own.

    *Thorough* decoding scores the candidates of all beams under every passage. *Fast* decoding
    takes p(y | x, z) as 0 where the beam of z did not propose y, and scores nothing again.

    Parameters
    ----------
    reader: the generator.
    retriever: gives the passages and their prior.
    beams: prefixes kept for each passage.
    max_length: longest answer in tokens.
    verbatim: an answer is a run of words of the passage whose beam proposes it; a passage without
        a word proposes none, unless all of a question's are so.
    length_penalty: of the beam search; see `beam_search`.
    thorough: whether decoding is thorough; otherwise it is fast.
    """

    name = "rag-sequence"
    _marginal = staticmethod(sequence_log_prob)

    def __init__(
        self,
        reader: Generator[Any],
        retriever: Retriever,
        beams: int = 2,
        max_length: int = 16,
        verbatim: bool = False,
        length_penalty: float = 0.0,
        thorough: bool = True,
    ) -> None:
        super().__init__(reader, retriever, beams, max_length, verbatim, length_penalty)
        self.thorough = thorough

    def _weights(self, log_prior: Tensor, one: Candidate) -> tuple[Tensor, None]:
        """p(z | x, y), one for the whole answer."""
        return posterior(log_prior[None], one.given[None])[0], None

    def _candidates(self, read: _PerPassage, count: int) -> list[list[Candidate]]:
        B, n = read.log_prior.shape
        real = (~torch.isneginf(read.log_prior)).flatten().nonzero().squeeze(-1)  # no padding
        shown = [[read.retrieved[at // n].passages[at % n]] for at in real.tolist()]
        rules = held_to(self.reader, shown, self.verbatim)
        if rules is not None:
            # A passage without a word has none to propose, unless all of a question's are so.
            worded = {at // n for at, rule in zip(real.tolist(), rules, strict=True) if rule.starts}
            kept = [
                i for i, at in enumerate(real.tolist()) if rules[i].starts or at // n not in worded
            ]
            real, rules = real[kept], [rules[i] for i in kept]
        following = self.reader.continuation(read.memory)
        proposals = beam_search(
            lambda prefixes, rows, parents: following(prefixes, real[rows], parents),
            len(real),
            self.reader.start,
            self.reader.end,
            self.beams,
            self.max_length,
            rules,
            self.length_penalty,
        )
        given: list[dict[tuple[int, ...], Tensor]] = [{} for _ in range(B)]
        ended: list[set[tuple[int, ...]]] = [set() for _ in range(B)]
        for at, found in zip(real.tolist(), proposals, strict=True):
            for one in found:
                own = given[at // n].setdefault(one.tokens, torch.full((n,), float("-inf")))
                own[at % n] = one.log_prob
                if not one.truncated:
                    ended[at // n].add(one.tokens)
        if self.thorough:
            complete(self.reader, read.memory, read.log_prior, given, count)
        best = []
        for prior, union, whole in zip(read.log_prior, given, ended, strict=True):
            scored = [
                Candidate(tokens, float(torch.logsumexp(prior + own, 0)), own, tokens not in whole)
                for tokens, own in union.items()
            ]
            best.append(sorted(scored, key=lambda c: -c.log_prob)[:count])
        return best


def _in_own_words(
    log_probs: Tensor, rules: Sequence[Sequence[Verbatim] | None], prefixes: Tensor
) -> Tensor:
    """log_probs [Q, n, w, V], with those of each passage shared out among what it may say after a
    prefix [Q, w, t]. A question without rules, or whose passages hold no word, stays as it is."""
    if not any(rules):
        return log_probs
    log_probs = log_probs.float().cpu()
    out = log_probs.clone()
    for q, passages in enumerate(rules):
        if not passages or not any(one.starts for one in passages):
            continue
        for z, one in enumerate(passages):
            own = [one] * prefixes.shape[1]
            out[q, z] = share(log_probs[q, z], own, prefixes[q], one.end, otherwise=False)
    return out


class RagToken(_Rag):
    """RAG-Token: an ordinary beam search on the marginal next-token distribution (section 2.5).

    Parameters
    ----------
    reader: the generator.
    retriever: gives the passages and their prior.
    beams: prefixes kept for each question.
    max_length: longest answer in tokens.
    verbatim: an answer is a run of words of one of the passages, and the rule holds for each
        passage by itself: it says what may come next in its own words, and nothing where the prefix
        does not stand in it. If all passages had a say, those that do not hold the prefix, which
        know nothing of how it goes on, would end the answer.
    length_penalty: of the beam search; see `beam_search`.
    """

    name = "rag-token"
    _marginal = staticmethod(token_log_prob)

    def _weights(self, log_prior: Tensor, one: Candidate) -> tuple[Tensor, Tensor]:
        """The mean of p(z_t|x,y<=t) over the tokens, and that of every token."""
        assert one.token_given is not None
        each = token_posterior(one.token_given[None], log_prior[None])[0]
        return each.mean(-1), each

    def _candidates(self, read: _PerPassage, count: int) -> list[list[Candidate]]:
        B, n = read.log_prior.shape
        following = self.reader.continuation(read.memory)
        shown = [r.passages for r in read.retrieved]
        rules = [held_to(self.reader, [[p] for p in each], self.verbatim) for each in shown]
        width = 1

        def marginal(prefixes: Tensor, rows: Tensor, parents: Tensor) -> Tensor:
            """Every prefix is continued under each of the n passages: question, passage, prefix."""
            nonlocal width
            Q = len(rows.unique_consecutive())
            own, before = rows.reshape(Q, -1), parents.reshape(Q, -1)
            z = torch.arange(n)[None, :, None]
            log_probs = following(
                prefixes.reshape(Q, 1, own.shape[1], -1).expand(-1, n, -1, -1).flatten(0, 2),
                (own[:, None] * n + z).flatten(),
                (
                    ((before // width * n)[:, None] + z) * width + (before % width)[:, None]
                ).flatten(),
            )
            width = own.shape[1]
            log_probs = log_probs.reshape(Q, n, width, -1)
            if prefixes.shape[1] <= self.max_length:  # not where open prefixes are closed
                asked = [rules[question] for question in own[:, 0].tolist()]
                log_probs = _in_own_words(log_probs, asked, prefixes.reshape(Q, width, -1))
            prior = read.log_prior[own[:, 0]].to(log_probs.device)[:, :, None, None]
            return torch.logsumexp(prior + log_probs, dim=1).flatten(0, 1)

        found = beam_search(
            marginal,
            B,
            self.reader.start,
            self.reader.end,
            self.beams,
            self.max_length,
            held_to(self.reader, shown, self.verbatim),
            self.length_penalty,
        )
        # Score the answers by the definition, as the beams may have compared other scores (with a
        # length penalty, say), and under each passage by itself.
        owner = torch.tensor([b for b, each in enumerate(found) for _ in each[:count]])
        searched = [one for each in found for one in each[:count]]
        labels = pad_labels([[*one.tokens, self.reader.end] for one in searched])
        each = _token_log_probs(self.reader, read, labels, owner)
        log_probs = token_log_prob(each, read.log_prior[owner], labels != -100).tolist()
        given = _answer_log_probs(each, labels != -100)
        best: list[list[Candidate]] = [[] for _ in range(B)]
        for b, one, log_prob, own, by_token in zip(
            owner.tolist(), searched, log_probs, given, each, strict=True
        ):
            length = len(one.tokens) + 1
            best[b].append(
                Candidate(one.tokens, log_prob, own, one.truncated, by_token[:, :length])
            )
        return [sorted(each, key=lambda c: -c.log_prob) for each in best]
