"""Attention to what was read and what was written is that to both in one row."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ragbook.models.split_attention import Read, can_split, reading, split_attention
from tests.checkpoints import random_model


@given(
    rows=st.lists(st.integers(0, 3), min_size=1, max_size=7),
    t=st.integers(1, 3),
    kv_heads=st.sampled_from([1, 2, 4]),
    softcap=st.sampled_from([None, 3.0]),
    seed=st.integers(0, 99),
)
def test_it_is_attention_to_both_in_one_row(rows, t, kv_heads, softcap, seed):
    torch.manual_seed(seed)
    R, S, L, w, heads, d = len(rows), 4, 6, t + 2, 4, 5
    which = torch.tensor(rows)
    keys, values = torch.randn(2, S, kv_heads, L, d)
    key, value = torch.randn(2, R, kv_heads, w, d)
    query = torch.randn(R, heads, t, d)
    mask = torch.zeros(R, 1, t, L + w).masked_fill(torch.rand(R, 1, t, L + w) < 0.3, -1e9)
    mask[..., -1] = 0.0
    model = SimpleNamespace(config=SimpleNamespace(_attn_implementation="sdpa"))
    with reading(model, Read([(keys, values)], which)):
        assert model.config._attn_implementation == "ragbook_split"
        got, _ = split_attention(
            SimpleNamespace(layer_idx=0), query, key, value, mask, scaling=0.3, softcap=softcap
        )
    assert model.config._attn_implementation == "sdpa"
    whole_k = torch.cat([keys[which], key], 2).repeat_interleave(heads // kv_heads, 1)
    whole_v = torch.cat([values[which], value], 2).repeat_interleave(heads // kv_heads, 1)
    scores = torch.einsum("rhtd,rhld->rhtl", query, whole_k) * 0.3
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    want = torch.einsum("rhtl,rhld->rthd", (scores + mask).softmax(-1), whole_v)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


def test_models_with_an_attention_of_their_own_are_known():
    assert can_split(random_model("llama"))
    model = random_model("gpt2")
    model.transformer.h[0].attn.sinks = torch.zeros(4)
    assert not can_split(model)
    other = SimpleNamespace(_supports_attention_backend=False, modules=lambda: [])
    assert not can_split(other)


def test_an_error_inside_leaves_the_model_as_it_was():
    model = SimpleNamespace(config=SimpleNamespace(_attn_implementation="sdpa"))
    with (
        pytest.raises(RuntimeError),
        reading(model, Read([], torch.tensor([0]))),
    ):
        raise RuntimeError
    assert model.config._attn_implementation == "sdpa"
