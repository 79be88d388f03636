"""kNN-LM's answers: what counts as evidence, and what is tuned."""

import itertools

import torch

from ragbook.methods.knn_lm import LAMS, TEMPERATURES, KnnLM, answers, passage_mass
from ragbook.models.bundled import manifest
from tests.methods.conftest import QUESTIONS, FixedRetriever


def test_the_end_token_is_no_evidence(language_model):
    """Every passage ends, so that its end says nothing of where an answer came from."""
    method = KnnLM(language_model, FixedRetriever(), lam=0.5, temperature=10.0)
    (found,) = method.retriever.retrieve(QUESTIONS[:1], 4)
    pairs = method.datastore(found)
    word = int(pairs[1][pairs[2] == 1][0])  # the first word of the second passage
    _, mass = method._score(QUESTIONS[0], [word, language_model.end], pairs, len(found.ids))
    _, distances, hits = method.neighbours(QUESTIONS[0], [word, language_model.end], pairs)
    assert hits[1].any()  # the end does stand in the memory
    own = passage_mass(distances[:1], hits[:1], pairs[2], len(found.ids), 10.0)
    both = passage_mass(distances, hits, pairs[2], len(found.ids), 10.0)
    torch.testing.assert_close(mass, own)
    assert (own - both).abs().max() > 1e-3


def test_the_grid_steps_evenly_and_holds_what_was_tuned():
    """Temperatures by half a power of ten; the model alone is among the weights, the memory alone
    is not, for it knows most tokens not at all."""
    assert TEMPERATURES[0] == 1
    for below, above in itertools.pairwise(TEMPERATURES):
        assert round(above / below, 2) in (3.0, 3.33)
    assert LAMS[0] == 0
    assert all(0 < above - below <= 0.1001 for below, above in itertools.pairwise(LAMS))
    assert LAMS[-1] < 1
    for tuned in (*manifest()["knn_lm"].values(), manifest()["perplexity"]):
        assert tuned["lam"] in LAMS
        assert tuned["temperature"] in TEMPERATURES


def test_no_more_passages_are_kept_than_there_is_room_for(language_model, monkeypatch):
    """What is kept is not computed anew, and what was dropped is computed as it was."""
    read = []

    def counted(passages):
        read.extend(passages)
        return key_values(passages)

    key_values = language_model.key_values
    monkeypatch.setattr(language_model, "key_values", counted)
    monkeypatch.setattr(answers, "KEPT_PASSAGES", 2)
    method = KnnLM(language_model, FixedRetriever(), lam=0.5, temperature=10.0)
    one, three = (FixedRetriever().retrieve(QUESTIONS[:1], k)[0] for k in (1, 3))
    first = method.datastore(one)
    method.datastore(one)
    assert len(read) == 1
    method.datastore(three)
    assert len(read) == 3
    for again, before in zip(method.datastore(one), first, strict=True):
        torch.testing.assert_close(again, before)
    assert len(read) == 4  # the three were dropped
    assert len(method._pairs) == 1
