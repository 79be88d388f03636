"""Whether a text holds an answer: the field's token match, for evaluation and training."""

import unicodedata
from collections.abc import Sequence
from functools import lru_cache

import regex  # Unicode classes, which re lacks

# A word (letters, digits and their marks), or a single other character that is neither a separator
# nor a control character.
_TOKEN = regex.compile(r"[\p{L}\p{N}\p{M}]+|[^\p{L}\p{N}\p{M}\p{Z}\p{C}]")


@lru_cache(maxsize=65_536)  # the same passages are searched for many questions' answers
def _tokens(text: str) -> str:
    """The lower-cased tokens of the NFD-normalized text, with a space around each."""
    return " ".join(["", *_TOKEN.findall(unicodedata.normalize("NFD", text)), ""]).lower()


def has_answer(text: str, answers: Sequence[str]) -> bool:
    """Whether the text holds the tokens of one of the answers, one after the other.

    Tokens are compared lower-cased and NFD-normalized, so "US" is not found in "because"
    (Karpukhin et al. 2020, section 5; Chen et al. 2017). An answer without tokens is never found.
    """
    tokens = _tokens(text)
    return any(answer.strip() and answer in tokens for answer in map(_tokens, answers))
