"""Encoded pairs: an encoder that differs in its upper layers begins with another's states."""

from copy import deepcopy

import pytest
import torch

from ragbook.corpus import Passage
from ragbook.models import load_reader
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


def test_the_clock_charges_the_layers_below_and_none_above(base):
    """Whether the base had to read the pairs or knew them, the cost is the same share of it."""
    joined = other(base, 3)
    joined.begin_with(base, 3)
    base(QUESTIONS, PASSAGES)
    base._seconds = 60.0  # as if it had been slow
    began = joined.clock()
    joined(QUESTIONS, PASSAGES)
    assert joined.clock() - began == pytest.approx(30, abs=5)
    began = joined.clock()
    joined(QUESTIONS, PASSAGES)  # reused whole
    assert joined.clock() - began == pytest.approx(30, abs=5)


def test_states_do_not_depend_on_the_chunks(base):
    inputs = base.layout(base.tokenizer, QUESTIONS, PASSAGES)
    with torch.no_grad():
        whole, below = states_at(base.encoder, inputs.tensors, (2, 5))
        apart, _ = states_at(base.encoder, inputs.tensors, chunk=1)
    torch.testing.assert_close(apart, whole, rtol=1e-4, atol=1e-4)
    assert set(below) == {2, 5}
    assert not whole[inputs.mask == 0].any()
