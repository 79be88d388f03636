"""The language-modelling task on tiny text, against the definition."""

import inspect
import logging
import math
import sys
from typing import Any

import numpy as np
import pytest
import torch

from ragbook.corpus import Corpus, Passage
from ragbook.errors import InputError
from ragbook.evaluation import perplexity as module
from ragbook.evaluation.perplexity import (
    approximation,
    look_up,
    perplexity,
    score,
    summary,
    token_log_probs,
)
from ragbook.evaluation.windows import (
    PROMPT,
    STRIDE,
    WINDOW,
    check_windows,
    contexts_of,
    prompted,
    windows,
)
from ragbook.index.datastore import build_datastore
from ragbook.methods.knn_lm import LAMS, TEMPERATURES, interpolate, knn_target_log_prob
from ragbook.methods.knn_lm.adaptive import features
from ragbook.models import LanguageModel, load_language_model
from ragbook.models.lm import new_lm_model
from ragbook.retrieval import Retrieved
from tests.checkpoints import VOCABULARY, random_model, tokenizer_of

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
        assert window.scored - 1 == min(WINDOW - STRIDE, number * STRIDE)
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
    lm, tuned = load_language_model(), module.tuned_for_text()
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
        assert set(entry) == {
            "perplexity", "tokens", "word_perplexity", "bits_per_byte", "words", "bytes"
        }  # fmt: skip
        assert entry["perplexity"] > 1
        assert entry["tokens"] == 4  # lake, vel, ##m, .
        assert (entry["words"], entry["bytes"]) == (2, 10)


@pytest.mark.parametrize("function", [score, approximation, token_log_probs, perplexity])
def test_as_many_neighbours_as_in_the_paper(function):
    assert inspect.signature(function).parameters["k"].default == 1024


@pytest.mark.parametrize("empty", ["  ", "\x00\u200b"])  # the tokenizer drops the second
def test_no_text_is_refused(empty):
    with pytest.raises(InputError, match="no text"):
        perplexity([empty], CORPUS, progress=False)
    with pytest.raises(InputError, match="no text"):
        perplexity(["A lake."], CORPUS, dev=[empty], progress=False)


def random_lm(name="gpt2"):
    """A small random model; a byte of text is a character of one of GPT-2's tokens."""
    return LanguageModel(random_model(name), tokenizer_of(name), name)


def ids_of(lm, text):
    return lm.tokenizer(text, add_special_tokens=False)["input_ids"]


MANY_BYTES = ["Lake Velm: Žižek,  ½ of 湖.\n\n", " \n", "\tÜber Mount Orr 🏔"]
"""Two documents with 10 words (and one with none), with signs of one byte to four."""


def test_figures_of_a_model_that_finds_all_tokens_alike():
    """Each token has 1/V, whatever stands before it; GPT-2's tokens are made of whole bytes."""
    lm = random_lm()
    torch.nn.init.zeros_(lm.model.lm_head.weight)
    found = perplexity(MANY_BYTES, CORPUS, k=2, lm=lm, lam=0.0, temperature=1.0, progress=False)
    tokens = [
        token
        for text in (MANY_BYTES[0], MANY_BYTES[2])
        for token in lm.tokenizer.convert_ids_to_tokens(ids_of(lm, text))
    ]
    size = sum(map(len, tokens))
    for entry in found.values():
        assert (entry["tokens"], entry["words"], entry["bytes"]) == (len(tokens), 10, size)
        assert entry["perplexity"] == pytest.approx(VOCABULARY, rel=1e-5)
        assert entry["bits_per_byte"] == pytest.approx(len(tokens) * math.log2(VOCABULARY) / size)
        assert entry["word_perplexity"] == pytest.approx(VOCABULARY ** (len(tokens) / 10), rel=1e-4)


