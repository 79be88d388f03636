"""The language-modelling task on tiny text, against the definition."""

import inspect
import logging
import math
import sys

import numpy as np
import pytest
import torch

from ragbook.corpus import Corpus, Passage
from ragbook.errors import InputError
from ragbook.evaluation import perplexity as module
from ragbook.evaluation.perplexity import (
    CONTEXT,
    STRIDE,
    approximation,
    contexts_of,
    look_up,
    perplexity,
    prompted,
    score,
    token_log_probs,
    windows,
)
from ragbook.index.datastore import build_datastore
from ragbook.methods.knn_lm import interpolate, knn_target_log_prob
from ragbook.methods.knn_lm.adaptive import features
from ragbook.models import LanguageModel, load_language_model
from ragbook.models.lm import new_lm_model
from ragbook.retrieval import Retrieved

CORPUS = Corpus(
    "tiny",
    [
        Passage("a-1", "Lake Velm", "Lake Velm lies in Ordania, north of the town of Brisk."),
        Passage("b-1", "Mount Orr", "Mount Orr is a mountain of granite above the Ister valley."),
    ],
)
TEXT = "Lake Velm lies in Ordania, and Mount Orr stands above the Ister valley. " * 6


@pytest.fixture(scope="module")
def found():
    return token_log_probs([TEXT, "A lake."], CORPUS, load_language_model(), k=8, progress=False)


def test_every_token_is_scored_once_by_every_method(found):
    lm = load_language_model()
    for parts in found.values():
        assert [len(part) for part in parts] == [
            len(lm.tokenizer(text, add_special_tokens=False)["input_ids"])
            for text in (TEXT, "A lake.")
        ]


def test_windows_overlap_and_cover_the_document():
    lm = load_language_model()
    ids = lm.tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    scored = []
    for number, window in enumerate(windows(lm, TEXT)):
        assert window.ids[0] == lm.start
        assert window.scored - 1 == min(CONTEXT, number * STRIDE)
        scored += window.ids[window.scored :]
    assert scored == ids


def test_a_long_document_is_no_cause_for_alarm(monkeypatch):
    """It is cut into windows, and the tokenizer need not say that it is too long for the model."""
    lm, said = load_language_model(), []
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", said.append)
    monkeypatch.setattr(lm.tokenizer, "deprecation_warnings", {})  # it would say so only once
    logging.getLogger("transformers").addHandler(handler)
    try:
        assert len(list(windows(lm, "word " * 600))) == 10
        assert not said
        lm.tokenizer("word " * 600)
        assert said
    finally:
        logging.getLogger("transformers").removeHandler(handler)


def test_base_is_the_models_own_likelihood(found):
    lm = load_language_model()
    ids = [lm.start, *lm.tokenizer("A lake.", add_special_tokens=False)["input_ids"]]
    with torch.no_grad():
        logits = lm.model(torch.tensor([ids])).logits[0].double()
    expected = [logits[i].log_softmax(-1)[t].item() for i, t in enumerate(ids[1:])]
    np.testing.assert_allclose(found["base"][1], expected, atol=1e-4)


def test_knn_is_the_formula_over_the_whole_corpus(found):
    """One token by hand: neighbours among all contexts, exactly, then the interpolation."""
    lm, tuned = load_language_model(), module.manifest()["perplexity"]
    ids = [lm.start, *lm.tokenizer("A lake.", add_special_tokens=False)["input_ids"]]
    keys, log_probs = lm.forward(torch.tensor([ids]))
    memory = lm.key_values(list(CORPUS))
    pairs = [  # a datastore holds keys in half precision
        (k, int(v)) for ks, vs in memory for k, v in zip(ks.half().double(), vs, strict=True)
    ]
    query, target = keys[0, 1].double(), ids[2]
    near = sorted((float((query - k).square().sum()), v) for k, v in pairs)[:8]
    weights = [math.exp(-(d - near[0][0]) / tuned["temperature"]) for d, _ in near]
    neighbours = sum(w for w, (_, v) in zip(weights, near, strict=True) if v == target)
    p = (1 - tuned["lam"]) * log_probs[0, 1, target].exp().item()
    p += tuned["lam"] * neighbours / sum(weights)
    assert found["knn-lm"][1][1] == pytest.approx(math.log(p), abs=1e-4)


