"""Shared keys and values against a copy for every query, attended by PyTorch's own function."""

from typing import Any

import pytest
import torch
from torch.nn import Module
from torch.nn.functional import scaled_dot_product_attention
from transformers import BartConfig, BartForConditionalGeneration

from ragbook.models.attention import NAME, share_cross_attention, shared_attention


@pytest.mark.parametrize(("inputs", "group", "t"), [(1, 1, 3), (3, 4, 1), (2, 3, 2)])
def test_queries_that_share_an_input_attend_as_if_each_had_its_own(inputs, group, t):
    generator = torch.Generator().manual_seed(group)
    query = torch.randn(inputs * group, 2, t, 4, generator=generator)
    key, value = torch.randn(2, inputs, 2, 5, 4, generator=generator)
    mask = torch.zeros(inputs, 1, 1, 5)
    mask[0, :, :, 3:] = torch.finfo(torch.float32).min
    bias = torch.randn(1, 2, t, 5, generator=generator)
    module = Module().eval()
    out, weights = shared_attention(module, query, key, value, mask, position_bias=bias)
    copies = [x.repeat_interleave(group, 0) for x in (key, value, mask)]
    wanted = scaled_dot_product_attention(
        query, copies[0], copies[1], attn_mask=copies[2].expand(-1, 2, t, -1) + bias
    )
    torch.testing.assert_close(out.transpose(1, 2), wanted, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(weights.sum(-1), torch.ones(inputs * group, 2, t))
    assert (weights[:group, :, :, 3:] == 0).all()
    torch.testing.assert_close(weights @ copies[1], wanted, rtol=1e-5, atol=1e-6)


def test_an_encoder_keeps_its_attention_where_it_shares_the_decoders_configuration():
    config = BartConfig(
        vocab_size=20, d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=8, decoder_ffn_dim=8,
    )  # fmt: skip
    model: Any = BartForConditionalGeneration(config)
    before = model.get_encoder().layers[0].self_attn.config._attn_implementation
    share_cross_attention(model.get_decoder())
    (block,) = model.get_decoder().layers
    assert {part.config._attn_implementation for part in (block.self_attn, block.encoder_attn)} == {
        NAME
    }
    assert before != NAME
    assert model.get_encoder().layers[0].self_attn.config._attn_implementation == before
