"""DPR's training: what is shown, what is no negative, and that a run resumes and is kept."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ragbook import cli
from ragbook.corpus import Corpus, Passage, Question
from ragbook.errors import InputError
from ragbook.index import PassageIndex
from ragbook.models import load_encoder
from ragbook.models.embedded import minilm_model
from ragbook.models.encoder import Encoder
from ragbook.models.towers import SIMILARITIES
from ragbook.training import dpr
from ragbook.training.dpr import Pair, Recipe, batch_of, epoch_batches, pairs, train_dpr
from ragbook.training.run import Run
from tests.models.tiny_encoders import dense, model, write_plain, write_sentence

VELM = Passage("velm", "Lake Velm", "Lake Velm lies in Ordania and was charted in 1873.")
SORN = Passage("sorn", "Lake Sorn", "Lake Sorn lies in Tavia and was charted in 1890.")
CHART = Passage("chart", "Charts", "Lake Velm and other lakes were charted from 1873 on.")
BRIDGE = Passage("bridge", "Bridge of Ket", "The bridge crosses the river Ket near its mouth.")
CORPUS = Corpus("lakes", [BRIDGE, CHART, SORN, VELM])
WHEN = Question("When was Lake Velm charted?", ("1873",), "velm")
WHERE = Question("Where does Lake Sorn lie?", ("Tavia",), "sorn")
RIVER = Question("Which river does the bridge cross?", ("Ket",), "bridge", None, "sorn")


def test_the_hard_negative_is_bm25s_best_without_an_answer():
    (pair,) = pairs(CORPUS, [WHEN], 3)
    assert pair == Pair(WHEN, VELM, pair.negatives)
    assert pair.negatives[0] == SORN  # the passage on charts ranks high too, but holds the year
    assert CHART not in pair.negatives
    assert pairs(CORPUS, [WHEN], 0) == [Pair(WHEN, VELM, ())]
    (pair,) = pairs(CORPUS, [RIVER], 3)
    assert SORN not in pair.negatives  # the second passage that the question needs


def test_without_a_gold_passage_bm25s_best_with_an_answer_is_right():
    unknown = Question("Where is Lake Sorn?", ("Tavia",))
    nowhere = Question("Who wrote it?", ("nobody known",))
    (pair,) = pairs(CORPUS, [unknown, nowhere], 1)
    assert (pair.question, pair.passage) == (unknown, SORN)
    with pytest.raises(InputError, match="no passage with an answer"):
        pairs(CORPUS, [nowhere])


def test_a_gold_passage_of_another_corpus_is_named():
    with pytest.raises(InputError, match=r"not in corpus 'lakes', such as 'elsewhere'"):
        pairs(CORPUS, [Question("Who?", ("x",), "elsewhere")])


def test_a_batch_shows_each_passage_once_and_pushes_no_right_one_away():
    again = Question("In which year was it?", ("1873",), "velm")
    batch = batch_of(
        [
            Pair(WHEN, VELM, (SORN,)),
            Pair(WHERE, SORN, (VELM, BRIDGE)),
            Pair(RIVER, BRIDGE, (VELM,)),
            Pair(again, VELM, (CHART,)),
        ]
    )
    assert batch.passages == [VELM, SORN, BRIDGE, CHART]
    assert batch.gold.tolist() == [0, 1, 2, 0]
    assert batch.negatives.int().tolist() == [
        [0, 1, 1, 0],  # another question's hard negative holds its answer
        [1, 0, 1, 1],
        [1, 0, 0, 1],  # its second passage
        [0, 1, 1, 0],
    ]


def test_an_epoch_shows_every_question_once_in_an_order_of_its_own():
    shown = [Pair(Question(str(i), ("x",)), VELM, ()) for i in range(23)]
    first, second = epoch_batches(shown, 5, 0, 0), epoch_batches(shown, 5, 0, 1)
    for epoch in (first, second):
        assert [len(batch) for batch in epoch] == [5, 5, 5, 5]
        texts = [pair.question.text for batch in epoch for pair in batch]
        assert len(set(texts)) == 20
    assert first == epoch_batches(shown, 5, 0, 0)
    assert first != second
    assert first != epoch_batches(shown, 5, 1, 0)
    assert [len(batch) for batch in epoch_batches(shown, 64, 0, 0)] == [23]


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_scores_are_the_similarity_of_vectors(similarity):
    one = load_encoder()
    encoder = Encoder(one.model, one.tokenizer, "x", one.sha256, 1.0, similarity=similarity)
    passages, texts = [VELM, SORN, BRIDGE], [WHEN.text, WHERE.text]
    q = encoder.encode_queries(texts).astype(np.float64)
    p = encoder.encode_passages(passages).astype(np.float64)
    expected = -((q[:, None] - p[None]) ** 2).sum(-1) if similarity == "l2" else q @ p.T
    with torch.no_grad():
        queries, vectors = encoder.query_vectors(texts), encoder.passage_vectors(passages)
        shared = encoder.scores(queries, vectors)
        own = encoder.scores(queries, torch.stack([vectors, vectors.flip(0)]))
    np.testing.assert_allclose(shared, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(own, [expected[0], expected[1, ::-1]], rtol=1e-5, atol=1e-5)
    if similarity == "cosine":
        raw = Encoder(one.model, one.tokenizer, one.id, one.sha256, 1.0, similarity="dot")
        a, b = raw.encode_queries(texts), raw.encode_passages(passages)
        cosines = (a @ b.T) / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)
        np.testing.assert_allclose(shared, cosines, atol=1e-5)


def shown_pairs() -> list[Pair]:
    return pairs(CORPUS, [WHEN, WHERE, RIVER], 1)


SMALL = Recipe(epochs=4, batch=3, frozen_layers=5, rate=1e-3, dtype="bfloat16")


def test_float32_computes_what_bfloat16_nearly_does(tmp_path):
    exact = train_dpr(shown_pairs(), tmp_path / "exact", replace(SMALL, dtype="float32"))
    quick = train_dpr(shown_pairs(), tmp_path / "quick", SMALL)
    one, other = (e.encode_queries([WHEN.text, RIVER.text]) for e in (exact, quick))
    assert exact.query_sha256 != quick.query_sha256
    np.testing.assert_allclose(one, other, atol=0.03)


@pytest.mark.parametrize("loss", ["cross-entropy", "hinge"])
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_both_losses_reach_both_towers_under_every_similarity(similarity, loss):
    recipe = Recipe(similarity=similarity, loss=loss, frozen_layers=5)
    one, other = load_encoder(), load_encoder()
    encoder = Encoder(
        one.model, one.tokenizer, "x", one.sha256, 1.0,
        query_model=other.model, similarity=similarity,
    )  # fmt: skip
    dpr.freeze_lower_layers(one.model, 5, torch.bfloat16)
    dpr.freeze_lower_layers(other.model, 5, torch.bfloat16)
    batch = batch_of(shown_pairs())
    # Each is asked for another's passage, so that whatever the vectors, some question is wrong.
    gold = batch.gold.roll(1)
    batch = replace(batch, gold=gold, negatives=torch.arange(len(batch.passages)) != gold[:, None])
    loss_value, figures = dpr.batch_loss(encoder, batch, recipe)
    assert loss_value.item() > 0
    assert 0 <= figures["accuracy"] <= 1
    loss_value.backward()
    for tower in (one.model, other.model):
        trained = {n for n, p in tower.named_parameters() if p.grad is not None}
        assert trained
        assert all(n.startswith("encoder.layer.5.") for n in trained)


def test_a_killed_run_resumes_to_the_same_encoder(tmp_path, monkeypatch):
    shown, save_every = shown_pairs(), dpr.train
    whole = train_dpr(shown, tmp_path / "whole", SMALL)

    def killed_at_the_third_step(name, loss_of, *rest, **options):
        def loss(step):
            if step == 2:
                raise KeyboardInterrupt
            return loss_of(step)

        save_every(name, loss, *rest, **options, save_every=1)

    monkeypatch.setattr(dpr, "train", killed_at_the_third_step)
    with pytest.raises(KeyboardInterrupt):
        train_dpr(shown, tmp_path / "killed", SMALL)
    monkeypatch.undo()
    resumed = train_dpr(shown, tmp_path / "killed", SMALL)
    assert (resumed.sha256, resumed.query_sha256) == (whole.sha256, whole.query_sha256)
    assert len({whole.sha256, whole.query_sha256, load_encoder().sha256}) == 3
    for tower in (whole.passage_model, whole.query_model):
        for (name, before), after in zip(
            minilm_model().state_dict().items(), tower.state_dict().values(), strict=True
        ):
            assert torch.equal(before, after) == (not name.startswith("encoder.layer.5.")), name
    with pytest.raises(InputError, match="other settings"):
        train_dpr(shown, tmp_path / "whole", replace(SMALL, epochs=5))


def test_training_teaches_what_it_shows(tmp_path):
    """Three questions by heart: each leads to its passage, by more than before."""
    encoder = train_dpr(shown_pairs(), tmp_path, Recipe(epochs=12, batch=3, rate=3e-4))
    batch = batch_of(shown_pairs())
    with torch.no_grad():
        before, _ = dpr.batch_loss(load_encoder(), batch, SMALL)
        after, figures = dpr.batch_loss(encoder, batch, SMALL)
    assert after < before / 2
    assert figures["accuracy"] == 1


@pytest.mark.parametrize(
    ("kind", "last"),
    [
        ("BertModel", "encoder.layer.1."),
        ("DistilBertModel", "transformer.layer.1."),
        ("RobertaModel", "encoder.layer.1."),
        ("MPNetModel", "encoder.layer.1."),
        ("GPT2Model", "h.1."),
        ("T5EncoderModel", "encoder.block.1."),
    ],
)
def test_of_every_layout_the_upper_layers_are_trained(kind, last):
    """And what stands above them. Of two layers, one at most is frozen."""
    tower = model(kind)
    dpr.freeze_lower_layers(tower, 5, torch.bfloat16)
    above = ("encoder.relative_attention_bias.", "ln_f.", "encoder.final_layer_norm.", "pooler.")
    for name, parameter in tower.named_parameters():
        assert parameter.requires_grad == name.startswith((last, *above)), name
        assert parameter.dtype == torch.bfloat16


def test_what_was_frozen_before_stays_so():
    tower = model("BertModel")
    kept = tower.encoder.layer[1].output.dense.weight.requires_grad_(False)
    dpr.freeze_lower_layers(tower, 1, torch.bfloat16)
    assert not kept.requires_grad


@pytest.mark.parametrize("tied", [True, False])
def test_a_named_encoder_is_trained_and_loads_again(tmp_path, capsys, tied):
    """What its files say of it stays; its embeddings do, and its upper layer learns."""
    prompts = {"query": "query: ", "document": "passage: "}
    write_sentence(tmp_path / "st", "cls", dense(), prompts=prompts, similarity_fn_name="dot")
    start, extra = load_encoder(tmp_path / "st"), []
    if not tied:
        write_sentence(tmp_path / "q", "mean", dense(), seed=1, similarity_fn_name="dot")
        extra = ["--query-encoder", str(tmp_path / "q")]
        start = load_encoder(tmp_path / "st", query_encoder=str(tmp_path / "q"))
    passages, asked = write_lakes(tmp_path)
    own = ["--corpus", passages, "--questions", asked, "--encoder", str(tmp_path / "st"), *extra]
    out = str(tmp_path / "out")
    assert cli.main(["train", "dpr", *own, "--out", out]) == 0, capsys.readouterr().err
    encoder = load_encoder(out)
    assert (encoder.pooling, encoder.similarity, encoder.score_scale) == ("cls", "dot", 1.0)
    assert encoder.prompts == start.prompts
    assert encoder.passage_model is not encoder.query_model
    for before, after in (
        (start.passage_model, encoder.passage_model),
        (start.query_model, encoder.query_model),
    ):
        changed = {
            name
            for (name, one), other in zip(
                before.state_dict().items(), after.state_dict().values(), strict=True
            )
            if not torch.equal(one, other)
        }
        assert {re.sub(r"^0\.model\.", "", name).split(".")[0] for name in changed} == {
            "encoder", "2",
        }  # fmt: skip
        assert not any("layer.0" in name for name in changed)
    folder = str(tmp_path / "index")
    build = ["index", "build", "--corpus", passages, "--out", folder, "--encoder", out]
    assert cli.main(build) == 0
    assert cli.main(["index", "search", folder, WHERE.text]) == 0
    assert cli.main(["train", "dpr", *own, "--out", out, "--resume"]) == 0
    assert load_encoder(out).sha256 == encoder.sha256
    other = [*own[:4], "--encoder", "minilm", "--out", out, "--resume"]
    capsys.readouterr()
    assert cli.main(["train", "dpr", *other]) == 2
    assert "other settings" in capsys.readouterr().err


def test_a_plain_encoder_is_trained_as_it_is_to_be_read(tmp_path):
    """With what was said of its pooling, its prompts and the similarity."""
    plain = str(write_plain(tmp_path / "plain", "DistilBertModel"))
    said = {"pooling": "last", "query_prompt": "query: "}
    own = CORPUS, [WHEN, WHERE, RIVER]
    run = Run(tmp_path / "out", steps=1, own=own)
    dpr.recipe(run, encoder=plain, similarity="l2", **said)
    encoder = load_encoder(tmp_path / "out")
    assert (encoder.pooling, encoder.similarity) == ("last", "l2")
    assert encoder.prompts == {"query": "query: "}
    with pytest.raises(InputError, match="pooling of its own"):
        dpr.recipe(Run(tmp_path / "no", own=own), pooling="cls")
    assert not (tmp_path / "no").exists()


def write_lakes(folder: Path) -> tuple[str, str]:
    """Passages and questions as files."""
    passages, asked = folder / "lakes.jsonl", folder / "asked.jsonl"
    rows = [{"id": p.id, "title": p.title, "text": p.text} for p in CORPUS]
    passages.write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = [
        {"question": q.text, "answer": [*q.answers], "gold_passage": q.gold_passage}
        for q in (WHEN, WHERE, RIVER)
    ]
    asked.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(passages), str(asked)


def test_the_commands_take_what_the_recipe_writes(tmp_path, capsys):
    own = CORPUS, [WHEN, WHERE, RIVER]
    dpr.recipe(Run(tmp_path / "encoder", steps=1, own=own), similarity="l2", loss="hinge")
    passages, _ = write_lakes(tmp_path)
    folder, encoder = str(tmp_path / "index"), str(tmp_path / "encoder")
    build = ["index", "build", "--corpus", passages, "--out", folder, "--encoder", encoder]
    assert cli.main(build) == 0
    assert PassageIndex.open(folder).manifest["index"]["type"] == "IndexFlatL2"
    assert cli.main(["index", "search", folder, WHERE.text, "--json", "--k", "1"]) == 0
    (best,) = json.loads(capsys.readouterr().out.split("\n", 1)[1])
    assert best["passage_id"] == "sorn"
    assert cli.main(["index", "search", folder, WHERE.text, "--encoder", "minilm"]) == 2
    with pytest.raises(InputError, match="holds a run already"):
        dpr.recipe(Run(tmp_path / "encoder"))
