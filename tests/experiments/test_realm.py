"""What chapter 4 measures, on tiny random models: sections, resumption, and figures that add up."""

import json
from dataclasses import replace

import pytest
import torch
from experiments import realm as measured
from transformers import BertConfig, BertModel

from ragbook.corpus import Question
from ragbook.evaluation import exact_match
from ragbook.methods.realm import Realm
from ragbook.models import Encoder, SpanReader
from ragbook.models.embedded import minilm_tokenizer
from ragbook.models.masked import MaskedHead, MaskedReader
from ragbook.models.span import SpanScorer
from ragbook.retrieval import DenseRetriever
from ragbook.training.realm.pretraining import RealmRecipe
from tests.training.realm.test_pretraining import CORPUS, NAMES

QUESTIONS = [Question(f"Who founded town {i}?", (NAMES[i % 6],), f"p{i}") for i in range(12)]
RECIPE = RealmRecipe(k=2, batch=2, steps=4, refresh=2, frozen_layers=0)


def bert(seed: int) -> BertModel:
    torch.manual_seed(seed)
    config = BertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    return BertModel(config, add_pooling_layer=False).eval()


def new_encoder() -> Encoder:
    return Encoder(bert(0), minilm_tokenizer(), "tiny", "tiny", 10.0)


def new_reader() -> MaskedReader:
    torch.manual_seed(1)
    return MaskedReader(bert(1), MaskedHead(16, 30522), minilm_tokenizer())


@pytest.fixture
def measurement(tmp_path, monkeypatch):
    def warm_start(encoder, corpus, masked, work, *_):
        work.mkdir(parents=True, exist_ok=True)
        for name in ("cloze", "reader"):
            (work / f"{name}.log.jsonl").write_text('{"step": 1}\n')
        return new_reader(), new_encoder()

    monkeypatch.setattr(measured, "warm_start", warm_start)
    monkeypatch.setattr(measured, "mapped_encoder", lambda weight: Encoder(
        bert(5), minilm_tokenizer(), "small", "small", 10.0
    ))  # fmt: skip
    monkeypatch.setattr(measured, "minilm_tokenizer", minilm_tokenizer)
    return measured.Measurement(tmp_path, CORPUS, QUESTIONS, QUESTIONS, QUESTIONS)


def test_sections_stand_on_one_another(measurement):
    m = measurement
    start = measured.beginnings(m)
    assert start["questions"] == start["passages"] == 12
    assert set(start["damaged"]) == {"1", "5", "20"}
    runs = {}
    for name, masks, recipe in (
        ("refreshed", "salient", RECIPE),
        ("stale", "salient", replace(RECIPE, refresh=0)),
        ("random", "random", RECIPE),
    ):
        runs[name] = run = measured.pretraining(m, name, masks, recipe)
        assert run["recipe"]["steps"] == 4
        low, high = run["recall"]["5"]["ci95"]
        assert low <= run["recall"]["5"]["mean"] <= high
        gain = run["recall"]["5"]["mean"] - start["cloze"]["5"]["mean"]
        assert run["gain"]["5"]["difference"] == pytest.approx(gain)
        assert {"overlap", "recall@5"} <= set(run["refresh"][-1])
    assert [row["index"] for row in runs["refreshed"]["refresh"]] == [0, 2, 4]
    assert [row["index"] for row in runs["stale"]["refresh"]] == [0, 4]
    # The log's recall is of the index it was measured on: here dev and test are the same questions.
    last = runs["refreshed"]["refresh"][-1]["recall@5"]
    assert last == pytest.approx(runs["refreshed"]["recall"]["5"]["mean"])
    apart = measured.differences(m, ["refreshed", "stale", "random"])
    for name, found in apart.items():
        wanted = runs["refreshed"]["recall"]["5"]["mean"] - runs[name]["recall"]["5"]["mean"]
        assert found["difference"] == pytest.approx(wanted)

    rows = measured.latent(m, "refreshed", RECIPE)
    assert len(rows) == measured.LATENT
    for row in rows:
        for when in ("before", "after"):
            assert len(row[when]) == 2
            for what in ("prior", "posterior"):
                assert sum(z[what] for z in row[when]) == pytest.approx(1, abs=1e-5)


def test_answering_is_the_methods_own_exact_match(measurement, monkeypatch):
    torch.manual_seed(3)
    reader = SpanReader(bert(2), SpanScorer(16, 8), minilm_tokenizer(), "s")
    monkeypatch.setattr(measured, "fine_tuned", lambda encoder, *_, **__: (reader, encoder))
    (measurement.work / "qa").mkdir()
    (measurement.work / "qa" / "qa-realm.log.jsonl").write_text('{"step": 1}\n')
    encoder = new_encoder()
    found = measured.answering(measurement, encoder, "qa", measured.QaRecipe())
    index = measured.PassageIndex.open(measurement.work / "qa-index")
    answers = Realm(reader, DenseRetriever(index, encoder)).answer(QUESTIONS)
    right = [exact_match(a.text, q.answers) for a, q in zip(answers, QUESTIONS, strict=True)]
    assert found["em"]["mean"] == sum(right) / 12
    assert found["recall"] == found["recall_before"]


def test_only_what_is_missing_is_measured(tmp_path, monkeypatch):
    asked: list[str] = []
    names = ("start", "refreshed", "stale")
    monkeypatch.setattr(
        measured, "sections", lambda _: {n: lambda n=n: asked.append(n) or n for n in names}
    )
    out = tmp_path / "realm.json"
    measured.main(str(out), "refreshed")
    assert asked == ["refreshed"]
    measured.main(str(out))
    assert asked == ["refreshed", "start", "stale"]
    assert set(json.loads(out.read_text())) == set(names)
