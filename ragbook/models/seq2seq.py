"""Sequence-to-sequence readers: question and passage in, answer out.

`SeqReader` wraps any Hugging Face encoder-decoder (BART, T5, BERT-to-BERT). The bundled one has the
embedded encoder's own weights as its encoder, fine-tuned in its upper layers, and a small decoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from ragbook.corpus import Passage, Question
from ragbook.errors import InputError
from ragbook.models.answers import detokenize, word_runs
from ragbook.models.attention import PackedCache, recorded_scores, share_cross_attention
from ragbook.models.fusion import pack, passage_sums
from ragbook.models.limits import Cut, first_position
from ragbook.models.pairs import PairEncoder
from ragbook.models.prompts import MAX_QUESTION, Layout, pair, together, widened

MAX_TOGETHER, BETWEEN = 1024, 12
"""The most tokens of an input that holds several passages, and how many of them a layout may add
around question and passages."""


def _setting(model: Any, name: str) -> int:
    """A special token's id, from the model's configuration or its generation configuration."""
    for place in (model.config, model.generation_config):
        value = getattr(place, name, None)
        if isinstance(value, list) and value:  # several end tokens; the first is written
            value = value[0]
        if value is None:
            continue
        rows = model.get_decoder().get_input_embeddings().num_embeddings
        if not isinstance(value, int) or not 0 <= value < rows:
            raise InputError(
                f"{type(model).__name__} has {name} = {value!r}, which is none of its {rows} "
                "tokens; correct its config.json or generation_config.json"
            )
        return value
    raise InputError(f"{type(model).__name__} has no {name}; write it into its config.json")


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
        reader: SeqReader,
        states: Tensor,
        mask: Tensor,
        n: int = 1,
        owner: Tensor | None = None,
        packed: bool = False,
    ) -> None:
        self.reader, self.states, self.mask, self.n, self.owner = reader, states, mask, n, owner
        self.packed = packed

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
        cache = EncoderDecoderCache(
            DynamicCache(), PackedCache(self.owner if self.packed else None)
        )
        out = self.reader.forward(
            self.states, self.mask, inputs, past_key_values=cache, use_cache=True
        )
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
        `SeqReader.cross_attention`."""
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

    def __init__(self, reader: SeqReader, memory: SeqMemory) -> None:
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


