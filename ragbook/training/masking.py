"""Masked sentences: what REALM is pre-trained on (Guu et al. 2020, section 3.4).

Every sentence of the corpus hides one span. Only such spans are hidden as stand in another passage
too: the passage that the sentence comes from is never shown with it, and what stands nowhere else
cannot be found. (In the paper's corpus nearly every name recurs; in a small one few do.)
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ragbook.corpus import Corpus, Passage
from ragbook.corpus.salient import SalientSpans, Span, sentences
from ragbook.errors import InputError
from ragbook.models.prompts import passage_text
from ragbook.models.span import MAX_SPAN

MASKS = ("salient", "random")
MAX_TOKENS = 64
"""Longest sentence, in tokens; longer ones are left out."""

RANDOM_WORDS = 3
"""A random mask hides one to so many words, as most names and dates have."""


@dataclass(frozen=True)
class Masked:
    """A sentence with a hidden span: x and y of the paper.

    `text` has one mask token for each token of `answer`; `holders` are the positions of the other
    passages in which the answer stands.
    """

    text: str
    answer: tuple[int, ...]
    source: int
    holders: tuple[int, ...]


class Tokens:
    """The corpus's passages as tokens, and which of them hold a run of whole words."""

    def __init__(self, tokenizer: Any, corpus: Sequence[Passage]) -> None:
        texts = [passage_text(passage) for passage in corpus]
        ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
        pieces = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
        self._inner = [piece.startswith("##") for piece in pieces]
        self._joined = [self._join(one) for one in ids]
        self._with: dict[int, set[int]] = defaultdict(set)
        for position, one in enumerate(ids):
            for token in one:
                self._with[token].add(position)

    def holders(self, run: Sequence[int]) -> tuple[int, ...]:
        """Positions of the passages in which the run stands, ascending."""
        wanted = self._join(run)
        rarest = min((self._with[token] for token in run), key=len)
        return tuple(sorted(at for at in rarest if wanted in self._joined[at]))

    def _join(self, run: Sequence[int]) -> str:
        """Words between spaces, so that no word is found inside another."""
        return "".join(f"{'~' if self._inner[i] else ' '}{i}" for i in run) + " "


def masked_sentences(
    tokenizer: Any, corpus: Corpus, masks: str = "salient", seed: int = 0
) -> list[tuple[Masked, ...]]:
    """For each sentence that has any: the ways to mask it.

    Parameters
    ----------
    masks: `salient` hides names and dates, `random` as many runs of words of that sentence, drawn
        with `seed`.

    Raises
    ------
    InputError: no sentence can be masked.
    """
    tagger = SalientSpans(passage.text for passage in corpus)
    tokens = Tokens(tokenizer, corpus)
    out = []
    for source, passage in enumerate(corpus):
        rng = random.Random(f"{seed}-{passage.id}")
        for first, last in sentences(passage.text):
            sentence = passage.text[first:last]
            spans = tagger(sentence)
            if masks == "random":
                spans = random_spans(sentence, max(1, len(spans)), rng)
            ways = [
                way
                for span in spans
                if (way := _masked(tokenizer, tokens, sentence, span, source)) is not None
            ]
            if ways:
                out.append(tuple(ways))
    if not out:
        raise InputError(
            f"No sentence of corpus {corpus.name!r} has a {masks} span that stands in another "
            "passage too, so there is nothing to pre-train on; take a larger corpus."
        )
    return out


def random_spans(sentence: str, count: int, rng: random.Random) -> list[Span]:
    """Up to `count` different runs of one to `RANDOM_WORDS` words."""
    words, at = [], 0
    for word in sentence.split():
        first = sentence.index(word, at)
        at = first + len(word)
        bare = word.strip(".,;:!?\"'()“”‘’")
        if bare:
            begin = first + word.index(bare)
            words.append((begin, begin + len(bare)))
    spans = set()
    for _ in range(count):
        length = min(rng.randint(1, RANDOM_WORDS), len(words))
        if length:
            start = rng.randrange(len(words) - length + 1)
            spans.add((words[start][0], words[start + length - 1][1]))
    return sorted(spans)


def _masked(
    tokenizer: Any, tokens: Tokens, sentence: str, span: Span, source: int
) -> Masked | None:
    """The sentence with that span hidden; None if it is too long or stands nowhere else."""
    first, last = span
    answer = tuple(tokenizer(sentence[first:last], add_special_tokens=False)["input_ids"])
    if not 0 < len(answer) <= MAX_SPAN or tokenizer.unk_token_id in answer:
        return None
    holders = tuple(at for at in tokens.holders(answer) if at != source)
    hidden = " ".join([tokenizer.mask_token] * len(answer))
    text = f"{sentence[:first]}{hidden}{sentence[last:]}"
    if not holders or len(tokenizer(text)["input_ids"]) > MAX_TOKENS:
        return None
    return Masked(text, answer, source, holders)
