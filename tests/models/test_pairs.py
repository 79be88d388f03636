"""Encoded pairs: an encoder that differs in its upper layers begins with another's states."""

from copy import deepcopy

import pytest
import torch

from ragbook.corpus import Passage
from ragbook.models import load_reader, pairs
from ragbook.models.pairs import PairEncoder, lower_states, states_at

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


def test_only_new_pairs_are_read_through_the_layers_below(base, monkeypatch):
    """Of three pairs two were read by the base and one by another encoder, in other places."""
    first, second = other(base, 4), other(base, 4)
    first.begin_with(base, 4)
    second.begin_with(base, 4)
    read = []

    def counted(encoder, tensors, layer, chunk=32):
        read.append(len(tensors["input_ids"]))
        return lower_states(encoder, tensors, layer, chunk)

    monkeypatch.setattr(pairs, "lower_states", counted)
    base(QUESTIONS[:2], PASSAGES[:2])
    first([QUESTIONS[2], QUESTIONS[0]], [PASSAGES[2], PASSAGES[0]])
    (_, found), (_, expected) = (each(QUESTIONS, PASSAGES) for each in (second, other(base, 4)))
    assert read == [2, 1]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    second.forget()
    second(QUESTIONS, PASSAGES)
    assert read == [2, 1, 3]


def test_the_same_passage_under_another_question_is_another_input(base):
    joined = other(base, 4)
    joined.begin_with(base, 4)
    joined(QUESTIONS[:1], PASSAGES[:1])
    (_, found), (_, expected) = (
        each(QUESTIONS[1:2], PASSAGES[:1]) for each in (joined, other(base, 4))
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_base_that_has_read_before_it_shared(base):
    base(QUESTIONS, PASSAGES)
    joined = other(base, 4)
    joined.begin_with(base, 4)
    (_, found), (_, expected) = joined(QUESTIONS, PASSAGES), other(base, 4)(QUESTIONS, PASSAGES)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layers", [(2, 4), (4, 2)])
def test_encoders_that_changed_other_layers_share_one_base(base, layers):
    joined = {layer: other(base, layer) for layer in layers}
    alone = base(QUESTIONS, PASSAGES)[1]
    base.forget()
    for layer, encoder in joined.items():
        encoder.begin_with(base, layer)
    for layer, encoder in joined.items():
        expected = other(base, layer)(QUESTIONS, PASSAGES)[1]
        torch.testing.assert_close(encoder(QUESTIONS, PASSAGES)[1], expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(base(QUESTIONS, PASSAGES)[1], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("room", [0, 1, 2, 3])
def test_the_least_recently_used_states_leave_first(base, monkeypatch, room):
    inputs = base.layout(base.tokenizer, QUESTIONS, PASSAGES).tensors
    one = [{name: value[[at]] for name, value in inputs.items()} for at in range(3)]
    lengths = inputs["attention_mask"].sum(1).tolist()
    below = pairs.Below(base.encoder, 2, budget=4 * 384 * sum(sorted(lengths)[:room]))
    read = []
    monkeypatch.setattr(
        pairs,
        "lower_states",
        lambda *given: read.append(given[1]["input_ids"][0, 5].item()) or lower_states(*given),
    )
    with torch.no_grad():
        for each in one:
            below(each)
        assert below._bytes <= below.budget
        assert below._bytes == sum(states.nbytes for states, _ in below._kept.values())
        del read[:]
        below(one[2])  # the last one stays, if it fits
        assert bool(read) == (4 * 384 * lengths[2] > below.budget)


def test_states_that_were_used_again_stay_longer(base, monkeypatch):
    """There is room for the first input and one of the others; the first is used before the third
    comes, so the second leaves."""
    inputs = base.layout(base.tokenizer, QUESTIONS, PASSAGES).tensors
    one = [{name: value[[at]] for name, value in inputs.items()} for at in range(3)]
    first, *others = inputs["attention_mask"].sum(1).tolist()
    below = pairs.Below(base.encoder, 2, budget=4 * 384 * (first + max(others)))
    read = []
    monkeypatch.setattr(
        pairs, "lower_states", lambda *given: read.append(given[1]) or lower_states(*given)
    )
    with torch.no_grad():
        for at in (0, 1, 0, 2):
            below(one[at])
        assert len(read) == 3
        below(one[0])
        assert len(read) == 3
        below(one[1])
        assert len(read) == 4


@pytest.mark.parametrize("known", [True, False])
def test_the_clock_charges_the_layers_below_whether_they_were_kept_or_not(base, monkeypatch, known):
    now = 0.0

    def takes(seconds, function):
        def slow(*given, **how):
            nonlocal now
            now += seconds
            return function(*given, **how)

        return slow

    monkeypatch.setattr(pairs.time, "perf_counter", lambda: now)
    monkeypatch.setattr(pairs, "lower_states", takes(30.0, pairs.lower_states))
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
        whole = states_at(base.encoder, inputs.tensors)
        apart = states_at(base.encoder, inputs.tensors, chunk=1)
        below = [lower_states(base.encoder, inputs.tensors, 2, chunk) for chunk in (1, 32)]
    torch.testing.assert_close(apart, whole, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(*below, rtol=1e-4, atol=1e-4)
    assert not whole[inputs.mask == 0].any()
    assert not below[1][inputs.mask == 0].any()


def test_a_cpu_computes_few_tokens_at_a_time(base, monkeypatch):
    """As many inputs of similar length as have so many tokens, or one that has more by itself."""
    passages = [Passage(str(n), "", "word " * n) for n in (3, 40, 4, 5, 6)]
    inputs = base.layout(base.tokenizer, ["Which word?"] * 5, passages)
    lengths = sorted(inputs.mask.sum(1).tolist())
    one_by_one = [(1, length) for length in lengths]
    with torch.no_grad():
        expected = states_at(base.encoder, inputs.tensors)
        for most, shapes in (
            (2 * lengths[1], [(2, lengths[1]), *one_by_one[2:]]),
            (lengths[0] - 1, one_by_one),
        ):
            monkeypatch.setattr(pairs, "TOKENS", most)
            read = []
            hook = base.encoder.register_forward_pre_hook(
                lambda _m, _a, given, read=read: read.append(tuple(given["input_ids"].shape)),
                with_kwargs=True,
            )
            found = states_at(base.encoder, inputs.tensors)
            hook.remove()
            assert read == shapes
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