class SeqReader:
    """A seq2seq model with its tokenizer, as the methods use it; inference only, float32 results.

    Parameters
    ----------
    model: any Hugging Face encoder-decoder with a language-model head.
    tokenizer: its fast tokenizer.
    name: how tables name it.
    layout: how question and passage become one input; see `ragbook.models.prompts`.
    opening: tokens before every answer, after the decoder's start token; by default those that the
        tokenizer puts there (BART's `<s>`). They are given, not predicted, so they do not count in
        any probability.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        name: str,
        layout: Layout = pair,
        opening: Sequence[int] | None = None,
    ) -> None:
        share_cross_attention(model.get_decoder())
        self.model, self.tokenizer, self.name = model.eval(), tokenizer, name
        self.start, self.end = (
            _setting(model, "decoder_start_token_id"),
            _setting(model, "eos_token_id"),
        )
        before = tokenizer("")["input_ids"]
        before = before[: before.index(self.end)] if self.end in before else []
        self.opening = tuple(before if opening is None else opening)
        if self.opening[:1] == (self.start,):  # BERT's [CLS] is the start token itself
            self.opening = self.opening[1:]
        self.parameters = sum(p.numel() for p in model.parameters())
        self.pairs = PairEncoder(model.get_encoder(), tokenizer, layout)

    @property
    def cut(self) -> Cut:
        """What did not fit into an input, or into the decoder's places."""
        return self.pairs.cut

    @property
    def longest_answer(self) -> int | None:
        """The most tokens of an answer, its end included, for which the decoder has places; None
        where positions are relative."""
        decoder = self.model.get_decoder()
        if getattr(decoder.config, "relative_attention_num_buckets", None):
            return None
        names = ("max_decoder_position_embeddings", "max_position_embeddings", "n_positions")
        places = [getattr(decoder.config, name, None) for name in names]
        before = first_position(decoder) + len(self.opening)
        return next((count - before for count in places if count), None)

    @property
    def places(self) -> int:
        """The most tokens of one input: as many as the encoder has positions for, but at most
        MAX_TOGETHER, which is also the limit if positions are relative."""
        positions = getattr(self.model.get_encoder().config, "max_position_embeddings", None)
        return min(positions or MAX_TOGETHER, MAX_TOGETHER)

    @cached_property
    def wide(self) -> PairEncoder:
        """Encodes a question with several passages in one input, at most `places` tokens."""
        layout = widened(self.pairs.layout, self.places)
        return PairEncoder(self.pairs.encoder, self.tokenizer, layout, self.cut)

    def encode_questions(self, questions: Sequence[Question]) -> tuple[Tensor, Tensor]:
        """Questions alone: (states float32 [B, L, d], mask int64 [B, L])."""
        inputs, states = self.pairs([q.text for q in questions], [None] * len(questions))
        return states, inputs.mask.to(states.device)

    def encode_documents(
        self, questions: Sequence[Question], passages: Sequence[Sequence[Passage]]
    ) -> tuple[Tensor, Tensor]:
        """Encode each (question, passage) pair by itself.

        Returns
        -------
        (states float32 [B, n, L, d], mask int64 [B, n, L]), n the largest number of passages; where
        a question has fewer, the rest is masked.
        """
        n = max(len(found) for found in passages)
        rows = [(b, i) for b, found in enumerate(passages) for i in range(len(found))]
        inputs, flat = self.pairs(
            [questions[b].text for b, _ in rows], [passages[b][i] for b, i in rows]
        )
        if len(rows) == len(passages) * n:  # no padding, so no copy is needed
            shape = (len(passages), n, flat.shape[1])
            return flat.reshape(*shape, -1), inputs.mask.to(flat.device).reshape(shape)
        states = flat.new_zeros(len(passages), n, *flat.shape[1:])
        mask = inputs.mask.new_zeros(len(passages), n, flat.shape[1], device=flat.device)
        at = torch.tensor(rows, device=flat.device).unbind(1)
        states[at], mask[at] = flat, inputs.mask.to(flat.device)
        return states, mask

    def read(
        self, questions: Sequence[Question], passages: Sequence[Sequence[Passage]] | None = None
    ) -> SeqMemory:
        """Encode each (question, passage) pair, or each question alone; see `Generator.read`."""
        if passages is None:
            return SeqMemory(self, *self.encode_questions(questions))
        states, mask = self.encode_documents(questions, passages)
        return SeqMemory(self, states.flatten(0, 1), mask.flatten(0, 1), states.shape[1])

    def read_together(
        self, questions: Sequence[Question], passages: Sequence[Sequence[Passage]]
    ) -> SeqMemory:
        """Encode each question with all of its passages as one; see `Generator.read_together`."""
        room = self.places - MAX_QUESTION - BETWEEN
        shown = [together(self.tokenizer, found, room) for found in passages]
        inputs, states = self.wide([q.text for q in questions], [one.passage for one in shown])
        n = max(len(found) for found in passages)
        owner = torch.stack([one.owner(inputs, row) for row, one in enumerate(shown)])
        return SeqMemory(self, states, inputs.mask.to(states.device), n, owner.to(states.device))

    def answer_ids(self, text: str) -> list[int]:
        """Token ids of an answer, the end token last."""
        ids = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return [*ids, self.end]

    def runs(self, text: str) -> list[tuple[list[int], list[bool], list[bool]]]:
        """Every run of whole words of a text as an answer's tokens; see `Generator.runs`."""
        return word_runs(self.tokenizer, text)

    def clock(self) -> float:
        """Seconds to be subtracted from each other; see `PairEncoder.clock`."""
        return self.pairs.clock()

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of an answer's tokens."""
        return detokenize(self.tokenizer, tokens)

    def memory(self, states: Tensor, mask: Tensor) -> SeqMemory:
        """The memory of these inputs: states [S, L, d], mask [S, L]; see `SeqMemory`."""
        return SeqMemory(self, states, mask)

    def opened(self, inputs: Tensor) -> Tensor:
        """Decoder inputs [R, t] with `opening` after the start token, [R, t + len(opening)]."""
        opening = inputs.new_tensor(self.opening).expand(len(inputs), -1)
        return torch.cat([inputs[:, :1], opening, inputs[:, 1:]], dim=1)

    def forward(self, states: Tensor, mask: Tensor, inputs: Tensor, **kwargs: Any) -> Any:
        """The decoder over given encoder states, as the model's own output.

        Parameters
        ----------
        states: [R, L, d], the encoder's states that each row attends to.
        mask: [R, L], 1 on real tokens.
        inputs: int64 [R, t], decoder inputs, the start token first.
        **kwargs: go to the model's `forward`.
        """
        states = states.to(self.model.dtype)  # they are float32 in every precision
        # The mask is additive and has four dimensions, so that no model builds its own, which would
        # fail where there are more prefixes than inputs.
        unread = torch.zeros_like(mask, dtype=states.dtype)
        unread = unread.masked_fill(mask == 0, torch.finfo(states.dtype).min)
        return self.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            attention_mask=unread[:, None, None, :],
            decoder_input_ids=inputs,
            **{"use_cache": False, **kwargs},
        )

    def teacher_forcing(self, labels: Tensor) -> Tensor:
        """The decoder inputs [N, len(opening) + T] from which it predicts labels [N, T]."""
        start = torch.full_like(labels[:, :1], self.start)
        inputs = torch.cat([start, labels[:, :-1]], dim=1)
        return self.opened(inputs.masked_fill(inputs == -100, self.end))

    @torch.no_grad()
    def token_log_probs(
        self, memory: SeqMemory, labels: Tensor, rows: Tensor | None = None, chunk: int = 64
    ) -> Tensor:
        """log p(y_t | states, y_<t) of each label token, float32 [N, T]; 0 on padding (-100).

        Parameters
        ----------
        memory: of S inputs.
        labels: int64 [N, T].
        rows: int64 [N], the memory's row for each label; None where S = N and each has its own.
        chunk: how many labels are scored at a time.

        Of an answer that is longer than the decoder's places, as many tokens are scored as it has,
        and the others have 0; `cut` notes it.
        """
        labels = self.cut.fitting(labels, self.longest_answer)
        rows = torch.arange(len(labels)) if rows is None else rows
        lengths = (labels != -100).sum(1)
        asked: dict[int, list[int]] = {}
        for at, row in enumerate(rows.tolist()):
            asked.setdefault(row, []).append(at)
        order = sorted(asked, key=lambda row: int(lengths[asked[row]].max()))  # little padding
        size = max(1, chunk // max(map(len, asked.values()), default=1))
        out = torch.zeros(labels.shape)
        for first in range(0, len(order), size):
            own = order[first : first + size]
            width = max(len(asked[row]) for row in own)
            # Every row needs the same number of labels, so that they can share its keys and values;
            # a row with fewer repeats its first one.
            at = torch.tensor([[*asked[row], *asked[row][:1] * width][:width] for row in own])
            at = at.flatten()
            out[at, : int(lengths[at].max())] = self._scored(memory, torch.tensor(own), labels[at])
        return out

    def _scored(self, memory: SeqMemory, own: Tensor, labels: Tensor) -> Tensor:
        """`token_log_probs` of the same number of labels for each of the rows `own`, without the
        padding that all of them have. The output layer computes the distribution after a prefix
        once, even if several labels of a row begin with it."""
        labels = labels[:, : int((labels != -100).sum(1).max())]
        per_row = len(labels) // len(own)
        numbers: dict[tuple[int, ...], int] = {}  # (row, *prefix) -> its number
        places: list[tuple[int, int]] = []  # the label and position where each prefix ends
        prefix = torch.zeros_like(labels)  # the number of the prefix before each token
        for n, tokens in enumerate(labels.tolist()):
            for t in range(len(tokens) - tokens.count(-100)):
                key = (n // per_row, *tokens[:t])
                if key not in numbers:
                    numbers[key] = len(places)
                    places.append((n, len(self.opening) + t))
                prefix[n, t] = numbers[key]
        device = memory.states.device
        own, at = own.to(device), torch.tensor(places, device=device).unbind(1)
        cache = memory.cache(own)
        # The output layer, the largest of all, computes only these positions.
        hook = self.model.get_output_embeddings().register_forward_pre_hook(
            lambda _, given: (given[0][at][None],)
        )
        try:
            read = self.forward(
                memory.states[:1],
                memory.mask[own],
                self.teacher_forcing(labels.to(device)),
                past_key_values=cache,
                use_cache=True,
            )
        finally:
            hook.remove()
        logits = read.logits[0].float()
        chosen = logits[prefix.to(device), labels.clamp_min(0).to(device)]
        chosen -= logits.logsumexp(-1)[prefix.to(device)]
        return chosen.cpu().masked_fill(labels == -100, 0.0)

    def continuation(self, memory: SeqMemory) -> Continuation:
        """The next-token distribution for a beam search over answers from this memory."""
        return Continuation(self, memory)

    @torch.no_grad()
    def cross_attention(self, memory: SeqMemory, labels: Tensor) -> Tensor:
        """Attention of the decoder's last layer, averaged over heads and the answer's tokens.

        Parameters
        ----------
        memory: of N inputs.
        labels: int64 [N, T], the end token last; it points to no passage and is left out.

        Returns
        -------
        float32 [N, L]; each row sums to 1 over the input's tokens.
        """
        out = self._read(memory, self.teacher_forcing(labels), output_attentions=True)
        attention = out.cross_attentions[-1].float().mean(1)[:, len(self.opening) :]  # [N, T, L]
        valid = (labels != -100).float()
        valid[torch.arange(len(labels)), valid.sum(1).long() - 1] = 0.0
        valid[:, 0] = 1.0
        valid = valid.to(attention.device)
        return (attention * valid[:, :, None]).sum(1) / valid.sum(1, keepdim=True)

    @torch.no_grad()
    def first_token_scores(self, memory: SeqMemory) -> Tensor:
        """Cross-attention's scores before the softmax, averaged over heads and layers, at the
        position that predicts an answer's first token: float32 [N, L], padding included."""
        start = torch.full((len(memory.mask), 1), self.start)
        with recorded_scores() as recorded:
            self._read(memory, self.opened(start))
        cross = recorded[1::2]  # each layer has self-attention first, then cross-attention
        return torch.stack([scores[:, :, -1].float().mean(1) for scores in cross]).mean(0)

    def _read(self, memory: SeqMemory, inputs: Tensor, **kwargs: Any) -> Any:
        """The decoder's output on inputs [N, t], one for each row of the memory."""
        return self.forward(
            memory.states[:1],
            memory.mask,
            inputs.to(memory.states.device),
            past_key_values=memory.cache(),
            use_cache=True,
            **kwargs,
        )
