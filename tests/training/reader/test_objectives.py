"""Each method's training objective is the likelihood that the method itself gives the answer."""

from copy import deepcopy

import numpy as np
import pytest
import torch

from ragbook.corpus import Passage, Question
from ragbook.methods.fid import FiD
from ragbook.methods.rag import RagSequence, RagToken
from ragbook.methods.realm import Realm
from ragbook.models import load_reader, load_span_reader
from ragbook.models.embedded import minilm_tokenizer
from ragbook.training.reader.examples import RetrievedQuestion
from ragbook.training.reader.objectives import (
    METHODS,
    answer_spans,
    log_likelihood,
    own_tensors,
    train_objectives,
)
from ragbook.training.reader.train import collate
from ragbook.training.reader.worlds import Example
from ragbook.training.run import Run
from tests.fakes import FixedRetriever

SHOWN = (
    Passage("a", "Velm", "Ilsa Brenkov charted Velm in 1873. Ilsa Brenkov drew it too."),
    Passage("b", "Orm", "Orm was charted by Tor Halst."),
    Passage("c", "Lake Ist", "The lake was first seen by Ilsa Brenkov."),
)
ASKED = [
    Question("Who charted Velm?", ("Ilsa Brenkov",), "a"),
    Question("When was Velm charted?", ("1873",), "a"),
]
SCORES = np.array([[0.9, 0.5, 0.2], [0.1, 0.3, 0.2]], dtype=np.float32)
RETRIEVER = FixedRetriever(SHOWN, SCORES, score_scale=3.0)


def batch():
    examples = [Example(question, SHOWN, 0) for question in ASKED]
    prior = torch.from_numpy(SCORES * RETRIEVER.score_scale).log_softmax(-1)
    return collate(minilm_tokenizer(), examples, 10), prior


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("realm", lambda: Realm(load_span_reader(), RETRIEVER)),
        ("rag-sequence", lambda: RagSequence(load_reader(), RETRIEVER)),
        ("rag-token", lambda: RagToken(load_reader(), RETRIEVER)),
        ("fid", lambda: FiD(load_reader(), RETRIEVER)),
    ],
)
def test_the_objective_is_the_methods_own_likelihood(name, method):
    reader, span = load_reader(), load_span_reader()
    with torch.no_grad():
        trained, _ = log_likelihood(name, reader.model, span.scorer, *batch())
    expected = method().log_prob(ASKED, [q.answers[0] for q in ASKED], k=3)
    torch.testing.assert_close(trained, expected, rtol=1e-4, atol=1e-4)


def test_in_realm_a_passage_without_the_answer_is_asked_to_say_so():
    reader, span = load_reader(), load_span_reader()
    with torch.no_grad():
        _, not_here = log_likelihood("realm", reader.model, span.scorer, *batch())
        _, nothing = log_likelihood("rag-token", reader.model, span.scorer, *batch())
    assert (not_here != 0).tolist() == [[False, True, False], [False, True, True]]
    _, log_probs = span.span_log_probs([ASKED[1].text], [SHOWN[1]])
    assert float(not_here[1, 1]) == pytest.approx(float(log_probs[0, 0, 0]), rel=1e-3)
    assert not nothing.any()


def test_every_place_that_reads_the_answer_counts():
    made, _ = batch()
    spans = answer_spans(made, 10)
    assert spans.flatten(1).sum(1).tolist() == [2, 0, 1, 1, 0, 0]
    row, start, width = (int(i[0]) for i in spans.nonzero(as_tuple=True))
    tokens = made.inputs["input_ids"][row, start : start + width + 1]
    assert minilm_tokenizer().decode(tokens) == "ilsa brenkov"


def test_no_method_may_learn_answers_by_heart():
    """What moves is small, and the output layer's bias over the vocabulary stays."""
    reader, span = load_reader(), load_span_reader()
    for method in METHODS:
        own = own_tensors(method, reader.model, span.scorer)
        assert 0 < sum(p.numel() for p in own.values()) < 150_000
        assert not any(30_522 in p.shape for p in own.values())


def test_training_raises_the_likelihood_and_leaves_the_shared_reader(tmp_path):
    model, scorer = deepcopy(load_reader().model), deepcopy(load_span_reader().scorer)
    before = {n: p.clone() for n, p in [*model.named_parameters(), *scorer.named_parameters()]}
    found = [
        RetrievedQuestion(question, SHOWN, tuple(row), 0)
        for question, row in zip(ASKED, SCORES.tolist(), strict=True)
    ]
    files = train_objectives(model, scorer, found, "few", Run(tmp_path, steps=8))
    for name, parameter in [*model.named_parameters(), *scorer.named_parameters()]:
        assert torch.equal(parameter, before[name]), name
    for method in METHODS:
        with torch.no_grad():
            shared, _ = log_likelihood(method, model, scorer, *batch())
            for name, parameter in own_tensors(method, model, scorer).items():
                parameter.copy_(files[method][name].float())
            own, _ = log_likelihood(method, model, scorer, *batch())
            for name, parameter in [*model.named_parameters(), *scorer.named_parameters()]:
                parameter.copy_(before[name])
        assert own.mean() > shared.mean(), method


def test_an_answer_that_no_span_reads_does_no_harm(tmp_path):
    """Eleven tokens or more: REALM cannot say it, and what it learns stays finite and small."""
    model, scorer = deepcopy(load_reader().model), deepcopy(load_span_reader().scorer)
    long = "Ilsa Brenkov charted Velm in 1873. Ilsa Brenkov drew it"
    asked = Question("What happened?", (long,), "a")
    files = train_objectives(
        model,
        scorer,
        [RetrievedQuestion(asked, SHOWN, (0.3, 0.2, 0.1), 0)],
        "long",
        Run(tmp_path, steps=2),
    )
    for name, parameter in scorer.named_parameters():
        torch.testing.assert_close(files["realm"][name].float(), parameter, atol=0.01, rtol=0.02)
