"""Masked sentences: what REALM is pre-trained on (Guu et al. 2020, section 3.4).

Every sentence of the corpus hides one span. The article's title comes before it, as in passages,
because otherwise "he" and "it" would refer to nothing; words of the title are never hidden. A span
is hidden only if another passage can tell it: the passage that the sentence comes from is never
shown with it, so the span must be in another one, of the same article or with another name of the
sentence. (In all of Wikipedia nearly every fact is told more than once; in a small corpus few are.)
"""

from __future__ import annotations

import hashlib
import random
import re
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
"""Longest sentence with its title, in tokens; longer ones are left out."""

RANDOM_WORDS = 3
"""A random mask hides one to three words, as many as most names and dates have."""


@dataclass(frozen=True)
class Masked:
    """A sentence with a hidden span: x and y of the paper.

    `text` has one mask token for each token of `answer`; `source` is the position in the corpus of
    the sentence's own passage, `holders` the positions of the other passages that can tell it.
    """

    text: str
    answer: tuple[int, ...]
    source: int
    holders: tuple[int, ...]


class Tokens:
    """The corpus's passages as tokens, to find those that hold a run of whole words."""

    def __init__(self, tokenizer: Any, corpus: Sequence[Passage]) -> None:
        texts = [passage_text(passage) for passage in corpus]
        ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
        self._tokenizer = tokenizer
        pieces = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
        self._inner = [piece.startswith("##") for piece in pieces]
        self._joined = [self._join(one) for one in ids]
        self._with: dict[int, set[int]] = defaultdict(set)
        for position, one in enumerate(ids):
            for token in one:
                self._with[token].add(position)

    def of(self, text: str) -> tuple[int, ...]:
        """The tokens of a piece of text."""
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def may_hide(self, answer: Sequence[int], title: str) -> bool:
        """Whether the answer can be hidden: it is short enough, has no unknown token and is not in
        the title."""
        known = self._tokenizer.unk_token_id not in answer
        told = self._join(answer) in self._join(self.of(title))
        return 0 < len(answer) <= MAX_SPAN and known and not told

    def holders(self, run: Sequence[int]) -> tuple[int, ...]:
        """Positions of the passages that hold the run of tokens, ascending."""
        wanted = self._join(run)
        rarest = min((self._with.get(token, set()) for token in run), key=len, default=set())
        return tuple(sorted(at for at in rarest if wanted in self._joined[at]))

    def _join(self, run: Sequence[int]) -> str:
        """Words between spaces, so that no word is found inside another."""
        return "".join(f"{'~' if self._inner[i] else ' '}{i}" for i in run) + " "


def masked_sentences(
    tokenizer: Any, corpus: Corpus, masks: str = "salient", seed: int = 0
) -> list[tuple[Masked, ...]]:
    """The ways to mask each sentence, for all sentences that have any.

    Parameters
    ----------
    masks: `salient` hides names and dates, `random` the same number of random runs of words of the
        sentence, drawn with `seed`.

    Raises
    ------
    InputError: no sentence can be masked.
    """
    tagger = SalientSpans(passage.text for passage in corpus)
    tokens = Tokens(tokenizer, corpus)
    article: dict[str, set[int]] = defaultdict(set)
    for position, passage in enumerate(corpus):
        article[passage.title].add(position)
    out = []
    for source, passage in enumerate(corpus):
        rng = random.Random(f"{seed}-{passage.id}")
        own = article[passage.title] if passage.title else set()
        for first, last in sentences(passage.text):
            sentence = passage.text[first:last]
            salient = tagger(sentence)
            hidden = salient
            if masks == "random":
                hidden = random_spans(sentence, max(1, len(salient)), rng)
            ways = []
            for span in hidden:
                near = own.union(
                    *(
                        tokens.holders(tokens.of(sentence[a:b]))
                        for a, b in salient
                        if (b <= span[0] or span[1] <= a) and not re.search(r"\d", sentence[a:b])
                    )
                )
                answer = tokens.of(sentence[slice(*span)])
                holders = tuple(at for at in tokens.holders(answer) if at != source and at in near)
                text = _hidden(tokenizer, passage.title, sentence, span, len(answer))
                if holders and tokens.may_hide(answer, passage.title) and text is not None:
                    ways.append(Masked(text, answer, source, holders))
            if ways:
                out.append(tuple(ways))
    if not out:
        raise InputError(
            f"No sentence of corpus {corpus.name!r} has a {masks} span that another passage could "
            "tell, so there is nothing to pre-train on; take a larger corpus."
        )
    return out


def _hidden(tokenizer: Any, title: str, sentence: str, span: Span, length: int) -> str | None:
    """Title and sentence with the span hidden; None if they are too long."""
    first, last = span
    masks = " ".join([tokenizer.mask_token] * length)
    text = f"{title}. " if title else ""
    text += f"{sentence[:first]}{masks}{sentence[last:]}"
    return text if len(tokenizer(text)["input_ids"]) <= MAX_TOKENS else None


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


def sha256_of_masked(masked: Sequence[Sequence[Masked]]) -> str:
    """A hash of the masked sentences, which identifies a training on them."""
    return hashlib.sha256(repr(masked).encode()).hexdigest()