def test_lambda_zero_is_the_base_model():
    plain = token_log_probs([TEXT], CORPUS, load_language_model(), k=4, lam=0.0, progress=False)
    np.testing.assert_allclose(plain["knn-lm"][0], plain["base"][0], atol=1e-6)


def test_the_memory_helps_on_text_that_it_holds(found):
    assert found["knn-lm"][0].mean() > found["base"][0].mean()


def test_the_result_has_the_promised_form():
    result = perplexity(["Lake Velm."], CORPUS, k=4, progress=False)
    assert list(result) == ["base", "knn-lm", "in-context"]
    for entry in result.values():
        assert set(entry) == {"perplexity", "tokens"}
        assert entry["perplexity"] > 1
        assert entry["tokens"] == 4  # lake, vel, ##m, .


@pytest.mark.parametrize("function", [score, approximation, token_log_probs, perplexity])
def test_as_many_neighbours_as_in_the_paper(function):
    assert inspect.signature(function).parameters["k"].default == 1024


def test_no_text_is_refused():
    with pytest.raises(InputError, match="no text"):
        perplexity(["  "], CORPUS, progress=False)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    return build_datastore(
        CORPUS, tmp_path_factory.mktemp("d") / "store", load_language_model(), False
    )


def test_a_datastore_on_the_disk_is_the_same_memory(found, stored):
    lm = load_language_model()
    again = token_log_probs([TEXT, "A lake."], CORPUS, lm, k=8, progress=False, datastore=stored)
    for name, parts in found.items():
        for part, other in zip(parts, again[name], strict=True):
            np.testing.assert_allclose(part, other, atol=1e-6)
    with torch.no_grad():
        wrong = LanguageModel(new_lm_model(), lm.tokenizer, "another")
    with pytest.raises(InputError, match="another"):
        token_log_probs([TEXT], CORPUS, wrong, progress=False, datastore=stored)


def test_searching_a_few_tokens_at_a_time_changes_nothing(stored, monkeypatch):
    contexts = contexts_of([TEXT, "A lake."], load_language_model(), progress=False)
    whole = look_up(contexts, stored, 8)
    monkeypatch.setattr(module, "SEARCHED", 5)
    for one, other in zip(whole, look_up(contexts, stored, 8), strict=True):
        for column, again in zip(one, other, strict=True):
            torch.testing.assert_close(column, again, rtol=1e-4, atol=1e-3)
    assert [len(d) for d, _, _ in whole] == [len(one.base) for one in contexts]


def test_features_are_of_the_neighbours_and_of_the_models_own_distribution(stored):
    (one,) = contexts_of(["A lake in Ordania."], load_language_model(), progress=False)
    ((distances, hits, found),) = look_up([one], stored, 8)
    exact, rows = stored.search(one.queries.numpy(), 8)
    values = torch.from_numpy(stored.values[rows])
    torch.testing.assert_close(distances, torch.from_numpy(exact))
    assert torch.equal(hits, values == one.targets[:, None])
    wanted = features(distances, values, one.entropy, one.expected, one.expectation)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("progress", [True, False])
def test_progress_is_shown_on_a_terminal_where_it_is_wanted(capsys, monkeypatch, progress):
    lm = load_language_model()

    def shown():
        contexts_of(["A lake."], lm, progress)
        prompted(["A lake."], CORPUS, lm, progress)
        return capsys.readouterr().err

    assert shown() == ""  # this is no terminal
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    bars = shown()
    for name in ("documents: 100%", "in context: 100%"):
        assert (name in bars) is progress


def test_contexts_hold_the_models_own_distribution():
    lm = load_language_model()
    (one,) = contexts_of(["A lake."], lm, progress=False)
    ids = torch.tensor([[lm.start, *one.targets.tolist()]])
    log_probs = lm.forward(ids)[1][0, :-1].double()
    entropy = -(log_probs.exp() * log_probs).sum(-1)
    torch.testing.assert_close(
        one.entropy.double(), entropy, rtol=1e-6, atol=1e-6
    )  # of float32 sums
    torch.testing.assert_close(one.expectation.double(), log_probs.max(-1).values)
    assert torch.equal(one.expected, log_probs.argmax(-1))


