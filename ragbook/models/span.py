r"""REALM's reader: question and passage are read together, and a small network scores spans.

Lee et al. 2019 (ORQA, section 4.2) and Guu et al. 2020 (REALM, section 3.2) score a span \(s\) of
a passage by a network over the encoder's states at its two ends,

\[ \text{score}(s) =
   w^\top \mathrm{LN}(\mathrm{ReLU}(W_s h_{\text{start}} + W_e h_{\text{end}})). \]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ragbook.corpus import Passage
from ragbook.models.pairs import PairEncoder
from ragbook.models.prompts import Inputs

MAX_SPAN = 10
"""Longest answer span in tokens (REALM, section 4.3)."""


class SpanScorer(nn.Module):
    """Scores every span of at most `max_span` tokens.

    Parameters
    ----------
    hidden: width of the encoder's states.
    width: width of the network over the two ends.
    max_span: longest span, in tokens.
    """

    def __init__(self, hidden: int, width: int = 128, max_span: int = MAX_SPAN) -> None:
        super().__init__()
        self.max_span = max_span
        self.start = nn.Linear(hidden, width)
        self.end = nn.Linear(hidden, width, bias=False)
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, 1)

    def forward(self, states: Tensor, allowed: Tensor) -> Tensor:
        """Scores of all spans.

        Parameters
        ----------
        states: [B, L, d], the encoder's states.
        allowed: bool [B, L], true on the passage's own tokens; a span lies wholly inside them.
            Position 0 ([CLS]) stands for "the answer is not here" and is allowed as a span of one
            token.

        Returns
        -------
        float32 [B, L, max_span]: entry (i, w) is the span of tokens i .. i + w; -inf if it is not
        allowed.
        """
        start, end = self.start(states), self.end(states)
        length = states.shape[1]
        scores = []
        inside = allowed
        for width in range(self.max_span):
            if 0 < width < length:
                reach = torch.roll(allowed, -width, dims=1)
                reach[:, length - width :] = False
                inside = inside & reach
            permitted = inside.clone() if width < length else torch.zeros_like(inside)
            permitted[:, 0] = width == 0
            ends = torch.roll(end, -width, dims=1)
            score = self.out(self.norm(torch.relu(start + ends))).squeeze(-1).float()
            scores.append(score.masked_fill(~permitted, float("-inf")))
        return torch.stack(scores, dim=-1)


class SpanReader:
    """Encoder and span scorer, on one device, with their tokenizer; inference only, float32 results
    on the CPU."""

    def __init__(self, encoder: Any, scorer: SpanScorer, tokenizer: Any, name: str) -> None:
        self.pairs = PairEncoder(encoder.eval(), tokenizer)
        self.scorer, self.tokenizer, self.name = scorer.eval(), tokenizer, name
        self.cut = self.pairs.cut
        self.parameters = sum(p.numel() for m in (encoder, scorer) for p in m.parameters())

    @torch.no_grad()
    def span_scores(
        self, questions: Sequence[str], passages: Sequence[Passage]
    ) -> tuple[Inputs, Tensor]:
        """The scorer's score of every span of each pair's passage, as in `span_log_probs`, before
        the softmax; -inf where there is no span."""
        inputs, states = self.pairs(questions, passages)
        states = states.to(self.scorer.out.weight.dtype)  # they are kept in float32
        return inputs, self.scorer(states, inputs.passage_mask.to(states.device)).cpu()

    def span_log_probs(
        self, questions: Sequence[str], passages: Sequence[Passage]
    ) -> tuple[Inputs, Tensor]:
        """log p(s | x, z) of every span of each pair's passage.

        Returns
        -------
        (inputs, float32 [N, L, max_span]): entry (i, w) is the span of tokens i .. i + w; (0, 0) is
        "the answer is not here"; each row's probabilities sum to 1.
        """
        inputs, scores = self.span_scores(questions, passages)
        return inputs, scores.flatten(1).log_softmax(-1).reshape(scores.shape)
