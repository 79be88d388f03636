"""Keys that are moved are those that the model computes at the other place."""

import pytest
import torch

from ragbook.models.rotary import Rotation, rotation_of
from tests.checkpoints import CAUSAL, random_model

ROTARY = [name for name in CAUSAL if name not in ("gpt2", "opt")]
IDS = torch.tensor([[9, 4, 7, 12, 5]])


@torch.no_grad()
def states(model, at):
    places = torch.arange(at, at + IDS.shape[1])[None]
    cache = model(input_ids=IDS, position_ids=places, use_cache=True).past_key_values
    return [(layer.keys, layer.values) for layer in cache.layers]


@pytest.mark.parametrize("name", ROTARY)
def test_moved_keys_are_those_of_the_other_place(name):
    model = random_model(name)
    rotation = rotation_of(model)
    assert rotation is not None
    for (keys, values), (wanted, same) in zip(states(model, 3), states(model, 20), strict=True):
        assert (keys - wanted).abs().max() > 1e-3
        torch.testing.assert_close(rotation.moved(keys, 17), wanted, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(rotation.moved(wanted, -17), keys, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(values, same, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["gpt2", "opt"])
def test_learned_positions_cannot_be_moved(name):
    assert rotation_of(random_model(name)) is None


def test_a_layer_without_rotary_positions_is_found_out():
    """As in models that leave positions out in some layers."""
    model = random_model("llama")
    attention = model.model.layers[1].self_attn
    usual = attention.forward

    def unturned(hidden_states, position_embeddings, **rest):
        cos, sin = position_embeddings
        return usual(hidden_states, (torch.ones_like(cos), torch.zeros_like(sin)), **rest)

    attention.forward = unturned
    assert rotation_of(model) is None


def test_a_scaled_rotation_can_be_moved():
    """As in models whose context was lengthened: other frequencies, and keys scaled as a whole."""
    model = random_model("llama")
    rotary = model.model.rotary_emb
    rotary.inv_freq /= 4
    rotary.attention_scaling = 1.3
    rotation = rotation_of(model)
    assert rotation is not None
    torch.testing.assert_close(rotation.frequencies, rotary.inv_freq)


def test_a_quarter_turn_by_hand():
    rotation = Rotation(torch.tensor([torch.pi / 2]))
    keys = torch.tensor([[1.0, 0.0, 5.0], [0.0, 2.0, 6.0]])
    wanted = torch.tensor([[0.0, 1.0, 5.0], [-2.0, 0.0, 6.0]])
    torch.testing.assert_close(rotation.moved(keys, 1), wanted)
    torch.testing.assert_close(rotation.moved(keys, 4), keys)
    assert rotation.moved(keys, 0) is keys
