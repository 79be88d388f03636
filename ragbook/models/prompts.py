"""Question and passage as one input: the question is never cut away by a long passage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ragbook.corpus import Passage

MAX_INPUT, MAX_QUESTION = 208, 48
"""Most tokens of one input, and of the question in it. A hundred words of Wikipedia are about 140
tokens."""


@dataclass
class Inputs:
    """N tokenised inputs of at most L tokens, padded on the right."""

    tensors: dict[
        str, Tensor
    ]  # what the encoder takes: input_ids, attention_mask, ...; int64 [N, L]
    passage_mask: Tensor  # bool [N, L]: the passage's own tokens
    offsets: Tensor  # int64 [N, L, 2]: each token's characters in `texts`
    texts: list[str]  # the passages as they were read, title first

    @property
    def mask(self) -> Tensor:
        """int64 [N, L], 1 on real tokens."""
        return self.tensors["attention_mask"]


Layout = Callable[[Any, Sequence[str], Sequence[Passage | None]], Inputs]
"""(tokenizer, questions, passages) -> one input for each pair; a passage None means the question
alone."""


def passage_text(passage: Passage) -> str:
    """A passage as every model reads it: title, then text."""
    return f"{passage.title}. {passage.text}" if passage.title else passage.text


def shorten(tokenizer: Any, question: str, max_tokens: int = MAX_QUESTION) -> str:
    """The question's beginning, at most `max_tokens` tokens of it.

    A character of several tokens (a Hangul syllable, say) is left out if not all of them fit.
    """
    offsets = tokenizer(
        question, add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )["offset_mapping"]
    if not offsets:
        return question[:1]
    if len(offsets) <= max_tokens:
        return question[: offsets[-1][1]]
    return question[: min(offsets[max_tokens - 1][1], offsets[max_tokens][0])]


def pair(
    tokenizer: Any,
    questions: Sequence[str],
    passages: Sequence[Passage | None],
    max_input: int = MAX_INPUT,
    max_question: int = MAX_QUESTION,
) -> Inputs:
    """Tokenise (question, passage) pairs; the passage is None for a question alone.

    A long question keeps its first `max_question` tokens, a long passage as many as then fit into
    `max_input`. Either all questions have a passage or none has one.
    """
    short = {asked: shorten(tokenizer, asked, max_question) for asked in set(questions)}
    texts = [passage_text(passage) if passage else "" for passage in passages]
    paired = any(passage is not None for passage in passages)
    encoding = tokenizer(
        [short[question] for question in questions],
        texts if paired else None,
        truncation="only_second" if paired else True,
        max_length=max_input,
        padding=True,
        return_offsets_mapping=True,
    )
    # The tokenizer's own conversion to tensors flattens nested lists one by one in Python.
    tensors = {name: torch.tensor(value) for name, value in encoding.items()}
    offsets = tensors.pop("offset_mapping")
    passage_mask = torch.zeros_like(tensors["input_ids"], dtype=torch.bool)
    if paired:
        for row in range(len(texts)):
            second = [part == 1 for part in encoding.sequence_ids(row)]
            passage_mask[row] = torch.tensor(second)
    return Inputs(tensors, passage_mask, offsets, texts)


@dataclass(frozen=True)
class SlashLayout:
    """Passage and question as RAG's generators read them: "title / text // question".

    A long passage is cut before the question, which keeps up to half of `max_input` tokens.
    """

    title_sep: str = " / "
    doc_sep: str = " // "
    prefix: str = ""
    max_input: int = 300

    def __call__(
        self, tokenizer: Any, questions: Sequence[str], passages: Sequence[Passage | None]
    ) -> Inputs:
        rows, texts = [], []
        for question, passage in zip(questions, passages, strict=True):
            asked = shorten(tokenizer, question, self.max_input // 2)
            shown = f"{passage.title}{self.title_sep}{passage.text}" if passage else ""
            before = f"{self.prefix}{shown}{self.doc_sep}" if passage else self.prefix
            span = (len(self.prefix), len(self.prefix) + len(shown))
            rows.append(cut_input(tokenizer, before + asked, span, self.max_input))
            texts.append(shown)
        return padded_inputs(tokenizer, rows, texts)


@dataclass(frozen=True)
class FidLayout:
    """Question and passage as FiD reads them: "question: ... title: ... context: ..." (Izacard &
    Grave 2021, section 3).

    A long passage is cut at its end; the question keeps up to half of `max_input` tokens.
    `special` is whether inputs end with T5's end token; the original checkpoints were trained
    without it.
    """

    max_input: int = 250
    special: bool = True

    def __call__(
        self, tokenizer: Any, questions: Sequence[str], passages: Sequence[Passage | None]
    ) -> Inputs:
        rows, texts = [], []
        for question, passage in zip(questions, passages, strict=True):
            asked = f"question: {shorten(tokenizer, question, self.max_input // 2)}"
            shown = f"title: {passage.title} context: {passage.text}" if passage else ""
            text = f"{asked} {shown}" if passage else asked
            span = (len(asked) + 1, len(text)) if passage else (len(text), len(text))
            rows.append(cut_input(tokenizer, text, span, self.max_input, self.special))
            texts.append(shown)
        return padded_inputs(tokenizer, rows, texts)


def widened(layout: Any, max_input: int) -> Layout:
    """The same layout with room for inputs of `max_input` tokens."""
    return (
        partial(pair, max_input=max_input)
        if layout is pair
        else replace(layout, max_input=max_input)
    )


@dataclass(frozen=True)
class Together:
    """Several passages joined to one, the best one last; `starts` are the positions in its text
    where they begin, in characters, and `numbers` the numbers of these passages."""

    passage: Passage
    starts: tuple[int, ...]
    numbers: tuple[int, ...]

    def owner(self, inputs: Inputs, row: int) -> Tensor:
        """The passage of each token of an input that holds these: int64 [L], -1 elsewhere."""
        shown = inputs.texts[row]
        shift = max(shown.find(self.passage.text), 0)  # a layout may add words before the text
        begins = inputs.offsets[row, :, 0] - shift
        at = torch.searchsorted(torch.tensor(self.starts), begins, right=True) - 1
        numbers = torch.tensor(self.numbers)[at.clamp_min(0)]
        return torch.where(inputs.passage_mask[row], numbers, -1)


def together(tokenizer: Any, passages: Sequence[Passage], max_tokens: int) -> Together:
    """Join passages to one, the best one last, for a model that reads them in one input.

    Parameters
    ----------
    passages: best first, at least one.
    max_tokens: the most tokens of all together. Passages that do not fit are left out, the worst
        first; the best one is always kept.
    """
    shown: list[str] = []
    spare = max_tokens
    for passage in passages:
        text = passage_text(passage)
        ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        if shown and len(ids) > spare:
            break
        shown.append(text)
        spare -= len(ids)
    numbers = range(len(shown) - 1, -1, -1)
    starts, at = [], 0
    for z in numbers:
        starts.append(at)
        at += len(shown[z]) + 1
    text = " ".join(shown[z] for z in numbers)
    return Together(Passage(passages[0].id, "", text), tuple(starts), tuple(numbers))


def cut_input(
    tokenizer: Any, text: str, span: tuple[int, int], max_input: int, special: bool = True
) -> tuple[list[int], list[tuple[int, int]]]:
    """Token ids of an input, cut to `max_input`, whose passage takes the characters `span`; and for
    each token its characters in the passage, or (-1, -1) outside it."""
    read = tokenizer(text, add_special_tokens=special, return_offsets_mapping=True)
    ids, offsets = read["input_ids"], read["offset_mapping"]
    added = tokenizer.get_special_tokens_mask(ids, already_has_special_tokens=True)
    first, last = span
    places = [
        (a - first, b - first) if not extra and first <= a and b <= last else (-1, -1)
        for (a, b), extra in zip(offsets, added, strict=True)
    ]
    # Only the last tokens of the passage are dropped; the words around it are kept.
    spare = len(ids) - max_input
    own = [at for at, place in enumerate(places) if place[0] >= 0]
    cut = set(own[-spare:]) if spare > 0 else set()
    kept = [at for at in range(len(ids)) if at not in cut]
    return [ids[at] for at in kept], [places[at] for at in kept]


def padded_inputs(
    tokenizer: Any, rows: Sequence[tuple[list[int], list[tuple[int, int]]]], texts: list[str]
) -> Inputs:
    """The results of `cut_input` as inputs, padded to the longest."""
    width = max(len(ids) for ids, _ in rows)
    ids = torch.full((len(rows), width), tokenizer.pad_token_id)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    offsets = torch.full((len(rows), width, 2), -1)
    for at, (own, places) in enumerate(rows):
        ids[at, : len(own)], mask[at, : len(own)] = torch.tensor(own), 1
        offsets[at, : len(own)] = torch.tensor(places)
    inside = offsets[:, :, 0] >= 0
    return Inputs({"input_ids": ids, "attention_mask": mask}, inside, offsets.clamp_min(0), texts)
