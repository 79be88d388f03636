"""The parts of the reading adapter's training: each goes on from the one before."""

from experiments import reading_adapter
from experiments.reading_adapter import PARTS, main

from ragbook.training.lora import APART


def test_each_part_starts_from_the_one_before(tmp_path, monkeypatch):
    trained = []

    def train(run, method, reader, settings):
        run.out.mkdir(parents=True)
        trained.append((run.out, run.seed, run.resume, method, reader, settings))

    monkeypatch.setattr(reading_adapter, "train_adapter", train)
    (tmp_path / "second").mkdir()  # begun before
    monkeypatch.setattr("pathlib.Path.mkdir", lambda *_, **__: None)
    main(tmp_path)
    assert trained == [
        (tmp_path / "first", 0, False, "reading", "smollm2", PARTS["first"]),
        (tmp_path / "second", 1, True, "reading", str(tmp_path / "first"), PARTS["second"]),
        (tmp_path / "third", 2, False, "reading", str(tmp_path / "second"), PARTS["third"]),
    ]


def test_the_later_parts_have_more_fused_caches():
    share = [part.layouts.count(APART) / len(part.layouts) for part in PARTS.values()]
    assert share == [0.25, 0.5, 0.5]