def test_figures_of_a_model_that_knows_frequencies():
    """A model whose states are all 0 says what its bias says: here p(lake) = 1/2, p(.) = 1/8, and
    the rest of 1/4 for each of the other words alike."""
    lm = LanguageModel(new_lm_model(), load_language_model().tokenizer, "frequencies")
    norm, decoder = lm.model.cls.predictions.transform.LayerNorm, lm.model.cls.predictions.decoder
    lake, stop = lm.tokenizer.convert_tokens_to_ids(["lake", "."])
    with torch.no_grad():
        norm.weight.zero_(), norm.bias.zero_()
        decoder.bias.fill_(math.log(3 / 8 / (lm.vocab_size - 2)))
        decoder.bias[lake], decoder.bias[stop] = math.log(1 / 2), math.log(1 / 8)
    found = perplexity(
        ["Lake lake lake.", "Lake."], CORPUS, k=2, lm=lm, lam=0.0, temperature=1.0, progress=False
    )
    for entry in found.values():  # 4 lakes of one bit and 2 stops of three bits
        assert entry["bits_per_byte"] == pytest.approx(10 / 20, rel=1e-5)
        assert entry["word_perplexity"] == pytest.approx(2 ** (10 / 4), rel=1e-5)
        assert entry["perplexity"] == pytest.approx(2 ** (10 / 6), rel=1e-5)


def test_all_figures_are_of_the_same_sum(found):
    for parts in found.values():
        every = np.concatenate(parts)
        figures = summary(every, [TEXT, "A lake."])
        nats = -math.fsum(every)
        assert math.log(figures["perplexity"]) * figures["tokens"] == pytest.approx(nats)
        assert math.log(figures["word_perplexity"]) * (6 * 13 + 2) == pytest.approx(nats)
        assert figures["bits_per_byte"] * math.log(2) * figures["bytes"] == pytest.approx(nats)


def test_what_is_too_large_for_a_float_is_infinite():
    """A text without spaces is one word."""
    figures = summary(np.full(400, -2.0), ["湖" * 400])
    assert figures["perplexity"] == pytest.approx(math.exp(2))
    assert figures["word_perplexity"] == math.inf
    assert figures["bits_per_byte"] == pytest.approx(2 / math.log(2) / 3)
    never = summary(np.array([-1.0, -math.inf]), ["a b"])
    assert never["perplexity"] == never["word_perplexity"] == never["bits_per_byte"] == math.inf


@pytest.mark.parametrize(("window", "stride"), [(12, 5), (12, 1), (7, 7), (200, 3), (200, 200)])
def test_every_window_and_stride_scores_each_token_after_its_context(window, stride):
    """Token by token: one plain pass over its window up to it."""
    lm = random_lm()
    text = TEXT[:130]
    ids = ids_of(lm, text)
    log_probs = []
    with torch.no_grad():
        for at, token in enumerate(ids):
            begin = max(0, at // stride * stride - (window - stride))
            logits = lm.model(torch.tensor([[lm.start, *ids[begin:at]]])).logits[0, -1]
            log_probs.append(logits.double().log_softmax(-1)[token].item())
    options = {"k": 2, "lam": 0.0, "temperature": 1.0, "window": window, "stride": stride}
    parts = token_log_probs([text], CORPUS, lm, progress=False, **options)
    np.testing.assert_allclose(parts["base"][0], log_probs, atol=1e-4)
    alike = np.isclose(parts["in-context"][0], log_probs, atol=1e-4)
    before = stride if window > stride else len(ids)  # these windows have nothing to search with
    assert alike[:before].all()
    assert not alike[before:].any()
    figures = perplexity([text], CORPUS, lm=lm, progress=False, **options)["base"]
    assert figures["perplexity"] == pytest.approx(math.exp(-math.fsum(log_probs) / len(ids)), 1e-4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"k": 0}, "k must be 1 or more, not 0"),
        ({"lam": 1.5}, "lambda must be from 0 to 1, not 1.5"),
        ({"lam": math.nan}, "lambda must be from 0 to 1, not nan"),
        ({"temperature": 0.0}, "temperature must be a number above 0, not 0.0"),
        ({"temperature": math.inf}, "temperature must be a number above 0, not inf"),
        ({"stride": 0}, "cannot have 0 that are scored"),
        ({"window": 0, "stride": 0}, "window of 0 tokens"),
        ({"window": 63}, "window of 63 tokens cannot have 64"),
        ({"window": 353}, "353 tokens and a passage of 160 before it are more than the 512"),
    ],
)
def test_settings_out_of_range_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        perplexity(["A lake."], CORPUS, progress=False, **options)


