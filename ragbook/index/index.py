r"""The passage index: a search over the passages' vectors (Faiss, Johnson et al. 2017), exact or
approximate, in one part or in several.

The score of passage z for query x, from the vectors \(p = E_P(z)\) and \(q = E_Q(x)\), is higher
for better passages with every similarity (Karpukhin et al. 2020, equation 1 and section 5.2):

* `dot`: \(q \cdot p\), DPR's own;
* `cosine`: the same, with vectors that the encoder has scaled to length 1;
* `l2`: \(-\lVert q - p \rVert^2\).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ragbook import manifests
from ragbook.errors import InputError
from ragbook.index.manifest import (
    FORMAT_VERSION,
    KIND,
    MANIFEST,
    UNSAID,
    Manifest,
    conventions,
    digest,
    hash_problems,
    is_damaged,
    opening_problems,
    read_manifest,
    size_problems,
)
from ragbook.index.parts import Found, Part, best, faiss_file, open_parts
from ragbook.index.passages import StoredPassages
from ragbook.index.structure import DamagedError

if TYPE_CHECKING:
    from ragbook.models import Encoder

PASSAGES_FILE = "passages.arrow"


class PassageIndex:
    """An index folder, opened: `build_index` makes one, `PassageIndex.open` opens it again.

    Attributes
    ----------
    path: the folder.
    manifest: the content of `manifest.json`.
    digest: SHA-256 of the manifest without its checksums, which identifies the index in results.
    corpus: the passages, memory-mapped; a position i that a search returns means `corpus[i]`.
    parts: the opened Faiss files, in the corpus's order.
    """

    def __init__(
        self, path: Path, manifest: Manifest, corpus: StoredPassages, parts: list[Part]
    ) -> None:
        self.path = path
        self.manifest = manifest
        self.digest = digest(manifests.read(path / MANIFEST))
        self.corpus = corpus
        self.parts = parts

    @classmethod
    def open(cls, path: Path | str, verified: bool = False) -> PassageIndex:
        """Open an index folder.

        The manifest's own hash, all sizes, shapes and bounds, and the checksums of what is small
        are checked (`ragbook.index.checksums`), and where offsets, lists and links lead before they
        are followed. So a damaged index never ends the process, but a changed number within the
        vectors or a changed letter in a text of a large index is only found with `verified`.

        Parameters
        ----------
        verified: whether to check every byte first, as `verify` does.

        Raises
        ------
        InputError: `path` is not an index, or one of another version, or a damaged one.
        """
        import faiss

        path = Path(path)
        if verified and (problems := verify(path)):
            raise InputError(f"The index is damaged: {problems[0]}; build it again.")
        manifest = read_manifest(path)
        if problems := opening_problems(path, manifest):
            raise InputError(f"The index is damaged: {problems[0]}; build it again.")
        count = manifest["index"]["parameters"].get("parts", 1)
        if not count <= min(len(manifest["files"]), manifest["corpus"]["passages"]):
            raise InputError(
                f"{path / MANIFEST} does not list {count:,} parts; build the index again."
            )
        needed = {PASSAGES_FILE, *(faiss_file(number, count) for number in range(count))}
        if missing := needed - manifest["files"].keys():
            raise InputError(
                f"{path / MANIFEST} does not list {min(missing)}; build the index again."
            )
        entry = manifest["corpus"]
        batches = manifest.get("checksums", {}).get(PASSAGES_FILE, {}).get("batches", ())
        corpus = StoredPassages(path / PASSAGES_FILE, entry["name"], entry["sha256"], batches)
        corpus.documents = Path(entry["path"]) if "path" in entry else None
        try:
            parts = open_parts(path, manifest)
        except (RuntimeError, MemoryError, ValueError, OSError) as error:
            why = f" ({error})" if isinstance(error, DamagedError) else ""
            raise InputError(
                f"{path / faiss_file(0, count)} cannot be read, or it is damaged{why}; build the "
                "index again."
            ) from None
        metrics = {faiss.METRIC_INNER_PRODUCT: "inner_product", faiss.METRIC_L2: "l2"}
        found = (
            len(corpus),
            sum(map(len, parts)),
            {part.index.d for part in parts},
            {metrics.get(part.index.metric_type) for part in parts},
            {type(part.index).__name__ for part in parts},
        )
        said = (
            entry["passages"],
            entry["passages"],
            {manifest["encoder"]["dimension"]},
            {manifest["encoder"]["metric"]},
            {manifest["index"]["type"]},
        )
        if found != said:
            raise InputError(
                f"The index at {path} contradicts its manifest (passages, vectors, dimension, "
                f"metric, type are {found}, the manifest says {said}); build it again."
            )
        return cls(path, manifest, corpus, parts)

    def __len__(self) -> int:
        return len(self.corpus)

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self.manifest["encoder"]["dimension"]

    def check_encoder(self, encoder: Encoder) -> None:
        """Refuse an encoder whose vectors mean something else than this index's.

        The weights decide, not the name they go by: one checkpoint at two paths is one encoder. Of
        two towers it is the passages': any query tower that was trained to it may search, after a
        prompt of its own. Pooling, prompts, the most tokens and the similarity must be the same.

        Raises
        ------
        InputError: the encoders differ; the sentence names both.
        """
        built, given = self.manifest["encoder"], encoder_record(encoder)
        if not means_the_same(built, encoder):
            raise InputError(
                f"The index at {self.path} was built with encoder {_described(built)}, not with "
                f"{_described(given)}; search with its own encoder or build another index."
            )

    def search(self, query_vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k passages with the highest scores, best first. An approximate index may miss some of
        them; the scores are exact in both cases.

        Parameters
        ----------
        query_vectors: float32 [B, d].
        k: how many passages; k' = min(k, number of passages) are returned.

        Returns
        -------
        scores: float32 [B, k'], inner products or negative squared distances.
        positions: int64 [B, k'], into `corpus`; of passages with equal scores the first in the
            corpus comes first, also where the list is cut. If an approximate index finds fewer than
            k', the list ends with -1.

        Raises
        ------
        InputError: k < 1, or vectors of another shape or not finite.
        """
        if k < 1:
            raise InputError(f"k must be 1 or more, not {k}.")
        queries = np.ascontiguousarray(query_vectors, dtype=np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.dimension:
            raise InputError(
                f"Query vectors have shape {queries.shape}; this index takes [B, {self.dimension}]."
            )
        if not np.isfinite(queries).all():
            raise InputError("A query vector has entries that are not finite numbers.")
        k = min(k, len(self))
        if len(queries) == 0:
            return np.empty((0, k), np.float32), np.empty((0, k), np.int64)
        found = self._searched(queries, k)
        scores, positions = found[0] if len(found) == 1 else best(found, k)
        if not np.isfinite(scores[positions >= 0]).all():
            raise InputError(
                f"The index at {self.path} is damaged (a score is not a finite number); build it "
                "again."
            )
        return scores, positions

    def _searched(self, queries: np.ndarray, k: int) -> list[Found]:
        """The results of every part."""
        return [part.search(queries, k) for part in self.parts]

    def vectors(self, positions: np.ndarray) -> np.ndarray:
        """The passages' own vectors, float32 [n, d], as the encoder gave them.

        Parameters
        ----------
        positions: int64 [n], into `corpus`.

        Raises
        ------
        InputError: a position does not belong to a passage.
        """
        rows = np.ascontiguousarray(positions, dtype=np.int64)
        if rows.ndim != 1 or ((rows < 0) | (rows >= len(self))).any():
            raise InputError(
                f"Positions of passages must be a list of numbers from 0 to {len(self) - 1}."
            )
        vectors = np.empty((len(rows), self.dimension), np.float32)
        for part in self.parts:
            own = (rows >= part.first) & (rows < part.first + len(part))
            if own.any():
                vectors[own] = part.read(rows[own] - part.first)
        return vectors


def encoder_record(encoder: Encoder) -> Manifest:
    """The manifest's entry about an encoder: its name, and what its passage vectors depend on.
    Settings with their usual values are left out; an encoder of your own need not have them."""
    names = ("id", "sha256", "pooling", "dimension", "similarity", "metric")
    record = {name: getattr(encoder, name) for name in names}
    for name in ("prompts", "max_tokens"):
        value = getattr(encoder, name, UNSAID[name])
        if value != UNSAID[name]:
            record[name] = value
    query = getattr(encoder, "query_id", None)
    return record if query is None else record | {"query_encoder": query}


def means_the_same(record: Manifest, encoder: Encoder) -> bool:
    """Whether an encoder may search vectors made with the encoder of a manifest's entry. If it has
    a separate query tower, the query prompt belongs to that tower and may differ."""
    built, given = conventions(record), conventions(encoder_record(encoder))
    if getattr(encoder, "query_sha256", encoder.sha256) != encoder.sha256:
        for entry in (built, given):
            entry["prompts"] = {k: text for k, text in entry["prompts"].items() if k != "query"}
    return built == given


def _described(record: Manifest) -> str:
    said = conventions(record)
    prompts = ", ".join(f"{role} after {text!r}" for role, text in said["prompts"].items())
    return (
        f"{record['id']} ({record['pooling']} pooling, {record['similarity']}, "
        f"{prompts or 'no prompts'}, {said['max_tokens']} tokens, weights {record['sha256'][:12]})"
    )


def verify(path: Path | str) -> list[str]:
    """Check every byte of an index folder against its manifest.

    Returns
    -------
    One sentence for each problem; an empty list if there is none.

    Raises
    ------
    InputError: `path` is not an index, or an index of another version.
    """
    path = Path(path)
    parts = (path / PASSAGES_FILE, *path.glob("faiss*.index"))
    if not (path / MANIFEST).is_file() and len(parts) > 1 and parts[0].is_file():
        return [f"{path / MANIFEST} is missing"]
    try:
        manifest = read_manifest(path)
    except InputError as error:
        there = (path / MANIFEST).is_file() and any(part.is_file() for part in parts)
        if there and is_damaged(path, KIND, FORMAT_VERSION):
            return [str(error)]
        raise
    problems = size_problems(path, manifest) or hash_problems(path, manifest)
    if problems:
        return problems
    try:
        index = PassageIndex.open(path)
    except InputError as error:
        return [str(error)]
    return _content_problems(index)


def _content_problems(index: PassageIndex) -> list[str]:
    """Whether the passages are the corpus that the manifest names."""
    from ragbook.corpus import passages_sha256

    found = passages_sha256(index.corpus)
    said = index.manifest["corpus"]["sha256"]
    return [] if found == said else [f"{index.path} holds other passages than its manifest says"]
