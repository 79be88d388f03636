"""An answer's text and its tokens: how they stand after a prompt, in a passage, and read back.

A tokenizer may spell a word differently after a space than at the beginning of a text, so an answer
is tokenised together with the end of the prompt that it follows, and split off afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from tokenizers.decoders import WordPiece

from ragbook.corpus import Passage
from ragbook.models.prompts import passage_text

RUN_WORDS = 24
"""Words of the runs that `word_runs` spells at a time; an answer is shorter."""


def following(tokenizer: Any, before: str, text: str) -> list[int]:
    """Token ids of `text` where it stands right after `before`, without special tokens.

    Both are one token sequence: a token that reaches over the boundary counts as the text's.
    """
    read = tokenizer(
        before + text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )
    ends = [end for _, end in read["offset_mapping"]]
    first = next((at for at, end in enumerate(ends) if end > len(before)), len(ends))
    return read["input_ids"][first:]


def word_runs(
    tokenizer: Any, text: str, before: str = ""
) -> list[tuple[list[int], list[bool], list[bool]]]:
    """Every run of whole words of a text as the tokens of an answer that stands after `before`.

    WordPiece spells a word the same wherever it stands, so that its text is one piece. Other
    tokenizers spell each run by itself, for their tokens depend on what stands before them.

    Returns
    -------
    Pieces that together hold all runs: the tokens, whether a word begins with each of them and
    whether a word ends with it. Runs begin where a word begins; they are cut after `RUN_WORDS`
    words where each is spelled by itself.
    """
    if isinstance(tokenizer.backend_tokenizer.decoder, WordPiece):
        encoded = tokenizer(text, add_special_tokens=False, verbose=False)
        tokens, words = encoded["input_ids"], [*encoded.word_ids(), None]
        ends = [words[at] != words[at + 1] for at in range(len(tokens))]
        return [(tokens, [True, *ends[:-1]], ends)]
    words = [match.span() for match in re.finditer(r"\w+|[^\w\s]", text)]
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
    """First place where `piece` stands in `tokens`, -1 if nowhere."""
    wanted = list(piece)
    for start in range(len(tokens) - len(wanted) + 1):
        if list(tokens[start : start + len(wanted)]) == wanted:
            return start
    return -1


def detokenize(tokenizer: Any, tokens: Sequence[int], passages: Sequence[Passage] = ()) -> str:
    """Text of an answer's tokens, special ones left out.

    It is spelled as the first of `passages` that holds these tokens spells it: an uncased tokenizer
    knows neither capitals nor accents, but whoever copies a name copies them too. What no passage
    holds is joined from its pieces. WordPiece keeps no spaces, so joining writes "bourke - white"
    and "8. 13"; what stood inside a word or a number is closed up again.
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