def test_the_longest_window_is_all_that_the_model_reads(monkeypatch):
    """A passage and a window fill all its positions; one token more is refused, see above."""
    lm, read = load_language_model(), []
    forward = lm.forward

    def counted(ids, **options):
        read.append(ids.shape[1])
        return forward(ids, **options)

    monkeypatch.setattr(lm, "forward", counted)
    corpus = Corpus("long", [Passage("p", "P", "castle " * 300)])
    window, stride = 512 - PROMPT, 176
    check_windows(lm, window, stride)
    prompted(["castle " * 360], corpus, lm, progress=False, window=window, stride=stride)
    assert max(read) == lm.positions == 512


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


@pytest.fixture(scope="module")
def other():
    """A model whose lambda and temperature nobody knows."""
    return LanguageModel(new_lm_model(), load_language_model().tokenizer, "another")


def test_another_model_needs_text_to_tune_on(other):
    with pytest.raises(InputError, match="--dev"):
        perplexity([TEXT], CORPUS, lm=other, progress=False)
    text = [CORPUS[0].text]
    found = perplexity(text, CORPUS, k=4, lm=other, dev=text, progress=False)
    assert found["knn-lm"]["perplexity"] < found["base"]["perplexity"]


def test_what_is_given_is_not_tuned(other, monkeypatch):
    """Neither by a model without settings of its own, nor on text to tune on."""
    monkeypatch.setattr(module, "tune", None)
    found = perplexity(
        [TEXT], CORPUS, k=4, lm=other, dev=["No such."], lam=0.3, temperature=7.0, progress=False
    )
    (contexts,) = contexts_of([TEXT], other, progress=False)
    keys = torch.cat([keys for keys, _ in other.key_values(list(CORPUS))]).half().double()
    values = torch.cat([values for _, values in other.key_values(list(CORPUS))])
    distances, near = torch.cdist(contexts.queries.double(), keys).square().topk(4, largest=False)
    weights = (-distances / 7).softmax(-1) * (values[near] == contexts.targets[:, None])
    mixed = 0.7 * contexts.base.double().exp() + 0.3 * weights.sum(-1)
    expected = mixed.log().mean().neg().exp().item()
    assert found["knn-lm"]["perplexity"] == pytest.approx(expected, rel=1e-3)


def test_the_other_setting_is_tuned_on_dev_text(stored):
    """The best cell of the grid's one row or column, here on the text that is measured."""
    dev = ["Lake Velm lies in the valley."]
    ((distances, hits, _),) = look_up(
        contexts := contexts_of(dev, load_language_model(), progress=False), stored, 8
    )

    def measured(lam, temperature):
        knn = knn_target_log_prob(distances, hits, temperature)
        return math.exp(-interpolate(contexts[0].base, knn, lam).double().mean().item())

    given: dict[str, Any]
    for given, row in (
        ({"lam": 0.17}, [measured(0.17, temperature) for temperature in TEMPERATURES]),
        ({"temperature": 2.5}, [measured(lam, 2.5) for lam in LAMS]),
    ):
        found = perplexity(dev, CORPUS, k=8, datastore=stored, dev=dev, progress=False, **given)[
            "knn-lm"
        ]["perplexity"]
        assert found == pytest.approx(min(row), rel=1e-4)
        assert found < max(row) - 1


def test_the_other_setting_keeps_its_default(stored):
    lm, tuned = load_language_model(), module.tuned_for_text()
    given: dict[str, Any]
    for given in ({"lam": 0.9}, {"temperature": 400.0}):
        options: dict[str, Any] = {"k": 8, "datastore": stored, "progress": False}
        found = perplexity([TEXT], CORPUS, **options, **given)["knn-lm"]["perplexity"]
        both: dict[str, Any] = tuned | given
        (log_probs,) = token_log_probs([TEXT], CORPUS, lm, **options, **both)["knn-lm"]
        assert found == pytest.approx(math.exp(-log_probs.mean()))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "lambda and temperature are known .* give --lambda and --temperature, or"),
        ({"lam": 0.2}, "temperature is known .* give --temperature, or"),
        ({"temperature": 2.0}, "lambda is known .* give --lambda, or"),
    ],
)
def test_another_models_settings_are_not_guessed(other, given, words):
    with pytest.raises(InputError, match=words):
        perplexity([TEXT], CORPUS, lm=other, progress=False, **given)


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
