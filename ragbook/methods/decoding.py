"""Beam search over any next-token distribution: the one decoder of all generative methods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ragbook.corpus import Passage
from ragbook.models.prompts import passage_text


@dataclass(frozen=True)
class Hypothesis:
    """A finished answer: its tokens without start and end, and log-probability, end included."""

    tokens: tuple[int, ...]
    log_prob: float


class Verbatim:
    """Which tokens may follow a prefix so that the answer is a run of whole words of a passage.

    A small reader that copies a long name now and then drops a piece of it. Held to the passages it
    cannot, as REALM's spans cannot; what it believes (its log-probabilities) stays as it was.

    Parameters
    ----------
    tokenizer: the reader's fast tokenizer.
    passages: where the answer may stand, titles included. Without a word in any of them the answer
        is free.
    end: token id that closes an answer.
    """

    def __init__(self, tokenizer: Any, passages: Sequence[Passage], end: int) -> None:
        self.end = end
        self.read: list[tuple[list[int], list[bool]]] = []  # tokens; does a word end with it?
        self.starts: dict[int, list[tuple[int, int]]] = {}  # first token -> (passage, place)
        for number, passage in enumerate(passages):
            encoded = tokenizer(passage_text(passage), add_special_tokens=False)
            tokens, words = encoded["input_ids"], [*encoded.word_ids(), None]
            ends = [words[i] != words[i + 1] for i in range(len(tokens))]
            self.read.append((tokens, ends))
            for i, token in enumerate(tokens):
                if i == 0 or ends[i - 1]:
                    self.starts.setdefault(token, []).append((number, i))

    def __call__(self, prefix: Sequence[int]) -> list[int]:
        """The tokens that may come next, in ascending order; an empty list allows all."""
        if not prefix:
            return sorted(self.starts)
        wanted, after = list(prefix), set()
        for number, start in self.starts.get(wanted[0], ()):
            tokens, ends = self.read[number]
            stop = start + len(wanted)
            if tokens[start:stop] == wanted:
                after.update(tokens[stop : stop + 1])
                if ends[stop - 1]:
                    after.add(self.end)
        return sorted(after)


def beam_search(
    next_log_probs: Callable[[Tensor, Tensor, Tensor], Tensor],
    batch: int,
    start: int,
    end: int,
    beams: int = 4,
    max_length: int = 16,
    allowed: Sequence[Callable[[Sequence[int]], Sequence[int]]] | None = None,
) -> list[list[Hypothesis]]:
    """The most probable token sequences, found with `beams` prefixes a question.

    A hypothesis' score is its log-probability, without a length penalty; the empty answer is not
    proposed. A question is done when no open prefix can overtake its best finished hypotheses, and
    the search stops when all are done: log-probabilities only fall as a prefix grows.

    Parameters
    ----------
    next_log_probs: (prefixes int64 [R, t] with the start token first, rows int64 [R]: the question
        each prefix belongs to, parents int64 [R]: which prefix of the call before it continues) ->
        float [R, V], log p(next token). So a model can keep what it knows of a prefix.
    batch: number of questions B.
    start, end: token ids that open and close a sequence.
    beams: prefixes kept for each question.
    max_length: longest answer in tokens; what has not ended by then is closed with the end token.
    allowed: for each question, prefix (without the start token) -> tokens that may follow, none
        named meaning all; see `Verbatim`. Scores are not renormalised over them.

    Returns
    -------
    For each question up to `beams` hypotheses, best first, at least one.
    """
    finished: list[list[Hypothesis]] = [[] for _ in range(batch)]
    prefixes = torch.full((batch, 1), start)
    rows = parents = torch.arange(batch)
    scores = torch.zeros(batch)
    for length in range(max_length + 1):
        log_probs = next_log_probs(prefixes, rows, parents).float()
        if allowed is not None and length < max_length:
            for at, (row, prefix) in enumerate(zip(rows.tolist(), prefixes.tolist(), strict=True)):
                tokens = torch.tensor(allowed[row](prefix[1:]))
                if len(tokens):
                    kept = log_probs[at, tokens]
                    log_probs[at] = float("-inf")
                    log_probs[at, tokens] = kept
        if length == 0:
            log_probs[:, end] = float("-inf")
        total = scores[:, None] + log_probs
        new_prefixes, new_rows, new_parents, new_scores = [], [], [], []
        for question in rows.unique().tolist():
            mine = (rows == question).nonzero().squeeze(-1)
            candidates = total[mine]
            if length == max_length:  # close every open prefix
                for at, score in zip(mine.tolist(), candidates[:, end].tolist(), strict=True):
                    finished[question].append(Hypothesis(tuple(prefixes[at, 1:].tolist()), score))
                continue
            width = candidates.shape[1]
            best, flat = candidates.flatten().topk(min(2 * beams, candidates.numel()))
            opened = 0
            for score, index in zip(best.tolist(), flat.tolist(), strict=True):
                if score == float("-inf") or opened == beams:
                    break
                parent, token = mine[index // width], index % width
                prefix = prefixes[parent]
                if token == end:
                    finished[question].append(Hypothesis(tuple(prefix[1:].tolist()), score))
                    continue
                done = sorted((h.log_prob for h in finished[question]), reverse=True)[:beams]
                if len(done) == beams and score <= done[-1]:
                    break
                new_prefixes.append(torch.cat([prefix, prefix.new_tensor([token])]))
                new_rows.append(question)
                new_parents.append(parent)
                new_scores.append(score)
                opened += 1
        if not new_prefixes:
            break
        prefixes, rows = torch.stack(new_prefixes), torch.tensor(new_rows)
        parents, scores = torch.stack(new_parents), torch.tensor(new_scores)
    return [sorted(found, key=lambda h: -h.log_prob)[:beams] for found in finished]
