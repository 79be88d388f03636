"""Why answers stop early, on tiny models: each setting changes one thing, and counts add up."""

import pytest
import torch
from experiments import early_stops
from experiments.early_stops import (
    end_tokens,
    objectives,
    penalties,
    settings,
    without_shares,
)

from ragbook.methods import decoding
from ragbook.methods.decoding import beam_search
from ragbook.methods.fid import FiD
from ragbook.methods.rag import RagSequence, RagToken
from ragbook.models import SeqReader
from ragbook.models.embedded import minilm_tokenizer
from tests.methods.conftest import QUESTIONS, FixedRetriever, seq_model


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    tiny_reader = SeqReader(seq_model("bart"), minilm_tokenizer(), "bart")
    kinds = {"rag-sequence": RagSequence, "rag-token": RagToken, "fid": FiD}

    def load(names, retriever, verbatim=False, length_penalty=0.0, shared=False, reader="own"):
        loaded.append((verbatim, length_penalty, shared, reader))
        how = {"verbatim": verbatim, "length_penalty": length_penalty, "max_length": 4}
        return [kinds[name](tiny_reader, retriever, **how) for name in names]

    loaded: list[tuple[bool, float, bool, str]] = []
    monkeypatch.setattr(early_stops, "load", load)
    return tiny_reader, loaded


def test_every_setting_is_measured_for_every_method():
    out = settings(FixedRetriever(uneven=False), QUESTIONS, True)
    assert set(out) == set(early_stops.METHODS)
    for ways in out.values():
        assert {"held", "held, one rule", "held, without shares", "free", "one passage"} == set(
            ways
        )
        for scores in ways.values():
            assert scores["em"]["mean"] + scores["cut"]["mean"] <= 1


def test_a_setting_is_compared_with_the_one_it_differs_from():
    out = settings(FixedRetriever(uneven=False), QUESTIONS, True)
    for ways in out.values():
        assert {way for way in ways if "against" in ways[way]} == set(early_stops.AGAINST)
        for way, base in early_stops.AGAINST.items():
            against = ways[way]["against"]
            assert against["way"] == base
            for key in ("em", "cut"):
                expected = ways[way][key]["mean"] - ways[base][key]["mean"]
                assert against[key]["difference"] == pytest.approx(expected)


def test_length_penalties_are_compared_with_none(tiny):
    out = penalties(FixedRetriever(uneven=False), QUESTIONS)
    assert out.pop("n") == len(QUESTIONS)
    assert tiny[1] == [(True, penalty, False, "own") for penalty in early_stops.PENALTIES]
    for tried in out.values():
        assert list(tried) == ["0", "0.5", "1"]
        assert "against" not in tried["0"]
        assert all(tried[each]["against"]["way"] == "0" for each in ("0.5", "1"))


def test_trainings_are_compared_alike_but_for_their_weights(tiny):
    out = objectives(FixedRetriever(uneven=False), QUESTIONS, "a folder")
    assert out.pop("n") == len(QUESTIONS)
    assert tiny[1] == [
        (True, 0.0, True, "own"),
        (True, 0.0, False, "a folder"),
        (True, 0.0, False, "own"),
    ]
    assert set(out) == set(early_stops.METHODS)
    for trainings in out.values():
        assert list(trainings) == ["none", "among all words", "under the rule"]
        against = trainings["under the rule"].pop("against")
        assert trainings["none"] == trainings["under the rule"]  # the same tiny reader
        assert against["way"] == "none"
        assert against["em"]["difference"] == 0


def test_without_shares_the_first_of_two_short_answers_wins():
    """Of two allowed answers, one of one token at p = 0.3 and one of three at 0.4 * 0.5 * 0.5, the
    second has the greater share of what is allowed and the first the greater probability."""
    start, end, short, a, b, other = range(6)
    table = torch.full((6, 6), 1e-9)
    table[start, short], table[start, a], table[start, other] = 0.3, 0.4, 0.3
    table[short, end] = 1.0
    table[a, b], table[a, other] = 0.5, 0.5
    table[b, end], table[b, other] = 0.5, 0.5
    allowed = {(): [short, a], (short,): [end], (a,): [b], (a, b): [end]}

    def search():
        return beam_search(
            lambda prefixes, *_: table[prefixes[:, -1]].log(),
            1, start, end, beams=2, max_length=4,
            allowed=[lambda prefix: allowed.get(tuple(prefix), [end])],
        )[0][0]  # fmt: skip

    assert search().tokens == (a, b)
    with without_shares():
        assert search().tokens == (short,)
    assert decoding.share is not early_stops._forbidden_only


def test_end_tokens_are_means_of_the_models_own_probabilities(tiny):
    out = end_tokens(FixedRetriever(uneven=False), QUESTIONS, True)
    counted = out["holds"]["n"] + out["others"]["n"]
    prefixes = sum(len(tiny[0].answer_ids(q.answers[0])) - 2 for q in QUESTIONS)
    assert 0 < prefixes <= counted <= 2 * prefixes
    for each in out.values():
        assert 0 <= each["prior"] <= 1
        assert 0 <= each["end"] + each["next"] <= 1
