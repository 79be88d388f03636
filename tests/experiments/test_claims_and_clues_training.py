"""The tasks' objective is what the methods themselves say of the target; training raises it."""

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from experiments import claims_and_clues_training as training
from experiments.claims_and_clues_training import MOVES, log_likelihood, own_tensors, train_task

from ragbook.corpus import Passage, Question
from ragbook.errors import InputError
from ragbook.methods.closed_book import ClosedBook
from ragbook.methods.rag import RagSequence, RagToken
from ragbook.models import SeqReader, load_reader
from ragbook.models.embedded import minilm_tokenizer
from ragbook.retrieval import Retrieved
from ragbook.training import Run

SHOWN = (
    Passage("a", "Velm", "Ilsa Brenkov charted Velm in 1873. Ilsa Brenkov drew it too."),
    Passage("b", "Orm", "Orm was charted by Tor Halst."),
)
ASKED = [
    Question("Ilsa Brenkov charted Velm.", ("true",), "a"),
    Question("Tor Halst charted Velm.", ("false",), "a"),
    Question("Ilsa Brenkov", ("Who charted Velm?",), "a"),
]
SCORES = np.array([[0.9, 0.5], [0.1, 0.3], [0.4, 0.2]], dtype=np.float32)


class Fixed:
    name, score_scale = "fixed", 3.0

    def retrieve(self, questions, k):
        rows = [SCORES[ASKED.index(question)] for question in questions]
        return [Retrieved(tuple(p.id for p in SHOWN[:k]), row[:k], SHOWN[:k]) for row in rows]


def likelihood(objective, reader):
    shown = list(zip(ASKED, Fixed().retrieve(ASKED, 2), strict=True))
    return log_likelihood(objective, reader, shown, Fixed.score_scale)


@pytest.mark.parametrize(
    ("objective", "method"),
    [
        ("rag-sequence", lambda: RagSequence(load_reader(), Fixed())),
        ("rag-token", lambda: RagToken(load_reader(), Fixed())),
        ("closed-book", lambda: ClosedBook(load_reader())),
    ],
)
def test_the_objective_is_the_methods_own_likelihood(objective, method):
    with torch.no_grad():
        trained = likelihood(objective, load_reader())
    expected = method().log_prob(ASKED, [q.answers[0] for q in ASKED], k=2)
    torch.testing.assert_close(trained, expected, rtol=1e-4, atol=1e-4)


def test_labels_are_one_token():
    tokens = minilm_tokenizer()(["true", "false"], add_special_tokens=False)["input_ids"]
    assert [len(ids) for ids in tokens] == [1, 1]


def test_biases_are_a_small_file_and_no_answer_can_be_learned_by_heart():
    model = load_reader().model
    biases, layers = (own_tensors(model, moves) for moves in MOVES)
    assert sum(p.numel() for p in biases.values()) < 60_000
    assert {n for n, p in layers.items() if n.startswith("decoder.") and p.dim() == 1} <= set(
        biases
    )
    assert not any(n.startswith("encoder.encoder.layer.1.") for n in layers)
    for own in (biases, layers):
        assert not any(model.config.decoder.vocab_size in p.shape for p in own.values())


@pytest.mark.parametrize("moves", MOVES)
def test_training_raises_the_likelihood_and_goes_on_where_it_was(moves, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "STAGES", (training.Stage(1, 2, 3), training.Stage(2, 3, 5)))
    model = deepcopy(load_reader().model)
    with torch.no_grad():
        before = likelihood("rag-sequence", load_reader())
    run = Run(tmp_path)
    own = train_task("claims", model, ASKED, Fixed(), run, moves=moves)
    taught = SeqReader(model.float(), minilm_tokenizer(), "taught")
    with torch.no_grad():
        after = likelihood("rag-sequence", taught)
    assert after.mean() > before.mean() + 0.5
    again = train_task("claims", deepcopy(load_reader().model), ASKED, Fixed(), run, moves=moves)
    assert all(torch.equal(again[name], tensor) for name, tensor in own.items())
    with pytest.raises(InputError, match="other settings"):
        train_task("claims", model, ASKED[:2], Fixed(), run, moves=moves)


@pytest.mark.parametrize(
    "given", [("answers",), ("claims", "fid"), ("claims", "rag-token", "decoder")]
)
def test_what_there_is_not_is_said(given, tmp_path):
    task, *rest = given
    with pytest.raises(InputError, match="is unknown"):
        training.recipe(task, Run(Path(tmp_path) / "out"), *rest)
