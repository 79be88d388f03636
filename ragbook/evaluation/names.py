"""What methods and their measures of evidence are called in sentences and notes."""

from __future__ import annotations

from collections.abc import Sequence

CALLED = {
    "closed-book": "the closed-book reader",
    "in-context": "in-context retrieval",
    "knn-lm": "kNN-LM",
    "realm": "REALM",
    "rag-sequence": "RAG-Sequence",
    "rag-token": "RAG-Token",
    "fid": "FiD",
}
"""A method's name within a sentence; see `called`."""

ROWS = CALLED | {"closed-book": "closed-book"}
"""A method's name where it begins a row or heads a column; see `row_name`."""

EVIDENCE = {
    "realm": "posterior p(z|x,y)",
    "rag-sequence": "posterior p(z|x,y)",
    "rag-token": "mean over tokens of p(z_t|x,y<=t)",
    "fid": "attention",
    "in-context": "attention",
    "knn-lm": "share of p_kNN",
}
"""What a method's evidence measures. These are different things, so they have no common scale."""

OWN_EVIDENCE = "its own measure"
"""The evidence of a method that is not in `EVIDENCE`."""


def called(name: str) -> str:
    """A method's name within a sentence; that of a method of your own is as it is."""
    return CALLED.get(name, name)


def row_name(name: str) -> str:
    """A method's name in a table or a figure, without the words that only a sentence needs."""
    return ROWS.get(name, name)


def listed(words: Sequence[str]) -> str:
    """ "a", "a and b", or "a, b and c"."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def capital(sentence: str) -> str:
    """With a capital at its beginning, unless it begins with a name that has its own spelling."""
    return sentence if sentence.startswith("kNN-LM") else sentence[:1].upper() + sentence[1:]


def measures(methods: Sequence[str]) -> str:
    """Which measure each method's evidence is, as a list within a sentence."""
    by_measure: dict[str, list[str]] = {}
    for name in methods:
        by_measure.setdefault(EVIDENCE.get(name, OWN_EVIDENCE), []).append(name)
    return "; ".join(f"{measure} for {listed(names)}" for measure, names in by_measure.items())
