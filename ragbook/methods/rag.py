r"""Retrieval-augmented generation: RAG-Sequence and RAG-Token (Lewis et al. 2020).

A passage \(z\) is a latent variable with prior \(p(z \mid x)\) from the retriever; the generator
gives \(p(y_t \mid x, z, y_{<t})\). The two models differ in where the sum over passages stands
(section 2.1):

\[ p_{\text{Sequence}}(y \mid x) = \sum_z p(z \mid x) \prod_t p(y_t \mid x, z, y_{<t}), \qquad
   p_{\text{Token}}(y \mid x) = \prod_t \sum_z p(z \mid x)\, p(y_t \mid x, z, y_{<t}). \]

RAG-Sequence commits to one passage for the whole answer, RAG-Token may change it at every token.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ragbook.corpus import Question
from ragbook.methods.base import Answer, check, doc_log_probs, held_to, posterior, written_answer
from ragbook.methods.decoding import Hypothesis, beam_search
from ragbook.models import SeqReader
from ragbook.retrieval import Retrieved, Retriever


def _answer_log_probs(token_log_probs: Tensor, mask: Tensor) -> Tensor:
    """log p(y | x, z): the sum over the answer's own tokens, [B, n_docs]."""
    return torch.where(mask.bool()[:, None, :], token_log_probs, 0.0).sum(-1)


def sequence_log_prob(token_log_probs: Tensor, doc_log_probs: Tensor, mask: Tensor) -> Tensor:
    r"""log p_Sequence(y | x): the sum over passages stands outside the product over tokens.

    The prior is counted once for each passage whatever the target's length, a target of one token
    included.

    Parameters
    ----------
    token_log_probs: [B, n_docs, T], log p(y_t | x, z, y_<t) of the target's tokens, nats.
    doc_log_probs: [B, n_docs], log p(z | x), normalised over the passages; -inf for no passage.
    mask: [B, T], 1 (or True) on the target's tokens, 0 on padding, whose values are ignored.

    Returns
    -------
    [B], nats; 0 for a target without tokens.
    """
    return torch.logsumexp(doc_log_probs + _answer_log_probs(token_log_probs, mask), dim=-1)


def token_log_prob(token_log_probs: Tensor, doc_log_probs: Tensor, mask: Tensor) -> Tensor:
    r"""log p_Token(y | x): the sum over passages stands inside the product, at every token.

    Parameters and result as in `sequence_log_prob`.
    """
    own = torch.where(mask.bool()[:, None, :], token_log_probs, 0.0)  # no gradient into padding
    marginal = torch.logsumexp(doc_log_probs[:, :, None] + own, dim=1)  # [B, T]
    return torch.where(mask.bool(), marginal, 0.0).sum(-1)


class _Rag:
    """What both models share: retrieve, encode each (question, passage) once, weigh by Bayes.

    With `verbatim`, an answer is a run of words of a passage: of the one whose beam proposes it in
    RAG-Sequence, of any in RAG-Token.
    """

    name: str

    def __init__(
        self,
        reader: SeqReader,
        retriever: Retriever,
        beams: int = 2,
        max_length: int = 16,
        verbatim: bool = False,
    ) -> None:
        self.reader, self.retriever = reader, retriever
        self.beams, self.max_length, self.verbatim = beams, max_length, verbatim
        self.parameters = reader.parameters

    def _read(
        self, questions: Sequence[Question], k: int
    ) -> tuple[list[Retrieved], Tensor, Tensor, Tensor]:
        """Retrieved passages, log p(z | x) [B, n], states [B, n, L, d] and their mask [B, n, L]."""
        check(questions, k)
        retrieved = self.retriever.retrieve(questions, k)
        log_prior = doc_log_probs(retrieved, self.retriever.score_scale)
        states, mask = self.reader.encode_documents(questions, [r.passages for r in retrieved])
        return retrieved, log_prior, states, mask

    def _token_log_probs(
        self, states: Tensor, mask: Tensor, answers: list[list[int]]
    ) -> tuple[Tensor, Tensor]:
        """log p(y_t | x, z, y_<t) [B, n, T] and the answers' mask [B, T]; one answer a question."""
        B, n, L, d = states.shape
        labels = self.reader.pad_labels(answers)
        log_probs = self.reader.token_log_probs(
            states.reshape(B * n, L, d), mask.reshape(B * n, L), labels.repeat_interleave(n, 0)
        )
        return log_probs.reshape(B, n, -1), labels != -100

    def _answers(
        self,
        questions: Sequence[Question],
        retrieved: list[Retrieved],
        log_prior: Tensor,
        best: list[Hypothesis],
        given: Tensor,
        began: float,
    ) -> list[Answer]:
        """Answers with p(z | x, y) as evidence; `given` is log p(y | x, z) [B, n]."""
        weights = posterior(log_prior, given)
        seconds = (self.reader.pairs.clock() - began) / max(1, len(questions))
        return [
            written_answer(q, h, r, w, self.reader.tokenizer, seconds)
            for q, h, r, w in zip(questions, best, retrieved, weights, strict=True)
        ]


