"""`encoder.json`: what a folder of `ragbook.models.encoder.save_encoder` says of its towers.

There are two formats. In the first the towers are BERT's, and what training changed of them lies in
`passage.safetensors` and `query.safetensors`; in the second they are folders of
sentence-transformers. Both list every file's size and SHA-256.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from ragbook import manifests
from ragbook.errors import InputError
from ragbook.files import is_bare_name, sha256_of_file, write_whole
from ragbook.manifests import FileRecord, Text
from ragbook.models.embedded import MINILM_SHA256
from ragbook.models.towers import POOLINGS, SEGMENTS, SENTENCE, SIMILARITIES, TYPED

MANIFEST, KIND = "encoder.json", "ragbook encoder"
FORMAT_VERSION, TOWERS_VERSION = 1, 2
"""The formats: of BERT's towers, and of folders of sentence-transformers."""

AGAIN = "restore it, or train the encoder again with `ragbook train dpr`"


class EncoderManifest(Struct, kw_only=True):
    """What both formats have in common. Names of files may have folders before them."""

    kind: Literal["ragbook encoder"]
    format_version: Literal[1, 2]
    tied: bool
    similarity: Text
    score_scale: Annotated[float, Meta(gt=0, le=1e6)]
    files: dict[Annotated[str, Meta(max_length=1000)], FileRecord]

    def __post_init__(self) -> None:
        one_of("similarity", self.similarity, SIMILARITIES)
        for name in self.files:
            if not all(map(is_bare_name, name.split("/"))):
                raise ValueError(f"{name!r} is not the name of a file in its folder")


class BertManifest(EncoderManifest, kw_only=True):
    """The first format. `base` is the SHA-256 of the embedded encoder where the towers were trained
    from it; otherwise their configuration and tokenizer lie beside them."""

    base: Text | None
    pooling: Text
    passage_form: Text

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("pooling", self.pooling, POOLINGS)
        one_of("passage_form", self.passage_form, (SENTENCE, SEGMENTS, TYPED))
        if self.base is None:
            needed = {"config.json", *(tower_file(tower) for tower in towers(self.tied))}
            if absent := needed - self.files.keys():
                raise ValueError(f"it does not list {min(absent)}")
        else:
            one_of("base", self.base, (MINILM_SHA256,))
        if self.tied and tower_file("query") in self.files:
            raise ValueError("it lists query.safetensors, and says that one tower reads both")


class TowersManifest(EncoderManifest, kw_only=True):
    """The second format; `prompts` are the texts before queries and passages."""

    prompts: dict[Text, Text]

    def __post_init__(self) -> None:
        super().__post_init__()
        there = {name.split("/")[0] for name in self.files if "/" in name}
        if there != set(towers(self.tied)):
            raise ValueError(
                f"its files are of {' and '.join(sorted(there)) or 'no tower'}, and they should be "
                f"of {' and '.join(towers(self.tied))}"
            )


def one_of(entry: str, value: str, allowed: tuple[str, ...]) -> None:
    """Refuse a value that an entry cannot have, by a ValueError that says which."""
    if value not in allowed:
        raise ValueError(f"its {entry} is {value[:80]!r} and none of {', '.join(allowed)}")


def towers(tied: bool) -> tuple[str, ...]:
    """The names of the towers that a folder has files of."""
    return ("passage",) if tied else ("passage", "query")


def tower_file(tower: str) -> str:
    """The name of a BERT tower's tensors."""
    return f"{tower}.safetensors"


def write_encoder_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Write `encoder.json`, which names files that are already on the disk."""
    raw = manifests.serialize({"kind": KIND, **manifest})
    write_whole(folder / MANIFEST, lambda file: file.write(raw))


def read_encoder_manifest(folder: Path) -> dict[str, Any]:
    """The content of `encoder.json`, after all checks that need no other file's content.

    Raises
    ------
    InputError: it is damaged, or of another version; or the folder has a tower's tensors that it
        does not list, so that others would be used.
    """
    path = folder / MANIFEST
    try:
        version = manifests.read(path)["format_version"]
    except (ValueError, OSError, KeyError, TypeError):
        version = FORMAT_VERSION  # the comparison says what is wrong
    if type(version) is int and version not in (FORMAT_VERSION, TOWERS_VERSION):
        raise InputError(
            f"{path} is damaged, or it is from another version of ragbook (its format version is "
            f"{str(version)[:40]}); {AGAIN}"
        )
    shape = TowersManifest if version == TOWERS_VERSION else BertManifest
    manifest = manifests.read_whole(path, shape, AGAIN)
    here = ["passage.safetensors", "query.safetensors"]
    if version == TOWERS_VERSION:
        here = [
            f.relative_to(folder).as_posix()
            for tower in towers(False)
            for f in sorted((folder / tower).rglob("*.safetensors"))
        ]
    for name in here:
        if name not in manifest["files"] and (folder / name).exists():
            raise InputError(f"{path} is damaged (it does not list {name}); {AGAIN}")
    return manifest


def check_files(folder: Path, manifest: dict[str, Any]) -> None:
    """Compare every file that the manifest lists with its size and hash.

    Raises
    ------
    InputError: one is missing, or has other bytes.
    """
    for name, record in manifest["files"].items():
        path = folder / name
        if (
            not path.is_file()
            or path.stat().st_size != record["bytes"]
            or sha256_of_file(path) != record["sha256"]
        ):
            raise InputError(f"{path} is missing or damaged; {AGAIN}")
