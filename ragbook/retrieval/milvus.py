"""Dense retrieval from a Milvus collection, for those who run one: passages and vectors together.

An address such as `http://localhost:19530` leads to a server; the path of a file ending in .db
opens Milvus Lite in this process, which searches by brute force whatever index it is told to build.
A collection says what it holds, so another encoder is refused as an index refuses it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from ragbook.corpus import Passage, Question
from ragbook.errors import InputError
from ragbook.index.index import means_the_same
from ragbook.index.manifest import WITHOUT_EFFECT
from ragbook.retrieval.base import Retrieved

if TYPE_CHECKING:
    from ragbook.index import PassageIndex
    from ragbook.models import Encoder

BATCH = 1_000  # passages in one request
_FIELD_BYTES = 65_535  # the most that Milvus keeps in a field of text
_METRICS = {"inner_product": "IP", "l2": "L2"}
_TEXTS = ("id", "title", "text")
_NOTE = "ragbook"  # the key under which a collection says what it holds


class MilvusRetriever:
    """Searches a collection that `fill_collection` made, with the encoder of its vectors.

    Parameters
    ----------
    uri: of the server, or a file of Milvus Lite.
    collection: its name.
    encoder: whose passage tower made the vectors.
    token: of the server, where it wants one.

    Raises
    ------
    InputError: pymilvus is not installed, nothing answers, the collection is missing or not whole,
        or another encoder made it.
    """

    name = "milvus"

    def __init__(self, uri: str, collection: str, encoder: Encoder, token: str = "") -> None:
        self._client = _connect(uri, token)
        self.collection = collection
        described = _described(self._client, collection)
        if described is None:
            raise InputError(
                f"{uri} has no collection {collection!r} of ragbook's; fill one first."
            )
        if not means_the_same(described["encoder"], encoder):
            raise InputError(
                f"The collection {collection!r} was made with encoder {described['name']}, not "
                f"with {encoder.id}; search with its own encoder or fill another collection."
            )
        if (count := _count(self._client, collection)) != described["passages"]:
            raise InputError(
                f"The collection {collection!r} has {count:,} of {described['passages']:,} "
                "passages; fill it again, which goes on from there."
            )
        self.encoder = encoder
        self.score_scale = encoder.score_scale
        self._passages = described["passages"]

    def retrieve(
        self, questions: Sequence[Question], k: int, titles: Sequence[str] | None = None
    ) -> list[Retrieved]:
        """The k passages of greatest score for each question, the first in the corpus of equal
        ones (but for those that tie with the last and were not given); see `Retriever`.

        Parameters
        ----------
        titles: only passages of these.
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

    One that was cut short is gone on with; one that is whole stays as it is.

    Parameters
    ----------
    uri, collection, token: see `MilvusRetriever`.
    kind: Milvus's index type; exact unless another is asked for (a server's HNSW, IVF_FLAT, ...).

    Raises
    ------
    InputError: pymilvus is not installed, nothing answers, the collection holds something else, or
        a passage is longer than Milvus can hold.
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
            f"No Milvus answers at {uri} ({' '.join(str(error).split())}); a file of Milvus Lite "
            "can be open in one process only."
        ) from error


def _described(client: Any, collection: str) -> dict[str, Any] | None:
    """What a collection says it holds; None if there is none, InputError if it is not ours."""
    if not client.has_collection(collection):
        return None
    try:
        told = client.describe_collection(collection)
        described = json.loads(told["properties"].get(_NOTE) or told["description"])[_NOTE]
    except (ValueError, KeyError, TypeError):
        raise InputError(f"The collection {collection!r} is not ragbook's; name another.") from None
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
        properties={_NOTE: described},  # Milvus Lite forgets descriptions
    )


def _count(client: Any, collection: str) -> int:
    (row,) = client.query(collection, filter="", output_fields=["count(*)"])
    return int(row["count(*)"])
