"""Measuring claims and clues, on methods whose right figures are known."""

import json

import numpy as np
import pytest
import torch
from experiments import claims_and_clues_data as tasks
from experiments.claims_and_clues import (
    classify,
    label_log_probs,
    measure_claims,
    measure_clues,
    record,
    round_trip,
    row,
    table,
    task_reader,
)
from experiments.claims_and_clues_training import base, own_tensors

from ragbook.corpus import Passage, Question, QuestionSet
from ragbook.errors import InputError
from ragbook.methods import rag
from ragbook.methods.base import Answer, Evidence, doc_log_probs
from ragbook.methods.rag import RagSequence, RagToken
from ragbook.models import load_reader
from ragbook.models.bundled import write_manifest
from ragbook.models.embedded import minilm_tokenizer
from ragbook.retrieval import Retrieved
from ragbook.training.loop import write_tensors

SHOWN = (
    Passage("a", "Velm", "Ilsa Brenkov charted Velm in 1873."),
    Passage("b", "Orm", "Orm was charted by Tor Halst."),
)
CLAIMS = QuestionSet(
    "few",
    "dev",
    [
        Question("Ilsa Brenkov charted Velm.", ("true",), "a"),
        Question("Tor Halst charted Velm.", ("false",), "a"),
        Question("Orm was charted by Tor Halst.", ("true",), "b"),
    ],
)


class Fixed:
    name, score_scale = "fixed", 3.0

    def retrieve(self, questions, k):
        scores = np.array([0.7, 0.4], dtype=np.float32)
        return [Retrieved(("a", "b"), scores, SHOWN) for _ in questions]


class Says:
    """Answers what it was told to, and puts its evidence on the first passage."""

    name, parameters = "says", 1

    def __init__(self, texts, retriever=None):
        self.texts, self.retriever = texts, retriever

    def answer(self, questions, k=5):
        evidence = (Evidence("b", 0.2), Evidence("a", 0.8))
        return [Answer(q.text, self.texts[q.text], -1.0, evidence, 0.0) for q in questions]

    def log_prob(self, questions, answers, k=5):
        said = [self.texts[q.text] == a for q, a in zip(questions, answers, strict=True)]
        return torch.tensor([-1.0 if hit else -2.0 for hit in said])


def test_where_only_the_label_counts_both_rag_models_are_one():
    """Lewis et al. 2020, section 3.4: a target of one token."""
    reader, found = load_reader(), Fixed().retrieve(list(CLAIMS), 2)
    prior = doc_log_probs(found, Fixed.score_scale)
    ids = [minilm_tokenizer().convert_tokens_to_ids(label) for label in tasks.LABELS]
    rng = torch.Generator().manual_seed(0)
    given = torch.randn(len(CLAIMS), 2, 1, generator=rng) - 3
    mask = torch.ones(len(CLAIMS), 1)
    torch.testing.assert_close(
        rag.sequence_log_prob(given, prior, mask), rag.token_log_prob(given, prior, mask)
    )
    # ... while `log_prob` counts the end token too, in which they may differ.
    whole = [m(reader, Fixed()) for m in (RagSequence, RagToken)]
    sequence, token = (label_log_probs(method, list(CLAIMS), 2) for method in whole)
    assert not torch.allclose(sequence, token)
    assert [reader.answer_ids(label) for label in tasks.LABELS] == [
        [ids[0], reader.end],
        [ids[1], reader.end],
    ]


def test_the_likelier_label_is_the_claims():
    texts = {claim.text: claim.answers[0] for claim in CLAIMS}
    assert classify(Says(texts), list(CLAIMS)) == ["true", "false", "true"]


