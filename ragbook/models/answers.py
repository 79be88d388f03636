"""An answer's text and its tokens: after a prompt, in a passage, and turned back into text.

Many tokenizers have different tokens for a word after a space and at the beginning of a text. So an
answer is tokenised together with the end of the prompt before it, and then split off.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from tokenizers.decoders import WordPiece

from ragbook.corpus import Passage
from ragbook.models.prompts import passage_text

RUN_WORDS = 24
"""The most words of a run that `word_runs` tokenises by itself; answers are shorter."""

WORD = re.compile(r"\w+(?:(?:-|(?<=\d)[.,:](?=\d))\w+)*|[^\w\s]")
"""A word of a passage: letters and digits, with the hyphens and the points within numbers that hold
it together (Koh-i-Noor, 7.2, 1,440), or one other mark."""


def following(tokenizer: Any, before: str, text: str) -> list[int]:
    """Token ids of `text` as it follows `before`, without special tokens.

    The two are tokenised together; a token across the boundary belongs to `text`.
    """
    read = tokenizer(
        before + text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )
    ends = [end for _, end in read["offset_mapping"]]
    first = next((at for at, end in enumerate(ends) if end > len(before)), len(ends))
    return read["input_ids"][first:]


@lru_cache(maxsize=4096)  # several methods ask for the same passages
def word_runs(
    tokenizer: Any, text: str, before: str = ""
) -> list[tuple[list[int], list[bool], list[bool]]]:
    """Every run of whole words of a text, as the tokens of an answer that follows `before`.

    WordPiece gives a word the same tokens everywhere, so that the whole text is one piece. With
    other tokenizers, tokens depend on the text before them, so each run is tokenised by itself and
    is one piece, at most `RUN_WORDS` words long.

    Returns
    -------
    Pieces that together hold all runs: for each its tokens, whether a run may begin with each token
    and whether a word ends with it.
    """
    words = [match.span() for match in WORD.finditer(text)]
    if isinstance(tokenizer.backend_tokenizer.decoder, WordPiece):
        encoded = tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        starts, stops = {first for first, _ in words}, {stop for _, stop in words}
        begins = [first in starts for first, _ in encoded["offset_mapping"]]
        ends = [stop in stops for _, stop in encoded["offset_mapping"]]
        return [(encoded["input_ids"], begins, ends)]
    runs = []
    for at, (first, _) in enumerate(words):
        stops = [stop for _, stop in words[at : at + RUN_WORDS]]
        runs.append((text[first : stops[-1]], {stop - first + len(before) for stop in stops}))
    if not runs:
        return []
    read = tokenizer(
        [before + run for run, _ in runs],
        add_special_tokens=False,
        return_offsets_mapping=True,
        verbose=False,
    )
    out = []
    for ids, offsets, (_, stops) in zip(
        read["input_ids"], read["offset_mapping"], runs, strict=True
    ):
        own = [at for at, (_, end) in enumerate(offsets) if end > len(before)]
        begins = [number == 0 for number in range(len(own))]
        out.append(([ids[at] for at in own], begins, [offsets[at][1] in stops for at in own]))
    return out


def find(tokens: Sequence[int], piece: Sequence[int]) -> int:
    """First position of the run `piece` in `tokens`, -1 if it is not there."""
    wanted = list(piece)
    for start in range(len(tokens) - len(wanted) + 1):
        if list(tokens[start : start + len(wanted)]) == wanted:
            return start
    return -1


def detokenize(tokenizer: Any, tokens: Sequence[int], passages: Sequence[Passage] = ()) -> str:
    """The text of an answer's tokens, without special tokens.

    It is copied from the first of `passages` that contains these tokens, because an uncased
    tokenizer loses capitals and accents. If none does, it is joined from the tokens. WordPiece does
    not store spaces, so joining gives "bourke - white" and "8. 13"; such spaces inside words and
    numbers are removed.
    """
    for text in map(passage_text, passages):
        read = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        at = find(read["input_ids"], tokens) if tokens else -1
        if at >= 0:
            offsets = read["offset_mapping"]
            return text[offsets[at][0] : offsets[at + len(tokens) - 1][1]].strip()
    text = tokenizer.decode(list(tokens), skip_special_tokens=True).strip()
    if isinstance(tokenizer.backend_tokenizer.decoder, WordPiece):
        text = re.sub(r"(?<=\w) ?([-'’/]) ?(?=\w)", r"\1", text)
        text = re.sub(r"(?<=\d) ?([.,:]) ?(?=\d)", r"\1", text)
    return text
