"""kNN-LM over a whole datastore, on a tiny random model: neighbours, continuation, evidence."""

import math

import numpy as np
import pytest
import torch

from ragbook.corpus import Corpus
from ragbook.errors import InputError
from ragbook.index.datastore import build_datastore
from ragbook.methods.knn_lm import passage_mass
from ragbook.methods.knn_lm.text import OpenKnnLM
from ragbook.models import load_language_model
from tests.methods.conftest import PASSAGES

TEXT = "The Danube passes through"


@pytest.fixture
def datastore(language_model, tmp_path):
    return build_datastore(Corpus("rivers", PASSAGES), tmp_path / "d", language_model, False)


@pytest.fixture
def method(language_model, datastore):
    return OpenKnnLM(language_model, datastore, 0.5, 3.0)


def test_neighbours_are_the_nearest_contexts_and_what_they_said(method, datastore):
    lm = method.lm
    ids = [lm.start, *lm.tokenizer(TEXT, add_special_tokens=False)["input_ids"]]
    query = lm.forward(torch.tensor([ids]))[0][0, -1].double().numpy()
    apart = np.square(datastore.keys.astype(np.float64) - query).sum(1)
    order = apart.argsort(kind="stable")
    weights = np.exp(-(apart - apart.min()) / 3)
    found = method.neighbours(TEXT, shown=5)
    for one, row in zip(found, order, strict=False):
        assert one.distance == pytest.approx(apart[row], rel=1e-3, abs=1e-2)
        assert one.weight == pytest.approx(weights[row] / weights.sum(), rel=1e-2)
        assert one.passage == PASSAGES[int(datastore.passage_of(np.array(row)))]
        assert one.token == lm.tokenizer.decode([int(datastore.values[row])])
        whole = lm.tokenizer.decode(lm.texts([one.passage])[0][1:])
        assert f"{one.context} {one.token}".replace(" ", "") in whole.replace(" ", "")
    assert len(method.neighbours(TEXT, shown=10_000)) == len(datastore)


@pytest.mark.parametrize(("length", "beams", "sources"), [(4, 3, 1), (8, 1, 2)])
def test_what_is_written_has_the_probability_it_says(method, datastore, length, beams, sources):
    """By the formula in float64, token by token, the model run from the start each time; from one
    passage alone and from several."""
    lm = method.lm
    written = method.write(TEXT, length, beams)
    assert sum(e.weight > 0.1 for e in written.evidence) == sources
    ids = [lm.start, *lm.tokenizer(TEXT, add_special_tokens=False)["input_ids"]]
    tokens = lm.tokenizer(written.text, add_special_tokens=False)["input_ids"]
    total, said = 0.0, dict.fromkeys((p.id for p in PASSAGES), 0.0)
    source = datastore.passage_of(np.arange(len(datastore)))
    for token in [*tokens, lm.end]:
        keys, log_probs = lm.forward(torch.tensor([ids]))
        apart = np.square(datastore.keys.astype(np.float64) - keys[0, -1].double().numpy()).sum(1)
        weights = np.exp(-(apart - apart.min()) / 3)
        weights /= weights.sum()
        mine = weights * (datastore.values == token)
        total += math.log(0.5 * log_probs[0, -1, token].exp().item() + 0.5 * mine.sum())
        if token != lm.end:
            for number, passage in enumerate(PASSAGES):
                said[passage.id] += mine[source == number].sum()
        ids.append(token)
    assert written.log_prob == pytest.approx(total, abs=1e-3)
    assert sum(e.weight for e in written.evidence) == pytest.approx(1, abs=1e-5)
    for evidence in written.evidence:
        share = said[evidence.passage_id] / sum(said.values())
        assert evidence.weight == pytest.approx(share, abs=1e-3)


@pytest.mark.parametrize("length", [1, 3])
def test_one_beam_writes_the_most_probable_token_at_every_step(language_model, datastore, length):
    """The memory has little weight, so that this model does not end by itself."""
    method = OpenKnnLM(language_model, datastore, 0.05, 3.0)
    lm = method.lm
    ids = [lm.start, *lm.tokenizer(TEXT, add_special_tokens=False)["input_ids"]]
    tokens = []
    for _ in range(length):
        keys, log_probs = lm.forward(torch.tensor([[*ids, *tokens]]))
        apart = np.square(datastore.keys.astype(np.float64) - keys[0, -1].double().numpy()).sum(1)
        weights = np.exp(-(apart - apart.min()) / 3)
        p = 0.95 * log_probs[0, -1].double().exp().numpy()
        np.add.at(p, datastore.values, 0.05 * weights / weights.sum())
        tokens.append(int(p.argmax()))
    assert lm.end not in tokens
    assert method.write(TEXT, length, beams=1).text == lm.tokenizer.decode(tokens)


def test_the_memory_alone_recites(language_model, datastore):
    """Nearly no model and a low temperature: only stored tokens, from few passages."""
    written = OpenKnnLM(language_model, datastore, 0.9999, 0.01).write(TEXT, length=3, beams=1)
    start = language_model.tokenizer(written.text, add_special_tokens=False)["input_ids"][0]
    assert start in set(datastore.values.tolist())
    assert written.evidence[0].weight > 0.3


def test_bad_input_is_refused_and_a_long_text_is_cut(method, datastore):
    with pytest.raises(InputError, match="empty"):
        method.neighbours(" ")
    assert len(method.neighbours("river " * 400, shown=2)) == 2
    assert method.write("river " * 400, length=3).text
    with pytest.raises(InputError, match="'bundled'"):
        OpenKnnLM(load_language_model(), datastore, 0.5, 3.0)


def test_as_many_neighbours_as_in_the_paper(language_model, datastore):
    assert OpenKnnLM(language_model, datastore, 0.5, 3.0).k == 1024


def test_mass_is_what_was_said_or_else_the_weights():
    distances = torch.tensor([[0.0, 1.0, 2.0], [0.0, 0.0, 0.0]])
    hits = torch.tensor([[False, True, False], [True, False, True]])
    source = torch.tensor([1, 0, 1])
    w = torch.softmax(-distances[0], -1)
    expected = torch.tensor([w[1].item(), 2 / 3])
    got = passage_mass(distances, hits, source, 2, 1.0)
    torch.testing.assert_close(got, expected / expected.sum())
    none = passage_mass(distances[:1], torch.zeros(1, 3, dtype=torch.bool), source, 2, 1.0)
    torch.testing.assert_close(none, torch.stack([w[1], w[0] + w[2]]))
    rows = source.expand(2, 3)
    torch.testing.assert_close(passage_mass(distances, hits, rows, 2, 1.0), got)
