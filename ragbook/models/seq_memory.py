"""What a seq2seq reader's decoder attends to, and how answers grow from it token by token.

See `ragbook.models.seq2seq`.
"""

from __future__ import annotations

import time
from copy import copy
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache

from ragbook.models.attention import PackedCache
from ragbook.models.fusion import pack, passage_sums


class Writes(Protocol):
    """The parts of its reader that a memory uses; see `ragbook.models.seq2seq.SeqReader`."""

    model: Any
    start: int

    def opened(self, inputs: Tensor) -> Tensor:
        """Decoder inputs with the tokens that come before every answer."""
        ...

    def forward(self, states: Tensor, mask: Tensor, inputs: Tensor, **kwargs: Any) -> Any:
        """The decoder over given encoder states."""
        ...

    def cross_attention(self, memory: SeqMemory, labels: Tensor) -> Tensor:
        """The last layer's attention while answers are written."""
        ...

    def first_token_scores(self, memory: SeqMemory) -> Tensor:
        """Cross-attention's scores before the softmax at an answer's first token."""
        ...


class SeqMemory:
    """What a decoder attends to: the inputs' states, and the keys and values that its
    cross-attention computes from them.

    The keys and values are computed once, when they are first needed, and used by both beam search
    and scoring.

    Parameters
    ----------
    reader: the reader whose decoder attends.
    states, mask: float32 [S, L, d] and int64 [S, L], 1 on real tokens.
    n: passages of each question; S is B * n, or B if they are fused or there are none.
    owner: for a fused memory, int64 [S, L]: the passage of each token, -1 on padding.
    packed: whether padding between the passages was left out.
    """

    def __init__(
        self,
        reader: Writes,
        states: Tensor,
        mask: Tensor,
        n: int = 1,
        owner: Tensor | None = None,
        packed: bool = False,
    ) -> None:
        self.reader, self.states, self.mask, self.n, self.owner = reader, states, mask, n, owner
        self.packed = packed
        self.seconds = 0.0

    @cached_property
    @torch.no_grad()
    def cross(self) -> Any:
        """The decoder's cross-attention keys and values, [S, heads, L, d] a layer."""
        start = torch.full((len(self.states), 1), self.reader.start, device=self.states.device)
        output = self.reader.model.get_output_embeddings()  # the largest layer, of no use here
        hook = output.register_forward_pre_hook(lambda _, given: (given[0][:, :0],))
        try:
            return self._begin(start)[1].cross_attention_cache
        finally:
            hook.remove()

    def begin(self, inputs: Tensor) -> tuple[Any, EncoderDecoderCache]:
        """The decoder's output on the first inputs [S, t], one for each row of the memory, and a
        cache as `cache` gives it, with these inputs in it. If the cross-attention's keys and values
        are not known yet, this is the pass that computes them."""
        if "cross" in vars(self):
            cache = self.cache()
            return self.reader.forward(
                self.states[:1], self.mask, inputs, past_key_values=cache, use_cache=True
            ), cache
        out, begun = self._begin(inputs)
        self.cross = begun.cross_attention_cache
        cache = self.cache()
        cache.self_attention_cache = begun.self_attention_cache
        return out, cache

    def _begin(self, inputs: Tensor) -> tuple[Any, EncoderDecoderCache]:
        began = time.perf_counter()
        cache = EncoderDecoderCache(
            DynamicCache(), PackedCache(self.owner if self.packed else None)
        )
        out = self.reader.forward(
            self.states, self.mask, inputs, past_key_values=cache, use_cache=True
        )
        self.seconds += time.perf_counter() - began
        return out, cache

    def fused(self) -> SeqMemory:
        """The n passages of each question packed into one row; see `ragbook.models.fusion.pack`."""
        apart = (states.unflatten(0, (-1, self.n)) for states in (self.states, self.mask))
        states, mask, owner = pack(*apart)
        return SeqMemory(self.reader, states, mask, self.n, owner, packed=True)

    def cache(self, rows: Tensor | None = None) -> EncoderDecoderCache:
        """A decoder's cache with the keys and values of these rows, int64 [S'], or of all rows, and
        no answer tokens yet.

        A cache of all rows in their order holds the memory's own keys and values, which are never
        changed in place, and not a copy: for many long inputs they are the largest tensors of all.
        """
        cross = copy(self.cross)
        cross.layers = [copy(layer) for layer in self.cross.layers]
        everything = torch.arange(len(self.mask))
        if rows is not None and not torch.equal(rows.cpu(), everything):
            cross.batch_select_indices(rows)
        return EncoderDecoderCache(DynamicCache(), cross)

    def masked(self, hidden: Tensor) -> SeqMemory:
        """The same fused memory without the passages where `hidden` [B, n] is true; keys and values
        are not copied."""
        assert self.owner is not None  # fused
        self.cross  # noqa: B018  (computed now, so that all masked memories share it)
        other = copy(self)
        left_out = hidden.to(self.owner.device).gather(1, self.owner.clamp_min(0))
        other.mask = self.mask * ~left_out
        return other

    def attention(self, labels: Tensor) -> Tensor:
        """The share of each passage in cross-attention, float32 [B, n]; see
        `ragbook.models.seq2seq.SeqReader.cross_attention`."""
        return self._shares(self.reader.cross_attention(self, labels))

    def first_token_scores(self) -> Tensor:
        """Cross-attention's scores before the softmax at an answer's first token, averaged over
        heads, layers and each passage's tokens (Izacard & Grave 2021b, section 3).

        Returns
        -------
        float32 [B, n], of any sign; -inf where a question has fewer than n passages.
        """
        assert self.owner is not None  # fused
        scores, owner = self.reader.first_token_scores(self).cpu(), self.owner.cpu()
        tokens = passage_sums(torch.ones_like(scores), owner, self.n)
        means = passage_sums(scores, owner, self.n) / tokens.clamp_min(1)
        return means.masked_fill(tokens == 0, float("-inf"))

    def _shares(self, weights: Tensor) -> Tensor:
        """The tokens' weights [B, L] summed over each passage and normalised: float32 [B, n]."""
        assert self.owner is not None  # fused
        sums = passage_sums(weights, self.owner, self.n).cpu()
        return sums / sums.sum(-1, keepdim=True)


