"""kNN-LM's own training raises the probability that kNN-LM itself gives an answer."""

from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from ragbook.corpus import Question
from ragbook.errors import InputError
from ragbook.methods.knn_lm import KnnLM
from ragbook.models import (
    LanguageModel,
    load_adapted_language_model,
    load_encoder,
    load_language_model,
    loading,
)
from ragbook.models.bundled import BUNDLED, manifest, write_manifest
from ragbook.models.changes import apply, part
from ragbook.training.loop import write_tensors
from ragbook.training.reader.memory import Adapting, train_memory
from ragbook.training.reader.objectives import Recipe
from ragbook.training.run import Run
from tests.fakes import FixedRetriever
from tests.training.reader.lakes import ASKED, SHOWN, few_examples

RETRIEVER = FixedRetriever(SHOWN, np.zeros((2, 3), dtype=np.float32))
QUICK = Recipe(steps=6, batch=2, n=3, kept=384)


@pytest.mark.parametrize(("lam", "temperature"), [(0.6, 10.0), (0.2, 3.0), (0.0, 1.0)])
def test_the_objective_is_the_methods_own_likelihood(lam, temperature, tmp_path):
    lm = load_language_model()
    method = KnnLM(lm, RETRIEVER, lam, temperature)
    expected = method.log_prob(ASKED, [q.answers[0] for q in ASKED], k=3)
    found = Adapting(lm, lam, temperature, Run(tmp_path, precision="float32")).log_prob(
        ASKED, [SHOWN, SHOWN]
    )
    torch.testing.assert_close(found.detach(), expected, atol=2e-4, rtol=1e-5)


def test_an_answer_that_no_passage_holds_does_no_harm(tmp_path):
    one = Adapting(load_language_model(), 0.5, 10.0, Run(tmp_path, precision="float32"))
    question = Question("Who was it?", ("Zyx Qwertz",))
    (found,) = one.log_prob([question], [SHOWN[1:2]])
    found.backward()
    gradients = [p.grad for p in one.model.parameters() if p.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert any(gradient.any() for gradient in gradients)


@pytest.fixture(scope="module")
def few():
    return few_examples()


def test_training_raises_the_likelihood_and_leaves_the_model(few, tmp_path):
    """And the changes, added to the model, give what was trained; what has a value for each word
    does not change."""
    lm, run = load_language_model(), Run(tmp_path, precision="float32")
    before = {name: p.clone() for name, p in lm.model.named_parameters()}
    stored = train_memory(lm, 0.6, 10.0, load_encoder(), few, run, QUICK)
    for name, parameter in lm.model.named_parameters():
        assert torch.equal(parameter, before[name]), name
    model = deepcopy(lm.model)
    apply(model, part(stored, "lm"))
    adapted = LanguageModel(model, lm.tokenizer, "adapted")
    answers = [q.answers[0] for q in ASKED]

    def log_prob(one):
        return KnnLM(one, RETRIEVER, 0.6, 10.0).log_prob(ASKED, answers, k=3)

    assert (log_prob(adapted) > log_prob(lm)).all()
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    every = {n for n, p in before.items() if 30_522 not in p.shape}
    assert moved <= every
    assert {n for n in every if "layer.0." in n and before[n].dim() == 2} < moved
    # A run with other settings does not go on from its checkpoint.
    with pytest.raises(InputError, match="other settings"):
        train_memory(lm, 0.5, 10.0, load_encoder(), few, replace(run, resume=True), QUICK)


def test_a_folder_gives_kNN_LM_the_model_that_it_trained(tmp_path):
    """With its own lambda and temperature; the shared model stays with those of its own."""
    from ragbook.methods import load

    name, weight = next(
        (n, p) for n, p in load_language_model().model.named_parameters() if "layer.5." in n
    )
    change = torch.full_like(weight, 0.5)
    write_tensors(tmp_path / "knn-lm.safetensors", {f"lm.{name}.change": change.bfloat16()})
    tuned = {
        "own": {"lam": 0.3, "temperature": 100.0},
        "shared": {"lam": 0.1, "temperature": 30.0},
    }
    write_manifest(tmp_path, knn_lm=tuned)
    folder = str(tmp_path)

    def loaded(**how: Any) -> KnnLM:
        (method,) = load(["knn-lm"], RETRIEVER, reader=folder, **how)
        assert isinstance(method, KnnLM)
        return method

    own, shared, named = loaded(), loaded(shared=True), loaded(lm=BUNDLED)
    weights = [dict(one.lm.model.named_parameters())[name] for one in (own, shared, named)]
    torch.testing.assert_close(weights[0], weight + 0.5)
    assert all(torch.equal(other, weight) for other in weights[1:])
    assert [(one.lam, one.temperature) for one in (own, shared, named)] == [
        (0.3, 100.0),
        (0.1, 30.0),
        (0.1, 30.0),
    ]
    assert load_adapted_language_model(str(tmp_path / "nowhere")) is None
    write_tensors(tmp_path / "knn-lm.safetensors", {"elsewhere.change": change.bfloat16()})
    write_manifest(tmp_path)
    loading._adapted_language_model.__wrapped__.cache_clear()
    with pytest.raises(InputError, match="changes what no reader has: elsewhere"):
        load_adapted_language_model(folder)


def test_the_bundled_readers_have_one():
    """It is other than the language model that perplexity is measured with."""
    adapted, plain = load_adapted_language_model(), load_language_model()
    assert adapted is not None
    assert adapted.sha256 != plain.sha256
    assert set(manifest()["knn_lm"]) == {"own", "shared"}
