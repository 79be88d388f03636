"""What a model could not read or score whole, noted where it happens, so that it can be said.

An encoder or a reader sees a number of tokens of a passage, and a decoder has places for a number
of an answer's tokens. What is beyond them is left out, which must not go unnoticed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ragbook.corpus import Passage
from ragbook.models.prompts import Inputs, passage_text

_WORD = re.compile(r"\w")


class Cut:
    """What a model has left out since it was last taken from here.

    Attributes
    ----------
    passages: for each passage that was cut, by its id, how many words at its end were not read.
    answers: the tokens of each answer of which only the beginning was scored.
    unread: for each question whose passages do not all fit into one prompt, by its text, how many
        of them were left out.
    """

    def __init__(self) -> None:
        self.passages: dict[str, int] = {}
        self.answers: set[tuple[int, ...]] = set()
        self.unread: dict[str, int] = {}

    def note(self, passage_id: str, rest: str) -> None:
        """Note that `rest`, the end of a passage, was not read. Marks without a word do not count:
        a tokenizer may leave them out."""
        if _WORD.search(rest):
            words = len(rest.split())
            self.passages[passage_id] = max(words, self.passages.get(passage_id, 0))

    def note_inputs(self, inputs: Inputs, passages: Sequence[Passage | None]) -> None:
        """Note which of the passages of tokenised inputs are not in them to their ends."""
        own = inputs.passage_mask
        ends = (inputs.offsets[:, :, 1] * own).amax(1) if own.shape[1] else own.sum(1)
        for passage, end, text in zip(passages, ends.tolist(), inputs.texts, strict=True):
            if passage is not None and end < len(text):
                self.note(passage.id, text[end:])

    def note_unread(self, question: str, passages: int) -> None:
        """Note that so many of a question's passages, none perhaps, did not fit into its prompt."""
        if passages:
            self.unread[question] = passages

    def fitting(self, labels: Tensor, places: int | Tensor | None) -> Tensor:
        """Labels, int64 [N, T], with -100 in place of the tokens after the first `places`, one
        number for all or int64 [N]; those that lose some are noted."""
        if places is None:
            return labels
        most = torch.as_tensor(places).expand(len(labels))
        lost = (torch.arange(labels.shape[1]) >= most[:, None]) & (labels != -100)
        if not lost.any():
            return labels
        for row in labels[lost.any(1)].tolist():
            self.answers.add(tuple(token for token in row if token != -100))
        return labels.masked_fill(lost, -100)

    def take_passages(self) -> dict[str, int]:
        """The noted passages, which are then forgotten."""
        found, self.passages = self.passages, {}
        return found

    def take_answers(self) -> int:
        """How many answers were noted; they are then forgotten."""
        found, self.answers = len(self.answers), set()
        return found

    def take_unread(self) -> dict[str, int]:
        """The noted questions, which are then forgotten."""
        found, self.unread = self.unread, {}
        return found


def cut_by_encoder(encoder: Any, passages: Sequence[Passage]) -> dict[str, int]:
    """The passages that are longer than what an encoder sees: for each its id and how many words
    at its end have no part in its vector. None where the encoder has no limit, or no tokenizer
    that tells where a token stands."""
    limit: int | None = getattr(encoder, "max_tokens", None)
    tokenizer: Any = getattr(encoder, "tokenizer", None)
    cut = Cut()
    if limit is None or not getattr(tokenizer, "is_fast", False) or not passages:
        return {}
    prompt = encoder.prompts.get("passage", "")
    room = limit - tokenizer.num_special_tokens_to_add()
    texts = [prompt + passage_text(passage) for passage in passages]
    # A token has at least one byte.
    long = [at for at, text in enumerate(texts) if len(text.encode()) > room]
    if long:
        read = tokenizer(
            [texts[at] for at in long],
            add_special_tokens=False,
            return_offsets_mapping=True,
            verbose=False,
        )
        for at, offsets in zip(long, read["offset_mapping"], strict=True):
            if len(offsets) > room:
                cut.note(passages[at].id, texts[at][offsets[max(room, 1) - 1][1] :])
    return cut.passages


def first_position(model: nn.Module) -> int:
    """The number of a text's first place, 0 but in RoBERTa and its kin, which count on from the id
    of the padding token."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return 0 if module.padding_idx is None else module.padding_idx + 1
    return 0
