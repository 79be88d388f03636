"""What methods and their retrievers have left out of passages and answers, gathered from their
models; see :mod:`ragbook.models.limits`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ragbook.corpus import Passage


def encoders_of(retriever: Any) -> list[Any]:
    """The encoders with which a retriever's passages are found, its parts' included."""
    parts = [*getattr(retriever, "retrievers", ()), getattr(retriever, "fallback", None)]
    own = getattr(retriever, "encoder", None)
    return [*([] if own is None else [own]), *(e for p in parts if p for e in encoders_of(p))]


def notes_of(method: Any) -> Any:
    """The `Cut` of a method's reader or language model; None for one that keeps none."""
    for holder in (getattr(method, "reader", None), getattr(method, "lm", None)):
        if (cut := getattr(holder, "cut", None)) is not None:
            return cut
    return None


def read_short(methods: Iterable[Any]) -> dict[str, int]:
    """The passages that the methods' readers have cut since the last call, by their ids, and how
    many words of each were not read."""
    out: dict[str, int] = {}
    for cut in {id(cut): cut for method in methods if (cut := notes_of(method))}.values():
        for passage_id, words in cut.take_passages().items():
            out[passage_id] = max(words, out.get(passage_id, 0))
    return out


def found_by_part(retrievers: Iterable[Any], passages: Sequence[Passage]) -> dict[str, int]:
    """Those of the passages that are longer than what an encoder of the retrievers sees, and how
    many words of each it does not."""
    from ragbook.models.limits import cut_by_encoder

    out: dict[str, int] = {}
    for encoder in {id(e): e for r in retrievers for e in encoders_of(r)}.values():
        for passage_id, words in cut_by_encoder(encoder, passages).items():
            out[passage_id] = max(words, out.get(passage_id, 0))
    return out
