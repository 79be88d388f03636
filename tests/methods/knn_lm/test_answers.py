"""kNN-LM's answers: what counts as evidence, and what is tuned."""

import itertools

import torch

from ragbook.methods.knn_lm import LAMS, TEMPERATURES, KnnLM, answers, passage_mass
from ragbook.models.bundled import manifest
from tests.methods.conftest import PASSAGES, QUESTIONS, FixedRetriever


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


def test_of_the_passages_kept_the_least_recently_used_leave_first(language_model, monkeypatch):
    """What is kept is not computed anew, and what was dropped is computed as it was."""
    read = []

    def counted(passages):
        read.extend(passage.id for passage in passages)
        return key_values(passages)

    def datastore(*order):
        (found,) = FixedRetriever(order).retrieve(QUESTIONS[:1], 4)
        return method.datastore(found)

    key_values = language_model.key_values
    size = {p.id: sum(map(answers._size, key_values([p])[0])) for p in PASSAGES}
    monkeypatch.setattr(language_model, "key_values", counted)
    room = size["p0"] + size["p1"] + size["p2"]
    method = KnnLM(language_model, FixedRetriever(), lam=0.5, temperature=10.0, kept=room)
    first = datastore(0)
    datastore(1, 2)
    datastore(0)  # used again, and so p1 is the one that was used first
    assert read == ["p0", "p1", "p2"]
    datastore(3)
    assert "p1" not in [passage.id for passage in method._pairs]
    assert method._bytes == sum(size[passage.id] for passage in method._pairs) <= room
    read.clear()
    for again, before in zip(datastore(0), first, strict=True):
        torch.testing.assert_close(again, before)
    assert read == []
    datastore(1)
    assert read == ["p1"]


def test_the_passages_of_a_question_are_kept_even_without_room(language_model):
    method = KnnLM(language_model, FixedRetriever(), lam=0.5, temperature=10.0, kept=1)
    roomy = KnnLM(language_model, FixedRetriever(), lam=0.5, temperature=10.0)
    given = [one.answer(QUESTIONS, 4) for one in (method, roomy)]
    assert [each.text for each in given[0]] == [each.text for each in given[1]]
    assert len(method._pairs) == 3  # those of the second question
