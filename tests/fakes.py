"""Stand-ins for models and retrievers: small, exact, without a checkpoint."""

import hashlib
import re
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ragbook.corpus import Corpus, Passage, Question
from ragbook.retrieval import Retrieved

if TYPE_CHECKING:
    from ragbook.models import Encoder
else:
    Encoder = object  # it stands for one, and needs no torch


class HashEncoder(Encoder):
    """Hashed bags of words, each text's vector of length 1: word overlap as inner product."""

    pooling = "mean"
    similarity = "cosine"
    metric = "inner_product"
    score_scale = 20.0

    def __init__(self, name: str = "fake/hash", dimension: int = 64, pause: float = 0.0) -> None:
        self.id = name
        self.sha256 = hashlib.sha256(name.encode()).hexdigest()
        self.dimension = dimension
        self.pause = pause  # seconds for each call, so that a test can kill a build half-way
        self.encoded = 0  # passages so far

    def encode_queries(self, queries: Sequence[str], batch_size: int = 64) -> np.ndarray:
        return np.stack([self._vector(query) for query in queries])

    def encode_passages(self, passages: Sequence[Passage], batch_size: int = 64) -> np.ndarray:
        time.sleep(self.pause)
        self.encoded += len(passages)
        return self.encode_queries([f"{passage.title} {passage.text}" for passage in passages])

    def _vector(self, text: str) -> np.ndarray:
        vector = np.full(self.dimension, 1e-3)
        for word in re.findall(r"\w+", text.lower()):
            digest = hashlib.sha256(word.encode()).digest()
            vector[int.from_bytes(digest[:4], "big") % self.dimension] += 1 - 2 * (digest[4] % 2)
        return (vector / np.linalg.norm(vector)).astype(np.float32)


def animals(n: int = 23, name: str = "animals") -> Corpus:
    """A corpus of n short passages, all different, with words outside ASCII."""
    kinds = ["otter", "heron", "lynx", "newt", "eider", "marten", "pike"]
    places = ["Øresund", "Tagus", "Danube", "Vltava", "Gulf of Bothnia"]
    return Corpus(
        name,
        (
            Passage(
                f"{kinds[i % 7]}-{i}",
                f"{kinds[i % 7].title()} {i}",
                f"The {kinds[i % 7]} number {i} lives near the {places[i % 5]} "
                f"and eats {i * 3} grams of {kinds[(i + 3) % 7]} food daily.",
            )
            for i in range(n)
        ),
    )


class RandomEncoder:
    """Vectors drawn by position: the n-th text has the n-th vector, whatever it says."""

    score_scale = 20.0

    def to(self, device: str):
        return self  # it computes nothing

    def encode_passages(self, passages):
        vectors = np.random.default_rng(0).normal(size=(len(passages), 8)).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    encode_queries = encode_passages


class FixedRetriever:
    """The same passages in the same order, whatever is asked.

    Their scores are one row for every question, or a row each for the questions it is asked.
    """

    name = "fixed"

    def __init__(
        self, passages: Iterable[Passage], scores: Sequence | np.ndarray, score_scale: float = 1.0
    ) -> None:
        self.passages, self.score_scale = tuple(passages), score_scale
        self.scores = np.asarray(scores, dtype=np.float32)
        self.asked = 0  # the k it was last asked for

    def retrieve(self, questions: Sequence[Question], k: int) -> list[Retrieved]:
        self.asked = k
        shown = self.passages[:k]
        ids = tuple(passage.id for passage in shown)
        rows = np.broadcast_to(self.scores, (len(questions), len(self.passages))).copy()
        return [Retrieved(ids, row[:k], shown) for row in rows]
