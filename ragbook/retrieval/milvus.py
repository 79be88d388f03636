"""Dense retrieval from a Milvus collection, which holds both passages and vectors.

An address such as `http://localhost:19530` connects to a server; the path of a file ending in .db
opens Milvus Lite in this process, which always searches by brute force, with any index type. A
collection describes its content, so another encoder is refused, as by a passage index.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec import Struct
from tqdm import tqdm

from ragbook import manifests
from ragbook.corpus import Passage, Question
from ragbook.errors import InputError
from ragbook.index.index import means_the_same
from ragbook.index.manifest import WITHOUT_EFFECT
from ragbook.retrieval.base import Retrieved

if TYPE_CHECKING:
    from ragbook.index import PassageIndex
    from ragbook.models import Encoder

BATCH = 1_000  # passages in one request
_FIELD_BYTES = 65_535  # the most that Milvus stores in a text field
_METRICS = {"inner_product": "IP", "l2": "L2"}
_TEXTS = ("id", "title", "text")
_NOTE = "ragbook"  # the key of a collection's description of its content


class MilvusRetriever:
    """Searches a collection that `fill_collection` made, with the encoder of its vectors.

    Parameters
    ----------
    uri: address of the server, or a file of Milvus Lite.
    collection: name of the collection.
    encoder: the encoder whose passage tower made the vectors.
    token: token for the server, if it requires one.

    Raises
    ------
    InputError: pymilvus is not installed, no server answers, the collection is missing or not
        complete, or another encoder made it.
    """

    name = "milvus"

    def __init__(self, uri: str, collection: str, encoder: Encoder, token: str = "") -> None:
        self._client = _connect(uri, token)
        self.collection = collection
        described = _described(self._client, collection)
        if described is None:
            raise InputError(
                f"{uri} has no collection {collection!r} made by ragbook; fill one first."
            )
        if not means_the_same(described["encoder"], encoder):
            raise InputError(
                f"The collection {collection!r} was made with encoder {described['name']}, not "
                f"with {encoder.id}; search with its own encoder or fill another collection."
            )
        if (count := _count(self._client, collection)) != described["passages"]:
            raise InputError(
                f"The collection {collection!r} has {count:,} of {described['passages']:,} "
                "passages; fill it again, which adds the missing ones."
            )
        self.encoder = encoder
        self.score_scale = encoder.score_scale
        self._passages = described["passages"]

    def retrieve(
        self, questions: Sequence[Question], k: int, titles: Sequence[str] | None = None
    ) -> list[Retrieved]:
        """The k passages with the highest score for each question; see `Retriever`.

        Passages with equal scores are in the corpus's order. If several have the k-th score, Milvus
        chooses which of them are returned.

        Parameters
        ----------
        titles: if given, only passages with one of these titles are searched.
        """
        if k < 1:
            raise InputError(f"k must be 1 or more, not {k}.")
        if not questions:
            return []
        vectors = self.encoder.encode_queries([question.text for question in questions])
        where = "" if titles is None else f"title in {json.dumps(list(titles), ensure_ascii=False)}"
        answers = self._client.search(
            self.collection,
            data=vectors.tolist(),
            limit=min(k, self._passages),
            filter=where,
            anns_field="vector",
            output_fields=list(_TEXTS),
        )
        found = []
        sign = -1 if self.encoder.metric == "l2" else 1  # Milvus gives squared distances
        for hits in answers:
            rows = sorted((-sign * hit["distance"], hit["position"], hit["entity"]) for hit in hits)
            passages = tuple(Passage(**{key: row[2][key] for key in _TEXTS}) for row in rows)
            scores = np.array([-row[0] for row in rows], dtype=np.float32)
            found.append(Retrieved(tuple(p.id for p in passages), scores, passages))
        return found

    def close(self) -> None:
        """Close the connection; a file of Milvus Lite can then be opened by another process."""
        self._client.close()


def fill_collection(
    index: PassageIndex,
    uri: str,
    collection: str,
    *,
    kind: str = "FLAT",
    token: str = "",
    progress: bool = True,
) -> None:
    """Put the passages of an index and their vectors into a collection.

    If an earlier call was interrupted, only the missing passages are added.

    Parameters
    ----------
    uri, collection, token: see `MilvusRetriever`.
    kind: Milvus's index type; exact by default (a server also has HNSW, IVF_FLAT, ...).

    Raises
    ------
    InputError: pymilvus is not installed, no server answers, the collection holds something else,
        or a passage is longer than Milvus can hold.
    """
    manifest = index.manifest
    describes = {
        "corpus": manifest["corpus"]["sha256"],
        "passages": manifest["corpus"]["passages"],
        "name": manifest["encoder"]["id"],
        "encoder": {k: v for k, v in manifest["encoder"].items() if k not in WITHOUT_EFFECT},
    }
    client = _connect(uri, token)
    try:
        described = _described(client, collection)
        if described is None:
            _create(client, collection, describes, manifest["encoder"], kind)
        elif described != describes:
            raise InputError(f"The collection {collection!r} holds other passages; name another.")
        done = _count(client, collection)
        with tqdm(
            total=len(index),
            initial=done,
            desc=collection,
            unit="passage",
            disable=None if progress else True,
        ) as bar:
            for first in range(done, len(index), BATCH):
                positions = np.arange(first, min(first + BATCH, len(index)))
                rows = [
                    {"position": position, **_texts(passage), "vector": vector}
                    for position, passage, vector in zip(
                        positions.tolist(),
                        index.corpus[first : first + BATCH],
                        index.vectors(positions).tolist(),
                        strict=True,
                    )
                ]
                client.insert(collection, rows)
                bar.update(len(rows))
    finally:
        client.close()


def _texts(passage: Passage) -> dict[str, str]:
    texts = {key: getattr(passage, key) for key in _TEXTS}
    for key, text in texts.items():
        if len(text.encode()) > _FIELD_BYTES:
            raise InputError(
                f"The {key} of passage {passage.id[:80]!r} has more than {_FIELD_BYTES:,} bytes, "
                "the most that Milvus holds; cut it with `ragbook corpus build`."
            )
    return texts


def _connect(uri: str, token: str) -> Any:
    try:
        from pymilvus import MilvusClient  # pyright: ignore[reportMissingImports]
        from pymilvus.exceptions import MilvusException  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        raise InputError(
            "Milvus needs the packages pymilvus and, for a file, milvus-lite; install them with "
            "`pip install 'ragbook[milvus]'`."
        ) from None
    try:
        return MilvusClient(uri, token=token)
    except (MilvusException, OSError, ValueError) as error:
        raise InputError(
            f"No Milvus answers at {uri} ({' '.join(str(error).split())}); check the address, and "
            "that no other process has a file of Milvus Lite open."
        ) from error


class _Describes(Struct):
    """What a collection says of its content."""

    corpus: str
    passages: manifests.Positive
    name: str
    encoder: dict[str, Any]


def _described(client: Any, collection: str) -> dict[str, Any] | None:
    """A collection's description of its content; None if there is no such collection, InputError if
    ragbook did not make it."""
    if not client.has_collection(collection):
        return None
    try:
        told = client.describe_collection(collection)
        note = told["properties"].get(_NOTE) or told["description"]
        described = manifests.decode(note.encode())[_NOTE]
        manifests.check(described, _Describes)
    except (AttributeError, ValueError, KeyError, TypeError):
        raise InputError(
            f"The collection {collection!r} was not made by ragbook; name another."
        ) from None
    client.load_collection(collection)
    return described


def _create(
    client: Any, collection: str, describes: dict[str, Any], encoder: dict[str, Any], kind: str
) -> None:
    from pymilvus import DataType  # pyright: ignore[reportMissingImports]

    described = json.dumps({_NOTE: describes})
    schema = client.create_schema(enable_dynamic_field=False, description=described)
    schema.add_field("position", DataType.INT64, is_primary=True)
    for key in _TEXTS:
        schema.add_field(key, DataType.VARCHAR, max_length=_FIELD_BYTES)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=encoder["dimension"])
    parameters = client.prepare_index_params()
    parameters.add_index("vector", index_type=kind, metric_type=_METRICS[encoder["metric"]])
    client.create_collection(
        collection,
        schema=schema,
        index_params=parameters,
        consistency_level="Strong",
        properties={_NOTE: described},  # Milvus Lite does not keep descriptions
    )


def _count(client: Any, collection: str) -> int:
    (row,) = client.query(collection, filter="", output_fields=["count(*)"])
    return int(row["count(*)"])