class Continuation:
    """Next-token distributions of growing prefixes, with keys and values kept between tokens.

    All prefixes that continue from one row of the memory attend to the one copy of its keys and
    values (see `shared_attention`), which is moved only when a row is done.
    """

    def __init__(self, reader: Writes, memory: SeqMemory) -> None:
        self.reader, self.memory = reader, memory
        self.cache: EncoderDecoderCache | None = None
        self.read = torch.empty(0, dtype=torch.long)  # the memory's rows that the cache holds
        self.written = 0  # how many tokens of each prefix the cache holds

    @torch.no_grad()
    def __call__(self, prefixes: Tensor, rows: Tensor, parents: Tensor) -> Tensor:
        """log p(next token | states, prefix), float32 [R, V].

        Parameters
        ----------
        prefixes: int64 [R, t], the start token first, one token longer than at the last call.
        rows: int64 [R], ascending: the row of the memory that each prefix continues from, each of
            them the same number of times.
        parents: int64 [R], which prefix of the last call each one continues; not used at the first.
        """
        device = self.memory.states.device
        prefixes, rows = prefixes.to(device), rows.to(device)
        own = rows.unique_consecutive()
        inputs = prefixes
        if self.cache is None:
            inputs = self.reader.opened(prefixes)
            if len(rows) == len(own) == len(self.memory.mask):  # all rows, once
                out, self.cache = self.memory.begin(inputs)
                self.read, self.written = own, prefixes.shape[1]
                return out.logits[:, -1].float().log_softmax(-1)
            self.cache = self.memory.cache(own)
        else:
            self.cache.self_attention_cache.batch_select_indices(parents.to(device))
            if not torch.equal(self.read, own):
                kept = torch.searchsorted(self.read, own)
                self.cache.cross_attention_cache.batch_select_indices(kept)
            inputs = prefixes[:, self.written :]
        self.read, self.written = own, prefixes.shape[1]
        out = self.reader.forward(
            self.memory.states[:1],  # only tells the model to attend to the cached keys and values
            self.memory.mask[own],
            inputs,
            past_key_values=self.cache,
            use_cache=True,
        )
        return out.logits[:, -1].float().log_softmax(-1)