def test_figures_of_claims():
    wrong = {claim.text: "true" for claim in CLAIMS}
    rows = {r["metric"]: r for r in measure_claims([Says(wrong, Fixed())], CLAIMS, 2)}
    assert rows["accuracy"]["value"] == pytest.approx(2 / 3)
    assert rows["accuracy, true claims"]["value"] == 1
    assert rows["accuracy, false claims"]["value"] == 0
    assert rows["evidence on the gold passage"]["value"] == pytest.approx(2 / 3)
    assert rows["evidence on the gold passage, true claims"]["value"] == 0.5
    assert {r["n"] for r in rows.values()} == {3, 2, 1}
    closed = {r["metric"] for r in measure_claims([Says(wrong)], CLAIMS, 1)}
    assert closed == {"accuracy", "accuracy, true claims", "accuracy, false claims"}


def test_a_question_that_tells_the_name_fails_the_round_trip():
    answers = {
        "Who charted Velm?": "Brenkov",
        "Who is Brenkov?": "Brenkov",
        "When?": "1873",
        "?": "",
    }
    written = ["Who charted Velm?", "Who is Brenkov?", "When?", ""]
    names = [("Ilsa Brenkov", "Brenkov")] * 4
    assert round_trip(Says(answers), written, names) == [True, False, False, False]


def test_figures_of_clues():
    clues = tasks.clues("dev").head(5)
    written = {clue.text: clue.answers[0] for clue in clues}
    answering = Says({question: clue.text for clue in clues for question in clue.answers})
    made = measure_clues([Says(written)], clues, 5, answering, minilm_tokenizer())
    figures = {r["metric"]: r["value"] for r in made}
    assert figures["f1"] == 1
    assert figures["tells the name"] == 0
    assert figures["round trip"] == np.mean([" (" not in clue.text for clue in clues])
    tokens = minilm_tokenizer()([clue.answers[0] for clue in clues], add_special_tokens=False)
    assert figures["nats a token"] == np.mean([1 / (len(i) + 1) for i in tokens["input_ids"]])


def test_rows_of_one_command_are_replaced_and_the_others_kept(tmp_path):
    path = tmp_path / "tasks.json"
    first, second = (row("f1", [0.5, 1.0], command=command) for command in ("a", "b"))
    record(path, [first])
    record(path, [second])
    record(path, [row("f1", [0.0], command="a")])
    rows = json.loads(path.read_text())
    assert [(r["command"], r["value"], r["n"]) for r in rows] == [("b", 0.75, 2), ("a", 0.0, 1)]
    assert rows[0]["ci95"] == [0.5, 1.0]


def test_what_a_task_taught_is_put_into_the_reader_it_was_taught_to(tmp_path):
    own = own_tensors(load_reader().model, "biases")
    changed = {name: parameter.detach() + 1 for name, parameter in own.items()}
    write_tensors(tmp_path / "claims.safetensors", changed, base=base())
    write_manifest(tmp_path)
    taught = dict(task_reader("claims", str(tmp_path)).model.named_parameters())
    for name, parameter in load_reader().model.named_parameters():
        added = 1.0 if name in changed else 0.0
        assert torch.allclose(taught[name], parameter + added, atol=1e-6), name
    other = tmp_path / "other"
    other.mkdir()
    write_tensors(other / "claims.safetensors", changed, base="another")
    write_manifest(other)
    with pytest.raises(InputError, match="another reader"):
        task_reader("claims", str(other))
    with pytest.raises(InputError, match="no weights"):
        task_reader("claims", "nowhere")


def test_the_table_has_shares_in_percent_and_nats_as_they_are():
    rows = [
        row("accuracy", [0.0, 1.0], task="claims", model="reader", k=5),
        row("accuracy, true claims", [1.0, 1.0], task="claims", model="reader", k=5),
        row("nats a token", [1.25, 1.25], task="claims", model="blind", k=None),
        row("f1", [1.0], task="clues", model="reader", k=5),
    ]
    assert table(rows, "claims") == {
        "reader, k = 5": {"accuracy": "50.0 [0.0, 100.0]"},
        "blind": {"nats a token": "1.2 [1.2, 1.2]"},
    }
