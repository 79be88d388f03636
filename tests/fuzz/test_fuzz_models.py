"""Folders of models that are damaged, mistyped or malicious: each loads right or is refused in one
sentence. `RAGBOOK_FUZZ=N` tries N times as many."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragbook.errors import InputError
from ragbook.models import SeqReader
from tests.models.damage import Damage, damaged, damages
from tests.models.folders import KINDS

EXAMPLES = 12 * int(os.environ.get("RAGBOOK_FUZZ", "1"))
few = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize="RAGBOOK_FUZZ" not in os.environ,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.filter_too_much,
        HealthCheck.function_scoped_fixture,
    ],
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["../x", "/etc/passwd", "\ud800", 2**40]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)  # fmt: skip


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Callable[[str], Path]:
    """A good folder of a kind, which is written when it is first asked for."""
    written: dict[str, Path] = {}

    def of(kind: str) -> Path:
        if kind not in written:
            folder = tmp_path_factory.mktemp("good") / "model"
            KINDS[kind][0](folder)
            written[kind] = folder
        return written[kind]

    return of


@contextmanager
def nothing_elsewhere(folder: Path) -> Iterator[None]:
    """Fails where code of a folder is imported, or somebody is asked on standard input."""
    forbidden = AssertionError("a folder's code or a question to the user")
    with (
        mock.patch("builtins.input", side_effect=forbidden),
        mock.patch("transformers.dynamic_module_utils.get_class_in_module", side_effect=forbidden),
        mock.patch("torch.load", side_effect=forbidden),
        mock.patch("pickle.load", side_effect=forbidden),
    ):
        yield


def works(model: Any) -> None:
    """What was loaded computes numbers, and none of its weights is missing one."""
    if isinstance(model, tuple):  # REALM's three parts
        model = model[0]
    if hasattr(model, "encode_queries"):
        found = model.encode_queries(["Which river is it?"])
        assert found.shape == (1, model.dimension)
        assert np.isfinite(found).all()
        return
    for parameter in model.model.parameters():
        assert parameter.is_floating_point()
        assert bool(torch.isfinite(parameter).all())
    if isinstance(model, SeqReader):
        assert 0 <= model.start < model.model.get_decoder().config.vocab_size


def tried(kind: str, folder: Path) -> str:
    """Load a folder: the sentence of its refusal, or nothing if it loads and works."""
    with nothing_elsewhere(folder):
        try:
            works(KINDS[kind][1](folder))
        except InputError as refused:
            sentence = str(refused)
            assert sentence.isprintable(), repr(sentence)
            assert 20 < len(sentence) < 900
            return sentence
    return ""


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_folder_loads_or_is_refused_in_a_sentence(kind, good, tmp_path):
    """Every damage of the list, to every file, is as likely."""
    folder = good(kind)
    assert tried(kind, folder) == ""  # it was good
    known = list(damages(folder))
    assert len(known) >= 60

    @few
    @given(st.sampled_from(known))
    def check(one: tuple[str, str, Damage]) -> None:
        file, _, damage = one
        check.out += 1
        tried(kind, damaged(folder, tmp_path / str(check.out) / "model", file, damage))

    check.out = 0
    check()


def _files(folder: Path, suffixes: tuple[str, ...]) -> list[str]:
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.suffix in suffixes)
    return sorted(path.as_posix() for path in found)


@pytest.mark.parametrize("kind", ["causal reader", "sentence-transformers", "REALM's embedder"])
def test_any_value_in_a_folders_settings(kind, good, tmp_path):
    folder = good(kind)
    places = [
        (file, key)
        for file in _files(folder, (".json",))
        if (folder / file).stat().st_size < 20_000
        for key in [*_keys(folder / file), "new"]
    ]
    count = iter(range(10**9))

    @few
    @given(st.sampled_from(places), VALUES)
    def check(place: tuple[str, str], value: Any) -> None:
        def change(path: Path) -> None:
            said = json.loads(path.read_text())
            if isinstance(said, dict):
                said[place[1]] = value
            else:
                said.append(value)
            path.write_text(json.dumps(said))

        tried(kind, damaged(folder, tmp_path / str(next(count)) / "model", place[0], change))

    check()


def _keys(path: Path) -> list[str]:
    said = json.loads(path.read_text())
    return sorted(said) if isinstance(said, dict) else []


@pytest.mark.parametrize("kind", ["causal reader", "encoder", "FiD", "REALM's embedder"])
def test_any_byte_in_the_beginning_of_a_file(kind, good, tmp_path):
    folder = good(kind)
    places = _files(folder, (".json", ".safetensors", ".txt"))
    count = iter(range(10**9))

    @few
    @given(st.sampled_from(places), st.integers(0, 3000), st.integers(0, 255))
    def check(file: str, at: int, byte: int) -> None:
        def change(path: Path) -> None:
            content = bytearray(path.read_bytes())
            content[at % len(content)] = byte
            path.write_bytes(bytes(content))

        tried(kind, damaged(folder, tmp_path / str(next(count)) / "model", file, change))

    check()
