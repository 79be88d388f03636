"""Which passages of a comparison were longer than what its encoder or its readers see."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Cut:
    """How many words at the end of each passage were left out, by its id.

    `encoder` and `reader` are those of the passages that were retrieved; `index` says of all of an
    index how many ``passages`` its encoder has cut and the most ``words``, if that is known.
    """

    encoder: dict[str, int] = field(default_factory=dict)
    reader: dict[str, int] = field(default_factory=dict)
    index: dict[str, int] | None = None

    @classmethod
    def of(cls, setup: Mapping[str, Any]) -> Cut:
        """What a comparison's ``setup.json`` says of it."""
        said = setup.get("cut", {})
        return cls(said.get("encoder", {}), said.get("reader", {}), said.get("index"))

    def as_json(self) -> dict[str, Any]:
        """The entry of ``setup.json``."""
        return {"encoder": self.encoder, "reader": self.reader, "index": self.index}

    def joined(self, other: Cut) -> Cut:
        """What either has cut."""
        return Cut(
            most([self.encoder, other.encoder]),
            most([self.reader, other.reader]),
            other.index if self.index is None else self.index,
        )

    def numbers(self) -> dict[str, int]:
        """``cut_passages`` and ``cut_words`` of the results: how many passages were longer, and the
        most words at the end of one that were left out."""
        whole = self.index or {"passages": len(self.encoder), "words": 0}
        return {
            "cut_passages": whole["passages"] + len(self.reader.keys() - self.encoder.keys()),
            "cut_words": max([whole["words"], *self.encoder.values(), *self.reader.values()]),
        }


def most(found: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """For each passage the most words that one of these has left out."""
    out: dict[str, int] = {}
    for one in found:
        for passage_id, words in one.items():
            out[passage_id] = max(words, out.get(passage_id, 0))
    return out