def test_what_an_approximate_search_costs(stored, monkeypatch):
    """A search that misses every second neighbour has a recall of one half."""
    contexts = contexts_of([TEXT], load_language_model(), progress=False)

    asked = []

    def every_second(queries, k, probes, recompute):
        asked.append((probes, recompute))
        distances, rows = stored.search(queries, k)
        distances, rows = distances.copy(), rows.copy()
        distances[:, 1::2], rows[:, 1::2] = np.inf, -1
        return distances, rows

    monkeypatch.setattr(stored, "search_approximately", every_second, raising=False)
    cost = approximation(contexts, stored, 0.3, 10.0, k=8, probes=(1, 4))
    assert asked == [(1, False), (4, False), (1, True), (4, True)]
    assert [one["recall"] for one in cost["approximate"]] == [0.5] * 4
    ((distances, hits, _),) = look_up(contexts, stored, 8)
    for value, kept in (
        (cost["exact"], slice(None)),
        (cost["approximate"][0]["perplexity"], slice(None, None, 2)),
    ):
        knn = knn_target_log_prob(distances[:, kept], hits[:, kept], 10.0)
        mean = interpolate(contexts[0].base, knn, 0.3).double().mean().item()
        assert value == pytest.approx(math.exp(-mean))


def test_another_model_needs_text_to_tune_on(stored):
    other = LanguageModel(new_lm_model(), load_language_model().tokenizer, "another")
    with pytest.raises(InputError, match="--dev"):
        perplexity([TEXT], CORPUS, lm=other, progress=False)
    text = [CORPUS[0].text]
    found = perplexity(text, CORPUS, k=4, lm=other, dev=text, progress=False)
    assert found["knn-lm"]["perplexity"] < found["base"]["perplexity"]


def test_dev_text_tunes(stored):
    """To the grid's best on that text, here the same that is measured."""
    dev = ["Nothing of this kind."]
    own = perplexity(dev, CORPUS, k=8, datastore=stored, dev=dev, progress=False)
    contexts = contexts_of(dev, load_language_model(), progress=False)
    ((distances, hits, _),) = look_up(contexts, stored, 8)
    best = module.tune(contexts[0].base, [distances], [hits])[2]
    assert own["knn-lm"]["perplexity"] == pytest.approx(math.exp(-best), rel=1e-4)


def test_an_approximate_search_says_what_it_finds(stored, monkeypatch):
    def first_only(queries, k, recompute=False):
        distances, rows = stored.search(queries, k)
        rows[:, 1:] = -1
        return np.where(rows < 0, np.inf, distances), rows

    monkeypatch.setattr(stored, "search_approximately", first_only, raising=False)
    found = perplexity(
        [" ", "A lake."], CORPUS, k=4, datastore=stored, progress=False, approximate=True
    )
    assert found["knn-lm"]["recall"] == 0.25
    exact = perplexity(["A lake."], CORPUS, k=1, datastore=stored, progress=False)
    assert found["knn-lm"]["perplexity"] == pytest.approx(exact["knn-lm"]["perplexity"])


def test_a_prompt_is_found_by_what_stands_before_the_scored_tokens(monkeypatch):
    """Scored tokens that chose their own passage would be told what they are."""
    asked = []

    class Recorded:
        def __init__(self, corpus):
            self.passage = corpus[0]

        def retrieve(self, questions, k):
            asked.append(questions[0].text)
            return [Retrieved((self.passage.id,), np.zeros(1, np.float32), (self.passage,))]

    monkeypatch.setattr("ragbook.retrieval.BM25Retriever", Recorded, raising=False)
    corpus = Corpus("one", [Passage("p", "P", "Some passage.")])
    (found,) = prompted(["lake " * 64 + "castle " * 9], corpus, load_language_model(), False)
    assert len(found) == 73
    assert len(asked) == 1  # nothing stands before the first window
    assert set(asked[0].split()) == {"lake"}
