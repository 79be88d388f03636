"""The manifest: the file that lists what an index folder holds, written last and checked first.

`manifest.json` names the corpus, the encoder, the kind of index and every file's size and SHA-256.
Its own key `sha256` covers the rest of it, so that a damaged manifest is found as well.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ragbook.errors import InputError
from ragbook.files import file_records, is_bare_name, sha256_of_file, write_whole

MANIFEST = "manifest.json"
KIND = "ragbook passage index"
FORMAT_VERSION = 1

Manifest = dict[str, Any]

UNSAID: Manifest = {"similarity": "cosine", "prompts": {}, "max_tokens": 256}
"""The values of settings that an encoder's entry leaves out; old entries have none of them."""
WITHOUT_EFFECT = ("id", "query_encoder", "precision")
"""Keys of an encoder's entry that do not affect its passage vectors."""


def serialize(manifest: Manifest) -> bytes:
    """The manifest as bytes, always in the same form; its key `sha256` is the hash of the other
    keys."""
    body = {key: value for key, value in manifest.items() if key != "sha256"}
    plain = json.dumps(body, sort_keys=True, ensure_ascii=False).encode()
    whole = body | {"sha256": hashlib.sha256(plain).hexdigest()}
    return (json.dumps(whole, indent=2, ensure_ascii=False) + "\n").encode()


def write_manifest(
    folder: Path, *, corpus: Manifest, encoder: Manifest, index: Manifest, files: list[str]
) -> None:
    """Write `folder/manifest.json`, which lists files that are already on the disk.

    Parameters
    ----------
    corpus: `name`, `passages` (how many) and `sha256`.
    encoder: `id`, `sha256`, `pooling`, `dimension`, `similarity` and `metric`; `prompts` and
        `max_tokens`, if they differ from `UNSAID`; and `query_encoder`, if there is one.
    index: `type` and `parameters`.
    files: names inside the folder; their sizes in bytes and SHA-256 are taken from the disk.
    """
    manifest = {
        "kind": KIND,
        "format_version": FORMAT_VERSION,
        "corpus": corpus,
        "encoder": encoder,
        "index": index,
        "files": file_records(folder, files),
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
    """The manifest of an index folder, its version and shape checked (not its hash).

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
    try:
        manifest = json.loads(path.read_bytes().decode())
    except ValueError as error:  # wrong JSON or wrong UTF-8
        raise InputError(f"{path} is damaged ({error}); build the index again.") from None
    if not isinstance(manifest, dict) or manifest.get("kind") != KIND:
        raise InputError(
            f"{path} is not the manifest of a passage index, or it is damaged; build the index "
            "again or name another folder."
        )
    version = manifest.get("format_version")
    if version != FORMAT_VERSION:
        raise InputError(
            f"{path} has format version {version!r}, and this ragbook reads version "
            f"{FORMAT_VERSION}; build the index again or use the ragbook that wrote it."
        )
    if isinstance(manifest.get("encoder"), dict):
        # Older manifests name no similarity: every encoder used the cosine then.
        manifest["encoder"].setdefault("similarity", UNSAID["similarity"])
    if not _well_formed(manifest):
        raise InputError(f"{path} is damaged (an entry is missing); build the index again.")
    return manifest


def manifest_as_written(folder: Path) -> bool:
    """Whether the manifest's bytes are still those that `write_manifest` wrote."""
    raw = (folder / MANIFEST).read_bytes()
    try:
        manifest = json.loads(raw.decode())
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


def hash_problems(folder: Path, manifest: Manifest) -> list[str]:
    """One sentence for every file, the manifest included, whose bytes have changed."""
    problems = []
    if not manifest_as_written(folder):
        problems.append(f"{folder / MANIFEST} is not as it was written (its own SHA-256 differs)")
    for name, record in manifest["files"].items():
        if (folder / name).is_file() and sha256_of_file(folder / name) != record["sha256"]:
            problems.append(f"{folder / name} is not as it was written (its SHA-256 differs)")
    return problems


def _well_formed(manifest: Manifest) -> bool:
    """Whether every entry that the code relies on is there with its type."""
    shape = {
        "corpus": {"name": str, "passages": int, "sha256": str},
        "encoder": {
            "id": str,
            "sha256": str,
            "pooling": str,
            "dimension": int,
            "similarity": str,
            "metric": str,
        },
        "index": {"type": str, "parameters": dict},
    }
    files = manifest.get("files")
    return (
        all(
            isinstance(part := manifest.get(section), dict)
            and all(isinstance(part.get(key), kind) for key, kind in entries.items())
            for section, entries in shape.items()
        )
        and isinstance(prompts := manifest["encoder"].get("prompts", {}), dict)
        and all(isinstance(text, str) for text in prompts.values())
        and isinstance(files, dict)
        and all(
            is_bare_name(name)  # a manifest must not lead out of its folder
            and isinstance(record, dict)
            and isinstance(record.get("sha256"), str)
            and isinstance(record.get("bytes"), int)
            for name, record in files.items()
        )
    )
