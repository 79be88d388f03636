"""Distillation: the divergence by hand, what is read and kept, and that a run resumes."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ragbook import cli
from ragbook.corpus import Corpus, Passage, Question
from ragbook.errors import InputError
from ragbook.index import PassageIndex, build_index
from ragbook.methods.fid import FiD
from ragbook.models import Encoder, SeqReader, load_encoder
from ragbook.models.embedded import minilm_tokenizer
from ragbook.models.encoder import weights_sha256
from ragbook.models.model_files import quiet
from ragbook.retrieval import DenseRetriever
from ragbook.training import distil as module
from ragbook.training.distil import Recipe, Target, batch_loss, distil, divergence, reader_targets
from tests.methods.conftest import PASSAGES, QUESTIONS, seq_model, tower

CORPUS = Corpus("four", PASSAGES)
SMALL = Recipe(
    rounds=2, questions=4, k=3, batch=2, rate=1e-2, frozen_layers=0, dtype="float32"
)  # fmt: skip
ASKED = [
    *QUESTIONS,
    Question("Which river is Poland's longest?", ("Vistula",), "p3"),
    Question("Which river passes Bonn?", ("Rhine",), "p1"),
    Question("Which river reaches Budapest?", ("Danube",), "p0"),
]


@pytest.fixture(params=["tied", "two towers", "sentence-transformers"])
def ends(request, tmp_path_factory):
    """(reader, encoder of one tower, of two, or of one that is loaded by its name)."""
    torch.manual_seed(4)
    one, other = tower(), tower()
    if request.param == "sentence-transformers":
        folder = tmp_path_factory.mktemp("plain")
        with quiet():
            one.save_pretrained(folder)
            minilm_tokenizer().save_pretrained(folder)
        encoder = load_encoder(folder).changed(score_scale=5.0)
        return SeqReader(seq_model("bart"), minilm_tokenizer(), "bart"), encoder
    encoder = Encoder(
        one,
        minilm_tokenizer(),
        "tiny",
        weights_sha256(one),
        5.0,
        query_model=None if request.param == "tied" else other,
    )
    return SeqReader(seq_model("bart"), minilm_tokenizer(), "bart"), encoder


@given(st.data())
@settings(deadline=None)
def test_the_divergence_is_the_sum_over_what_was_read(data):
    """Term by term in float64, with passages that the reader was not shown; and its gradient."""
    B, P = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 5))
    numbers = st.floats(-8, 8)
    drawn = [
        torch.tensor(data.draw(st.lists(numbers, min_size=B * P, max_size=B * P))).reshape(B, P)
        for _ in range(2)
    ]
    counts = data.draw(st.lists(st.integers(1, P), min_size=B, max_size=B))
    unread = torch.arange(P)[None] >= torch.tensor(counts)[:, None]
    scores, targets = drawn[0].requires_grad_(), drawn[1].masked_fill(unread, float("-inf"))
    loss = divergence(scores, targets)
    loss.backward()
    expected = 0.0
    for b, own in enumerate(counts):
        s, g = (np.exp(v[b].detach().numpy().astype(float)) for v in (scores, targets))
        s, g = s / s.sum(), g / g.sum()
        expected += float((g[:own] * np.log(g[:own] / s[:own])).sum()) / B
        assert scores.grad is not None
        np.testing.assert_allclose(scores.grad[b], (s - g) / B, atol=1e-5)
    assert loss.item() == pytest.approx(expected, abs=1e-4)
    assert divergence(targets, targets + 3.0).item() == pytest.approx(0, abs=1e-5)


def test_what_is_read_are_the_readers_own_scores_and_they_are_kept(ends, tmp_path):
    reader, encoder = ends
    index = build_index(CORPUS, tmp_path / "index", encoder, progress=False)
    retriever = DenseRetriever(index, encoder)
    targets = reader_targets(reader, retriever, ASKED, tmp_path / "work", SMALL, "first")
    wanted = FiD(reader, retriever).first_token_scores(ASKED, 3)
    found = retriever.retrieve(ASKED, 3)
    for row, (target, one) in enumerate(zip(targets, found, strict=True)):
        assert target.passages == one.passages
        np.testing.assert_allclose(target.scores, wanted[row], rtol=1e-4, atol=1e-5)
    nobody = SeqReader(seq_model("t5"), minilm_tokenizer(), "t5")
    assert reader_targets(nobody, retriever, ASKED, tmp_path / "work", SMALL, "first") == targets
    with pytest.raises(InputError, match="other settings"):
        reader_targets(reader, retriever, ASKED, tmp_path / "work", SMALL, "second")
    (file,) = (tmp_path / "work").iterdir()
    said = json.loads(file.read_text())
    for change in ({"scores": said["scores"][1:]}, {"scores": [[]] * len(ASKED)}, {"scores": 3},
                   {"scores": [["x"]]}, {"fingerprint": None}):  # fmt: skip
        file.write_text(json.dumps(said | change))
        with pytest.raises(InputError, match=r"is damaged .*; delete it"):
            reader_targets(nobody, retriever, ASKED, tmp_path / "work", SMALL, "first")


def test_rounding_what_the_reader_computes_leaves_what_was_found_alone(ends, tmp_path):
    reader, encoder = ends
    index = build_index(CORPUS, tmp_path / "index", encoder, progress=False)
    retriever = DenseRetriever(index, encoder)
    exact, rounded = (
        reader_targets(reader, retriever, ASKED, tmp_path / dtype, replace(SMALL, dtype=dtype))
        for dtype in ("float32", "bfloat16")
    )
    assert [t.passages for t in exact] == [t.passages for t in rounded]
    assert [t.scores for t in exact] != [t.scores for t in rounded]
    for a, b in zip(exact, rounded, strict=True):
        np.testing.assert_allclose(a.scores, b.scores, rtol=0.05, atol=0.2)


@pytest.mark.parametrize("in_batch", [True, False])
def test_a_batch_scores_each_question_with_its_own_passages(ends, in_batch):
    """Uneven numbers of passages, some shared: the loss is that of the vectors, by hand, with the
    other question's passages below the fraction or without them."""
    _, encoder = ends
    targets = [
        Target(ASKED[0], (PASSAGES[2], PASSAGES[0], PASSAGES[1]), (0.5, 2.0, -1.0)),
        Target(ASKED[1], (PASSAGES[0], PASSAGES[2]), (0.0, 1.0)),
    ]
    recipe = replace(SMALL, temperature=0.5, in_batch=in_batch)
    others = {0: [], 1: [PASSAGES[1]]}  # what stands in the batch, and not in the row
    loss, figures = batch_loss(encoder, targets, recipe)
    expected, agree = 0.0, 0
    for row, target in enumerate(targets):
        q = encoder.encode_queries([target.question.text])
        shown = [*target.passages, *(others[row] if in_batch else [])]
        all_s = 5.0 * (q @ encoder.encode_passages(shown).T)[0]
        s, g = all_s[: len(target.passages)], np.array(target.scores) / 0.5
        log_s, log_g = s - np.log(np.exp(all_s).sum()), g - np.log(np.exp(g).sum())
        expected += float((np.exp(log_g) * (log_g - log_s)).sum()) / 2
        agree += int(s.argmax() == g.argmax())
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    assert figures["agreement"] == agree / 2
    loss.backward()
    for model in (encoder.passage_model, encoder.query_model):
        assert any(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


def test_rounds_teach_and_leave_the_start_as_it_was(ends, tmp_path):
    """Each round's encoder has its index, and the divergence on what it was shown has fallen."""
    reader, encoder = ends
    before = [weights_sha256(m) for m in (encoder.passage_model, encoder.query_model)]
    recipe = replace(SMALL, rounds=2, epochs=8)
    retrievers = list(distil(reader, encoder, CORPUS, ASKED, tmp_path, recipe, 0, False))
    after = [weights_sha256(m) for m in (encoder.passage_model, encoder.query_model)]
    assert before == after
    assert len({r.encoder.sha256 for r in retrievers}) == 3
    tied = encoder.passage_model is encoder.query_model
    for number, retriever in enumerate(retrievers[1:], 1):
        folder = tmp_path / f"round-{number}"
        loaded = load_encoder(str(folder))
        assert (loaded.passage_model is loaded.query_model) == tied
        assert loaded.query_sha256 == retriever.encoder.query_sha256
        PassageIndex.open(folder / "index").check_encoder(loaded)
    scored = reader_targets(reader, retrievers[0], ASKED, tmp_path / "again", recipe)
    with torch.no_grad():
        losses = [batch_loss(r.encoder, scored, recipe)[0].item() for r in retrievers[:2]]
    assert losses[1] < losses[0] / 2


def test_neither_answers_nor_gold_passages_are_looked_at(ends, tmp_path):
    reader, encoder = ends
    bare = [Question(q.text, ("something else",)) for q in ASKED]
    last = [
        list(distil(reader, encoder, CORPUS, asked, tmp_path / name, SMALL, 0, False))[-1]
        for name, asked in (("whole", ASKED), ("bare", bare))
    ]
    assert last[0].encoder.query_sha256 == last[1].encoder.query_sha256
    with pytest.raises(InputError, match="no question"):
        next(distil(reader, encoder, CORPUS, [], tmp_path / "none", SMALL))


def test_a_killed_run_goes_on_as_if_nothing_had_happened(ends, tmp_path, monkeypatch):
    reader, encoder = ends

    def run(name):
        *_, last = distil(reader, encoder, CORPUS, ASKED, tmp_path / name, SMALL, 0, False)
        return last.encoder.sha256, last.encoder.query_sha256, (last.index.path / "..").resolve()

    whole = run("whole")
    kept = module.train

    def dies_in_the_second_round(name, loss_of, optimizer, steps, work, **options):
        def loss(step):
            if step == 1 and "round-2" in str(work):
                raise KeyboardInterrupt
            return loss_of(step)

        kept(name, loss, optimizer, steps, work, **options, save_every=1)

    monkeypatch.setattr(module, "train", dies_in_the_second_round)
    with pytest.raises(KeyboardInterrupt):
        run("killed")
    monkeypatch.undo()
    assert run("killed")[:2] == whole[:2]
    again = replace(SMALL, temperature=2.0)
    with pytest.raises(InputError, match="other settings"):
        list(distil(reader, encoder, CORPUS, ASKED, tmp_path / "whole", again, 0, False))


def test_the_command_writes_an_encoder_that_the_others_take(tmp_path, capsys):
    """One update a round on passages of one's own, from the embedded encoder and bundled reader."""
    passages, asked = tmp_path / "rivers.jsonl", tmp_path / "asked.jsonl"
    rows = [{"id": p.id, "title": p.title, "text": p.text} for p in PASSAGES]
    passages.write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked.write_text(
        "".join(json.dumps({"question": q.text, "answer": [*q.answers]}) + "\n" for q in ASKED)
    )
    own = ["--corpus", str(passages), "--questions", str(asked), "--out", str(tmp_path / "out")]
    assert cli.main(["train", "distil", *own, "--steps", "1", "--encoder", "minilm"]) == 0
    encoder = load_encoder(str(tmp_path / "out"))
    assert encoder.sha256 not in (load_encoder().sha256, None)
    built = ["--corpus", str(passages), "--encoder", str(tmp_path / "out")]
    assert cli.main(["index", "build", *built, "--out", str(tmp_path / "index")]) == 0
    capsys.readouterr()
    assert cli.main(["train", "distil", *own]) == 2
    assert "holds a run already" in capsys.readouterr().err
    assert cli.main(["train", "rag", *own, "--encoder", "minilm"]) == 2
    assert "Only the recipes dpr and distil take --encoder" in capsys.readouterr().err
    assert cli.main(["train", "distil", *own, "--loss", "hinge"]) == 2
    assert "Only the recipe dpr takes --loss" in capsys.readouterr().err


def test_a_passage_without_words_is_read_like_any_other(ends, tmp_path):
    """A corpus smaller than k: fewer passages are found, all of them are scored."""
    reader, encoder = ends
    corpus = Corpus("two", [PASSAGES[0], Passage("p9", "Empty", "It.")])
    index = build_index(corpus, tmp_path / "index", encoder, progress=False)
    (target,) = reader_targets(
        reader, DenseRetriever(index, encoder), ASKED[:1], tmp_path / "work", SMALL
    )
    assert len(target.passages) == len(target.scores) == 2
    assert np.isfinite(target.scores).all()
