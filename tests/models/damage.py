"""Folders of models that are damaged, mistyped or malicious, made from a good one in every way that
is listed here; and what may come of loading one."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from ragbook.files import file_records
from ragbook.manifests import serialize

Damage = Callable[[Path], None]
"""Changes one file of a folder."""

NESTED = "[" * 100_000 + "]" * 100_000
CONTENTS = {
    "empty": b"",
    "one brace": b"{",
    "bytes": bytes(range(256)),
    "null": b"null",
    "a list": b"[]",
    "an object": b"{}",
    "a text": b'"x"',
    "a number": b"3",
    "deep nesting": b'{"a": ' + NESTED.encode() + b"}",
    "a long number": b'{"vocab_size": ' + b"9" * 5000 + b"}",
}
"""What a file of settings may hold instead."""

VALUES: dict[str, Any] = {
    "null": None,
    "minus one": -1,
    "zero": 0,
    "a fraction": 0.5,
    "NaN": float("nan"),
    "infinity": float("inf"),
    "two to the 31": 2**31,
    "ten to the 30": 10**30,
    "a text": "x",
    "a surrogate": "\ud800",
    "a list": [1, "x"],
    "an object": {"x": {"y": 1}},
    "a path": "../../../../etc/passwd",
}
"""What a single setting may be instead."""


def written(content: bytes) -> Damage:
    return lambda path: void(path.write_bytes(content))


def void(_: Any) -> None:
    return None


def halved(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe_instead(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def linked(target: str) -> Damage:
    def link(path: Path) -> None:
        path.unlink()
        path.symlink_to(target)

    return link


def setting(key: str, value: Any) -> Damage:
    def change(path: Path) -> None:
        settings = json.loads(path.read_text())
        settings[key] = value
        path.write_text(json.dumps(settings))

    return change


def without(key: str) -> Damage:
    def change(path: Path) -> None:
        settings = json.loads(path.read_text())
        del settings[key]
        path.write_text(json.dumps(settings))

    return change


OF_ANY_FILE: dict[str, Damage] = {
    **{name: written(content) for name, content in CONTENTS.items()},
    "halved": halved,
    "missing": Path.unlink,
    "a folder": folder_instead,
    "a pipe": pipe_instead,
    "a link to /etc/passwd": linked("/etc/passwd"),
    "a link to /dev/zero": linked("/dev/zero"),
    "a link to itself": linked("config.json"),
    "a link to nothing": linked("nothing"),
}


def tensors_changed(change: Callable[[dict[str, torch.Tensor]], Any]) -> Damage:
    def write(path: Path) -> None:
        tensors = load_file(str(path))
        change(tensors)
        tensors = {name: value.clone().contiguous() for name, value in tensors.items()}
        save_file(tensors, str(path), metadata={"format": "pt"})

    return write


def header_changed(change: Callable[[dict[str, Any]], Any]) -> Damage:
    """Rewrites the header of a safetensors file, and nothing else."""

    def write(path: Path) -> None:
        content = path.read_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length])
        found = change(header)
        new = found if isinstance(found, bytes) else json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(new)) + new + content[8 + length :])

    return write


def entry_changed(**changes: Any) -> Damage:
    """Changes what the header says of its last tensor."""

    def change(header: dict[str, Any]) -> None:
        name = max(name for name in header if name != "__metadata__")
        header[name] |= changes

    return header_changed(change)


def _largest(tensors: dict[str, torch.Tensor]) -> str:
    return max(tensors, key=lambda name: (tensors[name].dim() > 1, name))


def largest_becomes(make: Callable[[torch.Tensor], torch.Tensor]) -> Damage:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        name = _largest(tensors)
        tensors[name] = make(tensors[name])

    return tensors_changed(change)


OF_TENSORS: dict[str, Damage] = {
    "no tensor": tensors_changed(lambda t: t.clear()),
    "the last missing": tensors_changed(lambda t: t.pop(max(t))),
    "a matrix missing": tensors_changed(lambda t: t.pop(_largest(t))),
    "one too many": tensors_changed(lambda t: t.update(more=torch.ones(2))),
    "another name": tensors_changed(lambda t: t.update({"x.y.left": t.pop(_largest(t))})),
    "another shape": largest_becomes(lambda t: t[:-1]),
    "another rank": largest_becomes(lambda t: t.flatten()),
    "a scalar": largest_becomes(lambda t: t.sum()),
    "no rows": largest_becomes(lambda t: t[:0]),
    "whole numbers": largest_becomes(lambda t: t.to(torch.int64)),
    "truth values": largest_becomes(lambda t: t > 0),
    "bytes": largest_becomes(lambda t: t.to(torch.uint8)),
    "complex numbers": largest_becomes(lambda t: t.to(torch.complex64)),
    "8-bit floats": largest_becomes(lambda t: t.to(torch.float8_e4m3fn)),
    "64-bit floats": largest_becomes(lambda t: t.double()),
    "NaN": largest_becomes(lambda t: t * float("nan")),
    "infinity": largest_becomes(lambda t: t / 0),
    "a header of garbage": header_changed(lambda _: b"\xff" * 40),
    "a header of a list": header_changed(lambda _: b"[]"),
    "a header of nothing": header_changed(lambda _: b"{}"),
    "a deep header": header_changed(lambda _: b'{"a": ' + NESTED.encode() + b"}"),
    "a long header": lambda path: void(path.write_bytes(struct.pack("<Q", 2**60) + b"{}")),
    "an unknown type": entry_changed(dtype="F12"),
    "a type of another size": entry_changed(dtype="F64"),
    "negative sizes": entry_changed(shape=[-1, -16]),
    "fractional sizes": entry_changed(shape=[0.5]),
    "large sizes": entry_changed(shape=[2**62, 2**62]),
    "offsets outside": entry_changed(data_offsets=[0, 2**40]),
    "offsets backwards": entry_changed(data_offsets=[16, 0]),
    "a surrogate in a name": header_changed(
        lambda h: json.dumps(h | {"\ud800": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}})
        .encode()
    ),
    "a pickle only": lambda path: void(path.rename(path.with_name("pytorch_model.bin"))),
}  # fmt: skip


def damages(folder: Path, nested: bool = True) -> Iterator[tuple[str, str, Damage]]:
    """(file, name, damage) of every damage that a folder can have."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.suffix == ".md":
            continue
        file = path.relative_to(folder).as_posix()
        for name, damage in OF_ANY_FILE.items():
            yield file, name, damage
        if path.suffix == ".safetensors":
            for name, damage in OF_TENSORS.items():
                yield file, name, damage
        elif path.suffix == ".json" and path.stat().st_size < 20_000:
            settings = json.loads(path.read_text())
            if isinstance(settings, dict):
                for key in settings:
                    yield file, f"without {key}", without(key)
                    for name, value in VALUES.items():
                        yield file, f"{key}: {name}", setting(key, value)


def damaged(folder: Path, out: Path, file: str, damage: Damage) -> Path:
    """A copy of the folder with one damage; files that stay as they are, are links."""
    if out.exists():
        shutil.rmtree(out)
    shutil.copytree(folder, out, copy_function=os.link)
    path = out / file
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    damage(path)
    for manifest in ("weights.json", "encoder.json"):
        if file != manifest and (out / manifest).is_file():
            _hash_again(out / manifest)
    return out


def _hash_again(manifest: Path) -> None:
    """Let a manifest say that all files are as they should be."""
    said = json.loads(manifest.read_text())
    here = [name for name in said["files"] if (manifest.parent / name).is_file()]
    manifest.unlink()
    said["files"] = file_records(manifest.parent, here)
    manifest.write_bytes(serialize(said))
