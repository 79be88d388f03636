r"""REALM's knowledge-augmented encoder: it predicts the masked tokens of a sentence, given a
passage.

Guu et al. 2020, section 3.2: sentence and passage are read together, and each masked token is
predicted from the state at its position,

\[ p(y_j \mid z, x) \propto
   \exp\bigl(w_{y_j}^\top \mathrm{BERT}_{\mathrm{MASK}(j)}(\mathrm{join}(x, z))\bigr), \qquad
   p(y \mid z, x) = \prod_j p(y_j \mid z, x), \]

where the head transforms the state once before it is compared with the word vectors, as BERT's
does. The embedded encoder was published without its head, so the transform is new and is trained;
the word vectors that it is compared with are the encoder's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

from ragbook.corpus import Passage
from ragbook.models.prompts import Inputs, pair

MAX_JOINT, MAX_SENTENCE = 160, 72
"""Most tokens of sentence and passage together, and of the sentence alone."""

CHUNK = 16
"""How many pairs are read at once."""

NULL = Passage("", "", "")
"""The null document: an empty passage, read and embedded like any other. It can take the prior
where no passage helps to predict a sentence's tokens (section 3.4)."""


def untitled(passages: Sequence[Passage | None]) -> list[Passage | None]:
    """The passages without their titles."""
    return [passage and Passage(passage.id, "", passage.text) for passage in passages]


class MaskedHead(nn.Module):
    """Logits over the vocabulary from states: BERT's transform, then the word vectors.

    Parameters
    ----------
    hidden: width of the states and of the word vectors.
    vocabulary: number of tokens.
    activation: name of the transform's activation, as in the encoder's configuration.
    eps: of its layer norm.
    """

    def __init__(
        self, hidden: int, vocabulary: int, activation: str = "gelu", eps: float = 1e-12
    ) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden, hidden)
        self.activation = ACT2FN[activation]
        self.norm = nn.LayerNorm(hidden, eps=eps)
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, states: Tensor, words: Tensor) -> Tensor:
        """float32 [..., V] of states [..., d] and word vectors [V, d]."""
        transformed = self.norm(self.activation(self.dense(states)))
        return (transformed @ words.T).float() + self.bias.float()


class MaskedReader:
    """Encoder and head with their tokenizer; all parameters that require gradients get them.

    Parameters
    ----------
    model: a BERT encoder.
    head: gives logits over the vocabulary from its states.
    tokenizer: its fast tokenizer.
    titles: whether passages are read with their titles; the original checkpoints read none.
    """

    def __init__(self, model: Any, head: MaskedHead, tokenizer: Any, titles: bool = True) -> None:
        self.model, self.head, self.tokenizer, self.titles = model, head, tokenizer, titles

    @property
    def words(self) -> Tensor:
        """The word vectors, [V, d]."""
        return self.model.embeddings.word_embeddings.weight

    def states(
        self, texts: Sequence[str], passages: Sequence[Passage], **options: Any
    ) -> tuple[dict[str, Tensor], Tensor, Any]:
        """Read N pairs.

        Parameters
        ----------
        texts: masked sentences, with the tokenizer's mask token for each hidden token.
        options: other arguments of the model's `forward`, such as `output_attentions`.

        Returns
        -------
        (the inputs int64 [N, L]; bool [N, L], true on the passage's tokens, both on the CPU; the
        model's output, on its device, whose last states are [N, L, d]).
        """
        read = self._read(texts, passages)
        out = self.model(**self._there(read.tensors), **options)
        return read.tensors, read.passage_mask, out

    def token_log_probs(
        self,
        texts: Sequence[str],
        answers: Sequence[Sequence[int]],
        passages: Sequence[Sequence[Passage]],
    ) -> tuple[Tensor, Tensor]:
        """log p(y_j | z, x) of every hidden token under every passage.

        Parameters
        ----------
        texts: B masked sentences.
        answers: the token ids that each sentence hides, as many as it has mask tokens, at most T.
        passages: n for each sentence; `NULL` is the empty one.

        Returns
        -------
        (float32 [B, n, T], nats, 0 after an answer's end; bool [B, T], the answers' own tokens),
        on the model's device.
        """
        B, n = len(texts), len(passages[0])
        flat = [passage for found in passages for passage in found]
        read = self._read([text for text in texts for _ in range(n)], flat)
        places = self.places(read.tensors, read.passage_mask)
        # Inputs of similar length are read together: those with the null document are only a third
        # as long as the others.
        hidden, order = [], []
        for rows in torch.argsort(read.mask.sum(1), stable=True).split(CHUNK):
            longest = int(read.mask[rows].sum(1).max())
            piece = {name: value[rows, :longest] for name, value in read.tensors.items()}
            piece = self._there(piece)
            at = places[rows, :longest].nonzero()
            hidden.append(self.model(**piece).last_hidden_state[at[:, 0], at[:, 1]])
            order.append(rows[at[:, 0]] * places.shape[1] + at[:, 1])
        states = torch.cat(hidden)[
            torch.argsort(torch.cat(order))
        ]  # [hidden tokens of all rows, d]
        logits = self.head(states, self.words)
        targets = torch.tensor([token for answer in answers for _ in range(n) for token in answer])
        targets = targets.to(logits.device)
        given = -nn.functional.cross_entropy(logits, targets, reduction="none")
        lengths = torch.tensor([len(answer) for answer in answers])
        own = torch.arange(int(lengths.max()))[None] < lengths[:, None]  # [B, T]
        own = own.to(logits.device)
        wide = own[:, None].expand(B, n, -1)
        return given.new_zeros(wide.shape).masked_scatter(wide, given), own

    def _there(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """The inputs on the model's device."""
        return {name: value.to(self.words.device) for name, value in inputs.items()}

    def _read(self, texts: Sequence[str], passages: Sequence[Passage]) -> Inputs:
        shown = passages if self.titles else untitled(passages)
        return pair(self.tokenizer, texts, shown, MAX_JOINT, MAX_SENTENCE)

    def places(self, inputs: dict[str, Tensor], inside: Tensor) -> Tensor:
        """bool [N, L]: the positions of the sentences' mask tokens (not those of the passages)."""
        return (inputs["input_ids"] == self.tokenizer.mask_token_id) & ~inside