class RagSequence(_Rag):
    """RAG-Sequence with thorough decoding (section 2.5).

    Each passage's beam proposes candidates; every candidate of the union is scored under every
    passage, and the one with the highest marginal probability is the answer.
    """

    name = "rag-sequence"

    def log_prob(self, questions: Sequence[Question], answers: Sequence[str], k: int = 5) -> Tensor:
        """log p_Sequence(answer | question), float32 [B]."""
        _, log_prior, states, mask = self._read(questions, k)
        tokens, valid = self._token_log_probs(states, mask, self.reader.answer_ids(answers))
        return sequence_log_prob(tokens, log_prior, valid)

    def answer(self, questions: Sequence[Question], k: int = 5) -> list[Answer]:
        """The candidate with the highest marginal probability."""
        began = self.reader.pairs.clock()
        if not questions:
            return []
        retrieved, log_prior, states, mask = self._read(questions, k)
        B, n, L, d = states.shape
        flat, flat_mask = states.reshape(B * n, L, d), mask.reshape(B * n, L)
        real = (~torch.isneginf(log_prior)).flatten().nonzero().squeeze(-1)  # not filled up
        proposals = beam_search(
            self.reader.continuation(flat[real], flat_mask[real]),
            len(real),
            self.reader.start,
            self.reader.end,
            self.beams,
            self.max_length,
            held_to(
                self.reader,
                [[retrieved[at // n].passages[at % n]] for at in real.tolist()],
                self.verbatim,
            ),
        )
        candidates: list[dict[tuple[int, ...], None]] = [{} for _ in range(B)]
        for at, found in zip(real.tolist(), proposals, strict=True):
            for hypothesis in found:
                candidates[at // n][hypothesis.tokens] = None
        # Every candidate under every passage of its question, [C, n, T].
        flat_candidates = [(b, tokens) for b, union in enumerate(candidates) for tokens in union]
        owner = torch.tensor([b for b, _ in flat_candidates])
        labels = self.reader.pad_labels(
            [[*tokens, self.reader.end] for _, tokens in flat_candidates]
        )
        token_log_probs = self.reader.token_log_probs(
            flat,
            flat_mask,
            labels.repeat_interleave(n, 0),
            (owner[:, None] * n + torch.arange(n)).flatten(),
        ).reshape(len(labels), n, -1)
        valid = labels != -100
        marginal = sequence_log_prob(token_log_probs, log_prior[owner], valid)
        each = _answer_log_probs(token_log_probs, valid)
        best, given = [], []
        for b in range(B):
            mine = (owner == b).nonzero().squeeze(-1)
            top = int(mine[marginal[mine].argmax()])
            best.append(Hypothesis(flat_candidates[top][1], float(marginal[top])))
            given.append(each[top])
        return self._answers(questions, retrieved, log_prior, best, torch.stack(given), began)


class RagToken(_Rag):
    """RAG-Token: an ordinary beam search on the marginal next-token distribution (section 2.5)."""

    name = "rag-token"

    def log_prob(self, questions: Sequence[Question], answers: Sequence[str], k: int = 5) -> Tensor:
        """log p_Token(answer | question), float32 [B]."""
        _, log_prior, states, mask = self._read(questions, k)
        tokens, valid = self._token_log_probs(states, mask, self.reader.answer_ids(answers))
        return token_log_prob(tokens, log_prior, valid)

    def answer(self, questions: Sequence[Question], k: int = 5) -> list[Answer]:
        """The best hypothesis of the beam."""
        began = self.reader.pairs.clock()
        if not questions:
            return []
        retrieved, log_prior, states, mask = self._read(questions, k)
        n = states.shape[1]
        following = self.reader.continuation(states.flatten(0, 1), mask.flatten(0, 1))

        def marginal(prefixes: Tensor, rows: Tensor, parents: Tensor) -> Tensor:
            each = torch.arange(n)  # every prefix is continued under each of the n passages
            log_probs = following(
                prefixes.repeat_interleave(n, 0),
                (rows[:, None] * n + each).flatten(),
                (parents[:, None] * n + each).flatten(),
            )
            log_probs = log_probs.reshape(len(rows), n, -1)
            return torch.logsumexp(log_prior[rows][:, :, None] + log_probs, dim=1)

        found = beam_search(
            marginal,
            len(questions),
            self.reader.start,
            self.reader.end,
            self.beams,
            self.max_length,
            held_to(self.reader, [r.passages for r in retrieved], self.verbatim),
        )
        best = [hypotheses[0] for hypotheses in found]
        tokens, valid = self._token_log_probs(
            states, mask, [[*h.tokens, self.reader.end] for h in best]
        )
        return self._answers(
            questions, retrieved, log_prior, best, _answer_log_probs(tokens, valid), began
        )
