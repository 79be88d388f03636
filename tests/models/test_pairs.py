"""Encoded pairs: an encoder that differs in its upper layers begins with another's states."""

from copy import deepcopy

import pytest
import torch

from ragbook.corpus import Passage
from ragbook.models import load_reader, pairs
from ragbook.models.pairs import PairEncoder, states_at

QUESTIONS = ["Who charted Velm?", "When was the lake of Ist first seen by anyone?", "Where?"]
PASSAGES = [
    Passage("a", "Velm", "Ilsa Brenkov charted Velm in 1873. " * 3),
    Passage("b", "Ist", "The lake was first seen by Tor Halst."),
    Passage("c", "Orm", ""),
]


@pytest.fixture
def base() -> PairEncoder:
    reader = load_reader()
    return PairEncoder(reader.model.get_encoder(), reader.tokenizer)


def other(base: PairEncoder, layer: int) -> PairEncoder:
    """An encoder whose layers from `layer` on have other weights."""
    encoder = deepcopy(base.encoder)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            number = name.removeprefix("encoder.layer.").partition(".")[0]
            if number.isdigit() and int(number) >= layer:
                parameter.add_(0.02 * torch.randn_like(parameter))
    return PairEncoder(encoder, base.tokenizer)


@pytest.mark.parametrize("layer", [0, 4, 5])
@pytest.mark.parametrize("known", [True, False])
def test_the_states_are_those_of_the_whole_encoder(base, layer, known):
    alone, joined = other(base, layer), other(base, layer)
    joined.begin_with(base, layer)
    if known:
        base(QUESTIONS, PASSAGES)
    (_, expected), (_, found) = alone(QUESTIONS, PASSAGES), joined(QUESTIONS, PASSAGES)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    _, shared = base(QUESTIONS, PASSAGES)
    assert not torch.allclose(found, shared, atol=1e-2)


def test_other_pairs_are_read_anew(base):
    joined = other(base, 4)
    joined.begin_with(base, 4)
    first = joined(QUESTIONS[:2], PASSAGES[:2])[1]
    base(QUESTIONS, PASSAGES)  # the base has other pairs now
    again = joined(QUESTIONS[1:2], PASSAGES[1:2])[1]
    length = again.shape[1]
    torch.testing.assert_close(again[0], first[1, :length], rtol=1e-4, atol=1e-4)


def test_a_base_that_has_read_without_keeping_reads_again(base):
    base(QUESTIONS, PASSAGES)
    joined = other(base, 4)
    joined.begin_with(base, 4)
    (_, found), (_, expected) = joined(QUESTIONS, PASSAGES), other(base, 4)(QUESTIONS, PASSAGES)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("known", [True, False])
def test_the_clock_charges_the_layers_below_and_none_above(base, monkeypatch, known):
    """Whether the base had to read the pairs or knew them: half of what it takes, as it has six
    layers and three are below, and what the layers above take."""
    now = 0.0

    def takes(seconds, function):
        def slow(*given, **how):
            nonlocal now
            now += seconds
            return function(*given, **how)

        return slow

    monkeypatch.setattr(pairs.time, "perf_counter", lambda: now)
    monkeypatch.setattr(pairs, "states_at", takes(60.0, pairs.states_at))
    monkeypatch.setattr(pairs, "upper_states", takes(7.0, pairs.upper_states))
    joined = other(base, 3)
    joined.begin_with(base, 3)
    if known:
        base(QUESTIONS, PASSAGES)
    for _ in range(2):  # computed, then reused whole
        began = joined.clock()
        joined(QUESTIONS, PASSAGES)
        assert joined.clock() - began == pytest.approx(37)


def test_states_do_not_depend_on_the_chunks(base):
    inputs = base.layout(base.tokenizer, QUESTIONS, PASSAGES)
    with torch.no_grad():
        whole, below = states_at(base.encoder, inputs.tensors, (2, 5))
        apart, _ = states_at(base.encoder, inputs.tensors, chunk=1)
    torch.testing.assert_close(apart, whole, rtol=1e-4, atol=1e-4)
    assert set(below) == {2, 5}
    assert not whole[inputs.mask == 0].any()
