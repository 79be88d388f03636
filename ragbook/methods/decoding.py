"""Beam search over any next-token distribution: the one decoder of all generative methods."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ragbook.corpus import Passage
from ragbook.models.prompts import passage_text

Runs = Callable[[str], Sequence[tuple[Sequence[int], Sequence[bool], Sequence[bool]]]]

Allowed = Callable[[Sequence[int]], Sequence[int]]
"""From a prefix without the start token to the tokens that may follow; see `Verbatim`."""

NOTHING = re.compile(r"(?:[\W_]|\b(?:an?|the)\b)*", re.IGNORECASE)
"""What says nothing: articles, and what is neither a letter nor a digit. Scores leave articles and
ASCII's punctuation out (Rajpurkar et al. 2016)."""


@dataclass(frozen=True)
class Hypothesis:
    """A finished answer.

    Parameters
    ----------
    tokens: without start and end.
    log_prob: log-probability in nats, with that of the end token.
    held: the same where every token's probability is divided by that of all tokens that were
        allowed in its place. It is `log_prob` where all were.
    truncated: whether it was closed because it had reached the greatest length: its end was not
        among the best continuations, as it otherwise has to be.
    """

    tokens: tuple[int, ...]
    log_prob: float
    held: float
    truncated: bool = False

    def score(self, length_penalty: float) -> float:
        """`held` / (number of tokens, the end included) ** `length_penalty`."""
        return self.held / (len(self.tokens) + 1) ** length_penalty


class Verbatim:
    """Which tokens may follow a prefix so that the answer is a run of whole words of a passage.

    A small reader that copies a long name sometimes drops a piece of it. With this restriction it
    cannot, just as REALM's spans cannot. Nor can it end after articles and punctuation and nothing
    else, with which a reader that finds no answer and may not be silent likes to get away.

    Parameters
    ----------
    runs: gives the runs of words of a text, as a model's tokens; see `Generator.runs`.
    passages: where the answer may be found, titles included. If none of them holds a word, the
        answer is not restricted.
    end: token id that closes an answer.
    decode: from an answer's tokens to its text.
    """

    def __init__(
        self,
        runs: Runs,
        passages: Sequence[Passage],
        end: int,
        decode: Callable[[Sequence[int]], str],
    ) -> None:
        self.end, self.decode = end, decode
        self.read: list[
            tuple[Sequence[int], Sequence[bool]]
        ] = []  # tokens, and whether each ends a word
        self.starts: dict[int, list[tuple[int, int]]] = {}  # first token -> (piece, position)
        for passage in passages:
            for tokens, begins, ends in runs(passage_text(passage)):
                for i, token in enumerate(tokens):
                    if begins[i]:
                        self.starts.setdefault(token, []).append((len(self.read), i))
                self.read.append((tokens, ends))

    def __call__(self, prefix: Sequence[int]) -> list[int]:
        """The tokens that may come next, in ascending order; an empty list allows all."""
        if not prefix:
            return sorted(self.starts)
        wanted, after = list(prefix), set()
        for number, start in self.starts.get(wanted[0], ()):
            tokens, ends = self.read[number]
            stop = start + len(wanted)
            if list(tokens[start:stop]) == wanted:
                after.update(tokens[stop : stop + 1])
                # A piece may end with what is no whole word: nothing else can follow there.
                if ends[stop - 1] or stop == len(tokens):
                    after.add(self.end)
        if self.end in after and len(after) > 1 and NOTHING.fullmatch(self.decode(wanted)):
            after.discard(self.end)
        return sorted(after)


