r"""The interface of retrievers: they give passages with scores, best first.

A retriever's scores become the prior over passages that RAG and REALM marginalize over (Lewis et
al. 2020, section 2.2; Guu et al. 2020, section 3.2):

\[ p(z \mid x) = \mathrm{softmax}_z(\text{score\_scale} \cdot \text{score}(x, z)). \]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ragbook.corpus import Passage, Question


@dataclass(frozen=True, slots=True, eq=False)
class Retrieved:
    """The k' passages retrieved for one question, best first.

    Attributes
    ----------
    ids: the passages' ids.
    scores: float32 [k'], the retriever's raw scores, never increasing.
    passages: the passages themselves.
    """

    ids: tuple[str, ...]
    scores: np.ndarray
    passages: tuple[Passage, ...]


class Retriever(Protocol):
    """Finds passages for questions.

    Attributes
    ----------
    name: `dense`, `bm25`, `hybrid`, `oracle` or `random`.
    score_scale: factor of the scores in the softmax that gives p(z | x).
    """

    @property
    def name(self) -> str:
        """The retriever's name in tables."""
        ...

    @property
    def score_scale(self) -> float:
        """The factor of the scores in the softmax that gives p(z | x)."""
        ...

    def retrieve(self, questions: Sequence[Question], k: int) -> list[Retrieved]:
        """The k best passages for each question, or all passages if there are fewer than k.

        Raises
        ------
        InputError: k < 1.
        """
        ...
