"""The manifest: the file that lists what an index folder holds, written last and checked first.

`manifest.json` names the corpus, the encoder, the kind of index, every file's size and SHA-256, and
checksums of what is small (`ragbook.index.checksums`). Its own key `sha256` covers the rest of it,
so that a damaged manifest is found as well.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from ragbook import manifests
from ragbook.errors import InputError
from ragbook.files import file_records, sha256_of_file, write_whole
from ragbook.index.checksums import Checksums, checksum_problems
from ragbook.manifests import Positive, Small, Text, WithFiles, own_sha256, serialize

MANIFEST = "manifest.json"
KIND = "ragbook passage index"
FORMAT_VERSION = 1

Manifest = dict[str, Any]

UNSAID: Manifest = {"similarity": "cosine", "prompts": {}, "max_tokens": 256}
"""The values of settings that an encoder's entry leaves out; old entries have none of them."""
WITHOUT_EFFECT = ("id", "query_encoder", "precision")
"""Keys of an encoder's entry that do not affect its passage vectors."""


class CorpusEntry(Struct):
    """The corpus: its name, how many passages it has, its digest, and the folder of the documents
    that they were cut from."""

    name: Text
    passages: Positive
    sha256: Text
    path: Text | UnsetType = UNSET


class EncoderEntry(Struct):
    """The encoder, as `ragbook.index.index.encoder_record` describes it."""

    id: Text
    sha256: Text
    pooling: Text
    dimension: Small
    metric: Literal["inner_product", "l2"]
    similarity: Text = "cosine"
    prompts: dict[str, Text] = msgspec.field(default_factory=dict)
    max_tokens: Positive | None = None
    query_encoder: Text | None = None


class Recall(Struct):
    """What `ragbook.index.recall` measured."""

    k: Positive
    questions: Positive
    candidates: Positive
    at: Annotated[dict[str, Annotated[float, Meta(ge=0, le=1)]], Meta(min_length=1)]


class CutPassages(Struct):
    """How many passages are longer than the encoder sees, and the most words that it leaves out."""

    passages: manifests.Count
    words: manifests.Count


class Parameters(Struct):
    """How an index was made and is searched."""

    factory: Text = "Flat"
    parts: Small = 1
    effort: Small | UnsetType = UNSET
    training_passages: manifests.Count = 0
    recall: Recall | UnsetType = UNSET
    cut: CutPassages | UnsetType = UNSET


class IndexEntry(Struct):
    """Faiss's name of the index, and its parameters."""

    type: Text
    parameters: Parameters


class SignedManifest(WithFiles, kw_only=True):
    """What the manifests of indexes and datastores have in common."""

    corpus: CorpusEntry
    sha256: manifests.Sha256
    checksums: dict[str, Checksums] = msgspec.field(default_factory=dict)


class IndexManifest(SignedManifest, kw_only=True):
    """The manifest of a passage index."""

    encoder: EncoderEntry
    index: IndexEntry


class LanguageModelEntry(Struct):
    """The language model that made the keys."""

    name: Text
    sha256: Text
    dimension: Small
    window: Positive | None = None


class DatastoreManifest(SignedManifest, kw_only=True):
    """The manifest of a datastore; `pairs` is the number of its keys and values."""

    language_model: LanguageModelEntry
    pairs: Positive


def digest(manifest: Manifest) -> str:
    """SHA-256 of the manifest's bytes, in hexadecimal, without its checksums and without the folder
    of the documents: the same documents give the same digest wherever they are."""
    named = {key: value for key, value in manifest.items() if key != "checksums"}
    if isinstance(corpus := named.get("corpus"), dict):
        named["corpus"] = {key: value for key, value in corpus.items() if key != "path"}
    return hashlib.sha256(serialize(named)).hexdigest()


def write_manifest(
    folder: Path,
    *,
    corpus: Manifest,
    encoder: Manifest,
    index: Manifest,
    files: list[str],
    checksums: Manifest | None = None,
) -> None:
    """Write `folder/manifest.json`, which lists files that are already on the disk.

    Parameters
    ----------
    corpus: `name`, `passages` (how many) and `sha256`; and `path`, the folder of the documents that
        they were cut from, if they were.
    encoder: `id`, `sha256`, `pooling`, `dimension`, `similarity` and `metric`; `prompts` and
        `max_tokens`, if they differ from `UNSAID`; and `query_encoder`, if there is one.
    index: `type` and `parameters`.
    files: names inside the folder; their sizes in bytes and SHA-256 are taken from the disk.
    checksums: for each file an entry as `ragbook.index.checksums.Checksums`.
    """
    manifest = {
        "kind": KIND,
        "format_version": FORMAT_VERSION,
        "corpus": corpus,
        "encoder": encoder,
        "index": index,
        "files": file_records(folder, files),
        **({} if checksums is None else {"checksums": checksums}),
    }
    write_whole(folder / MANIFEST, lambda file: file.write(serialize(manifest)))