def beam_search(
    next_log_probs: Callable[[Tensor, Tensor, Tensor], Tensor],
    batch: int,
    start: int,
    end: int,
    beams: int = 4,
    max_length: int = 16,
    allowed: Sequence[Allowed] | None = None,
    length_penalty: float = 0.0,
) -> list[list[Hypothesis]]:
    """The most probable token sequences, found with `beams` prefixes a question.

    Hypotheses are compared by log-probability / length ** `length_penalty`; the empty answer is not
    proposed. Where only some tokens are allowed, the probabilities that are compared are divided by
    the sum over the allowed ones: otherwise every token of a long answer would pay for what the
    model gives to forbidden ones, and an answer that stops early would win.

    A prefix ends only where its end is among the `beams` best continuations. A question is done
    when its best open prefix, at its present length, no longer beats the worst of `beams` finished
    hypotheses. Without a penalty nothing better can follow, because log-probabilities only fall as
    a prefix grows. These are the rules of `transformers` with `early_stopping=False`.

    Parameters
    ----------
    next_log_probs: (prefixes int64 [R, t] with the start token first, rows int64 [R]: the question
        each prefix belongs to, parents int64 [R]: which prefix of the last call it continues) ->
        float [R, V], log p(next token). With the parents a model can reuse what it computed for
        the last call. The rows ascend, and every question that is not done has the same number of
        prefixes.
    batch: number of questions B.
    start, end: token ids that open and close a sequence.
    beams: prefixes kept for each question.
    max_length: longest answer in tokens; a longer one is cut there and closed with the end token.
    allowed: for each question a function from a prefix (without the start token) to the tokens that
        may follow; an empty list allows all (see `Verbatim`).
    length_penalty: 0 compares log-probabilities, 1 their mean over tokens; above 0 longer answers
        win more often.

    Returns
    -------
    For each question up to `beams` hypotheses, best first, at least one.
    """
    finished: list[list[Hypothesis]] = [[] for _ in range(batch)]
    alive = torch.arange(batch)  # the questions that are not done, Q of them with w prefixes each
    prefixes = torch.full((batch, 1, 1), start)
    scores = own = torch.zeros(batch, 1)  # by which prefixes are compared, and log-probabilities
    parents = torch.arange(batch)
    for length in range(max_length + 1):
        Q, width = scores.shape
        rows = alive.repeat_interleave(width)
        log_probs = next_log_probs(prefixes.flatten(0, 1), rows, parents).float().cpu()
        held = log_probs
        if allowed is not None and length < max_length:
            held = share(
                log_probs, [allowed[row] for row in rows.tolist()], prefixes.flatten(0, 1), end
            )
        if length == 0:
            held = held.index_fill(1, torch.tensor([end]), float("-inf"))
        if length == max_length:  # close every open prefix
            total = scores + held[:, end].reshape(Q, width)
            given = own + log_probs[:, end].reshape(Q, width)
            if allowed is not None:  # only now: any prefix may be closed
                held = share(
                    log_probs, [allowed[row] for row in rows.tolist()], prefixes.flatten(0, 1), end
                )
            forced = _unready(scores, held, end, beams)
            for q, row in enumerate(alive.tolist()):
                ended = given[q].tolist(), total[q].tolist(), forced[q].tolist()
                _finish(finished[row], prefixes[q, :, 1:].tolist(), *ended)
            break
        best, parent, token = _best(scores, held, 2 * beams)
        ends = token == end
        chosen = log_probs.reshape(Q, width, -1)[torch.arange(Q)[:, None], parent, token]
        found = own.gather(1, parent) + chosen
        for q, rank in ends[:, :beams].nonzero().tolist():
            prefix = prefixes[q, parent[q, rank], 1:].tolist()
            reached = [float(found[q, rank])], [float(best[q, rank])]
            _finish(finished[alive[q]], [prefix], *reached, [False])
        open_best = best.masked_fill(ends, float("-inf"))
        scores, chosen = open_best.topk(min(beams, best.shape[1]))
        own = found.gather(1, chosen)
        parent, token = parent.gather(1, chosen), token.gather(1, chosen)
        kept = prefixes.gather(1, parent[:, :, None].expand(-1, -1, prefixes.shape[2]))
        prefixes = torch.cat([kept, token[:, :, None]], dim=2)
        parents = torch.arange(Q)[:, None] * width + parent
        going_on = torch.tensor(
            [
                _can_improve(finished[row], top, length + 1, beams, length_penalty)
                for row, top in zip(alive.tolist(), scores[:, 0].tolist(), strict=True)
            ]
        )
        if not going_on.any():
            break
        alive, prefixes, parents = alive[going_on], prefixes[going_on], parents[going_on].flatten()
        scores, own = scores[going_on], own[going_on]
    return [sorted(found, key=lambda h: -h.score(length_penalty))[:beams] for found in finished]


def share(
    log_probs: Tensor,
    allowed: Sequence[Allowed],
    prefixes: Tensor,
    end: int,
    otherwise: bool = True,
) -> Tensor:
    """A copy of log_probs [R, V] in which the probabilities of the tokens that may follow a row's
    prefix [R, t] sum to 1, and those of the others are 0.

    At the beginning the end token keeps its share, although no answer is empty: a passage that has
    nothing to say is not made to say something. Where `allowed` gives no token, the row stays as it
    is, or all of it is 0 if `otherwise` is false.
    """
    held = log_probs.clone()
    for at, prefix in enumerate(prefixes.tolist()):
        own = list(allowed[at](prefix[1:]))
        if not own and otherwise:
            continue
        tokens = torch.tensor(own if prefix[1:] or not own else [*own, end], dtype=torch.long)
        kept = log_probs[at, tokens]
        held[at] = float("-inf")
        # Where the model rules out everything that is allowed, nothing can be shared out.
        held[at, tokens] = kept.log_softmax(0) if kept.isfinite().any() else kept
    return held


def _best(scores: Tensor, held: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The best continuations of each question, best first: their scores, and the prefix and the
    token of each, [Q, count] or fewer if there are not as many.

    Parameters
    ----------
    scores: [Q, w], of the prefixes.
    held: [Q * w, V], what every token adds to its prefix's score.
    """
    # The best of every prefix first, so that nothing else is computed for the whole vocabulary.
    Q, width = scores.shape
    each, token = held.topk(min(count, held.shape[1]))
    total = (scores[:, :, None] + each.reshape(Q, width, -1)).flatten(1)
    best, at = total.topk(min(count, total.shape[1]))
    return best, at // each.shape[1], token.reshape(Q, -1).gather(1, at)


def _unready(scores: Tensor, held: Tensor, end: int, beams: int) -> Tensor:
    """Which prefixes would go on, bool [Q, w], as their end is not among the `beams` best of their
    question's continuations; parameters as in `_best`."""
    least = _best(scores, held, beams)[0][:, -1:]
    own = scores + held[:, end].reshape(scores.shape)
    return (own < least) | own.isneginf()


def _finish(
    finished: list[Hypothesis],
    prefixes: list[list[int]],
    log_probs: Sequence[float],
    held: Sequence[float],
    truncated: Sequence[bool],
) -> None:
    """Add the prefixes as finished hypotheses, except those that are impossible or forbidden."""
    for prefix, log_prob, share_of, cut in zip(prefixes, log_probs, held, truncated, strict=True):
        if min(log_prob, share_of) > float("-inf"):
            finished.append(Hypothesis(tuple(prefix), log_prob, share_of, cut))


def _can_improve(
    finished: Sequence[Hypothesis], open_best: float, length: int, beams: int, penalty: float
) -> bool:
    """Whether an open prefix of `length` tokens may still become one of the `beams` best."""
    done = sorted((h.score(penalty) for h in finished), reverse=True)[:beams]
    if open_best == float("-inf"):
        return False
    return len(done) < beams or open_best / length**penalty > done[-1]
