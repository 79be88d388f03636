"""Indexes that are replaced while they are used: whole at every moment, from two processes too."""

import json
import os
import threading
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from ragbook.errors import InputError
from ragbook.index import verify
from ragbook.models import Encoder
from ragbook.models.embedded import minilm_tokenizer
from ragbook.training.realm import refresh
from ragbook.training.realm.refresh import (
    CURRENT,
    Builder,
    Refresher,
    build_newest,
    current,
    current_step,
    overlap,
    publish,
)
from tests.fakes import animals

CORPUS = animals(12)


def new_encoder(seed: int = 0) -> Encoder:
    torch.manual_seed(seed)
    config = BertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    return Encoder(
        BertModel(config, add_pooling_layer=False).bfloat16(), minilm_tokenizer(), "t", "t", 5.0
    )


def shift(encoder: Encoder, by: float = 0.3) -> None:
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in encoder.passage_model.parameters():
            parameter += by * torch.randn_like(parameter)


def test_publishing_replaces_the_index_and_keeps_one(tmp_path):
    encoder = new_encoder()
    assert current(tmp_path) is None
    first = publish(tmp_path, encoder, CORPUS, 0)
    shift(encoder)
    second = publish(tmp_path, encoder, CORPUS, 40)
    assert first.digest != second.digest
    assert sorted(p.name for p in tmp_path.iterdir()) == [CURRENT, "index-00040"]
    assert current_step(tmp_path) == 40
    step, index = current(tmp_path) or pytest.fail("no index")
    assert (step, index.digest) == (40, second.digest)
    assert verify(index.path) == []
    vectors = torch.from_numpy(index.vectors(np.arange(12)))
    torch.testing.assert_close(vectors, torch.from_numpy(encoder.encode_passages(list(CORPUS))))
    assert len(first.search(np.zeros((1, 16), np.float32), 3)[1][0]) == 3  # who has it open


@pytest.mark.parametrize("content", [b"", b"index-", b"../index-00001", b"\xff", b"index-00001\n"])
def test_a_damaged_name_is_refused_and_not_followed(tmp_path, content):
    (tmp_path / CURRENT).write_bytes(content)
    for look in (current, current_step):
        with pytest.raises(InputError, match="CURRENT is damaged"):
            look(tmp_path)


def test_a_reader_finds_a_whole_index_at_any_moment(tmp_path):
    encoder = new_encoder()
    publish(tmp_path, encoder, CORPUS, 0)
    errors: list[Exception] = []
    seen: set[int] = set()
    done = threading.Event()

    def watch():
        while not done.is_set():
            try:
                found = current(tmp_path)
                assert found is not None
                assert len(found[1]) == 12
                seen.add(found[0])
            except Exception as error:
                errors.append(error)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for step in range(1, 16):
        shift(encoder, 0.05)
        publish(tmp_path, encoder, CORPUS, step)
    done.set()
    watcher.join()
    assert not errors
    assert max(seen) >= 1


def test_overlap_is_the_share_of_passages_in_common(tmp_path):
    encoder = new_encoder()
    one = publish(tmp_path / "a", encoder, CORPUS, 0)
    shift(encoder)
    other = publish(tmp_path / "b", encoder, CORPUS, 0)
    queries = np.random.default_rng(0).normal(size=(5, 16)).astype(np.float32)
    tops = [
        np.argsort(-queries @ index.vectors(np.arange(12)).T, axis=1)[:, :4]
        for index in (one, other)
    ]
    wanted = np.mean([len({*a} & {*b}) / 4 for a, b in zip(*tops, strict=True)])
    assert overlap(one, other, queries, 4) == pytest.approx(wanted)
    assert overlap(one, one, queries, 4) == 1
    assert overlap(one, other, queries, 12) == 1


def refresher(folder, encoder, builder=None, every=2):
    return Refresher(
        folder, encoder, CORPUS, every, builder, (["otter", "newt"], 3), None, folder / "log.jsonl"
    )


def test_the_newest_tower_is_built_and_older_ones_are_dropped(tmp_path):
    encoder = new_encoder()
    publish(tmp_path, encoder, CORPUS, 0)
    waiting: Any = Builder(tmp_path, "cpu", "bfloat16")
    waiting._process = SimpleNamespace(poll=lambda: None)  # the test builds
    waiting.want(encoder, 2)
    shift(encoder)
    waiting.want(encoder, 4)
    assert build_newest(tmp_path, "cpu", "bfloat16") == 4
    assert build_newest(tmp_path, "cpu", "bfloat16") is None
    step, index = current(tmp_path) or pytest.fail("no index")
    assert step == 4
    here = publish(tmp_path / "here", encoder, CORPUS, 4)
    # What another process builds is what the trainer would have built.
    assert (index.vectors(np.arange(12)) == here.vectors(np.arange(12))).all()
    assert not list(tmp_path.glob("tower*"))


def test_a_second_process_builds_while_the_trainer_goes_on(tmp_path):
    encoder = new_encoder()
    with Builder(tmp_path, "cpu", "bfloat16") as builder:
        live = refresher(tmp_path, encoder, builder)
        old = live.at(0)
        shift(encoder)
        steps, deadline = 1, time.monotonic() + 120
        while live.at(steps) is old:
            steps += 1
            time.sleep(0.05)
            assert time.monotonic() < deadline, "no index came from the other process"
            assert builder._process.poll() is None
        pid = builder._process.pid
    assert steps > 2  # it was asked for at step 2, and steps went on meanwhile
    new = torch.from_numpy(live.at(1).vectors(np.arange(12)))
    torch.testing.assert_close(new, torch.from_numpy(encoder.encode_passages(list(CORPUS))))
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert rows[0] == {"step": 0, "index": 0}
    assert rows[1]["step"] > rows[1]["index"] > 0
    assert 0 <= rows[1]["overlap"] <= 1
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_an_ended_process_is_noticed(tmp_path):
    publish(tmp_path, new_encoder(), CORPUS, 0)
    with Builder(tmp_path, "cpu", "bfloat16") as builder:
        builder._process.kill()
        builder._process.wait()
        with pytest.raises(RuntimeError, match="ended with status"):
            builder.want(new_encoder(), 2)


def test_the_building_process_ends_with_its_parent(tmp_path, monkeypatch):
    parents = iter([1, 1, 1, 2])
    monkeypatch.setattr(refresh.os, "getppid", lambda: next(parents))
    monkeypatch.setattr(refresh, "PAUSE", 0.0)
    refresh.main(tmp_path, "cpu", "bfloat16")
    assert next(parents, None) is None