def conventions(encoder: Manifest) -> Manifest:
    """The part of an encoder's entry that must be equal for two encoders' vectors to be comparable:
    the passage tower's weights, pooling, prompts, number of tokens read, and similarity."""
    return UNSAID | {key: value for key, value in encoder.items() if key not in WITHOUT_EFFECT}


def short_name(encoder: Manifest) -> str:
    """A short name for an encoder's vectors: the hash of its weights and, if it is not used in the
    same way as the embedded encoder, a hash of how it is used."""
    said, name = conventions(encoder), encoder["sha256"][:16]
    if said == said | UNSAID | {"pooling": "mean"}:
        return name
    return f"{name}-{hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]}"


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an index folder: its version, its shape, every number's bounds and its own
    hash are checked.

    Raises
    ------
    InputError: the folder holds no index, or one of another version, or a damaged manifest.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(
            f"{folder} is not a passage index (it has no {MANIFEST}); "
            "build one with `ragbook index build`."
        )
    return read_signed(path, KIND, FORMAT_VERSION, IndexManifest, "a passage index", "index")


def read_signed(
    path: Path, kind: str, version: int, shape: type[SignedManifest], what: str, short: str
) -> Manifest:
    """A manifest that `serialize` wrote, checked as in `read_manifest`.

    Parameters
    ----------
    kind, version: what its entries `kind` and `format_version` must be.
    shape: the class that it is compared with.
    what, short: what it describes, in messages: "a passage index", "index".
    """
    try:
        manifest = manifests.read(path)
    except (ValueError, OSError) as error:
        raise InputError(f"{path} is damaged ({error}); build the {short} again.") from None
    if not isinstance(manifest, dict) or manifest.get("kind") != kind:
        raise InputError(
            f"{path} is not the manifest of {what}, or it is damaged; build the {short} "
            "again or name another folder."
        )
    found = manifest.get("format_version")
    if type(found) is not int or found != version:
        raise InputError(
            f"{path} has format version {str(found)[:40]}, and this ragbook reads version "
            f"{version}; build the {short} again or use the ragbook that wrote it."
        )
    try:
        manifests.check(manifest, shape)
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); build the {short} again.") from None
    if manifest["sha256"] != own_sha256(manifest):
        raise InputError(
            f"{path} is not as it was written (its own SHA-256 differs); build the {short} again."
        )
    if isinstance(encoder := manifest.get("encoder"), dict):
        # Older manifests name no similarity: every encoder used the cosine then.
        encoder.setdefault("similarity", UNSAID["similarity"])
    return manifest


def is_damaged(folder: Path, kind: str, version: int) -> bool:
    """Whether a manifest that cannot be read is a damaged one of this kind and version. One whose
    own hash is right belongs to another version, or to something else."""
    try:
        raw = (folder / MANIFEST).read_bytes()
        manifest = manifests.decode(raw)
    except (ValueError, OSError):
        return True
    if not isinstance(manifest, dict) or raw != serialize(manifest):
        return True
    return (manifest.get("kind"), manifest.get("format_version")) == (kind, version)


def manifest_as_written(folder: Path) -> bool:
    """Whether the manifest's bytes are still those that `write_manifest` wrote."""
    raw = (folder / MANIFEST).read_bytes()
    try:
        manifest = manifests.decode(raw)
    except ValueError:
        return False
    return isinstance(manifest, dict) and raw == serialize(manifest)


def size_problems(folder: Path, manifest: Manifest) -> list[str]:
    """One sentence for every file that is missing or has another size than the manifest says."""
    problems = []
    for name, record in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{path} is missing")
        elif (size := path.stat().st_size) != record["bytes"]:
            problems.append(f"{path} has {size} bytes where the manifest says {record['bytes']}")
    return problems


def opening_problems(folder: Path, manifest: Manifest) -> list[str]:
    """What can be said without reading the large files: sizes, and the checksums of small parts."""
    return size_problems(folder, manifest) or checksum_problems(
        folder, manifest.get("checksums", {}), manifest["files"]
    )


def hash_problems(folder: Path, manifest: Manifest) -> list[str]:
    """One sentence for every file, the manifest included, whose bytes have changed."""
    problems = []
    if not manifest_as_written(folder):
        problems.append(f"{folder / MANIFEST} is not as it was written (its own SHA-256 differs)")
    for name, record in manifest["files"].items():
        if (folder / name).is_file() and sha256_of_file(folder / name) != record["sha256"]:
            problems.append(f"{folder / name} is not as it was written (its SHA-256 differs)")
    return problems
