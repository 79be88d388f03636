"""Sequence-to-sequence readers: question and passage in, answer out.

`SeqReader` wraps any Hugging Face encoder-decoder (BART, T5, BERT-to-BERT). The bundled one has the
embedded encoder's own weights as its encoder, fine-tuned in its upper layers, and a small decoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

import torch
from torch import Tensor
from transformers import (
    BertConfig,
    BertLMHeadModel,
    DynamicCache,
    EncoderDecoderCache,
    EncoderDecoderModel,
)
from transformers.modeling_outputs import BaseModelOutput

from ragbook.corpus import Passage, Question
from ragbook.errors import InputError
from ragbook.models.attention import PackedCache, recorded_scores, share_cross_attention
from ragbook.models.embedded import minilm_model
from ragbook.models.pairs import PairEncoder
from ragbook.models.prompts import Layout, detokenize, pair

DECODER_LAYERS = 2


def new_reader_model() -> Any:
    """The bundled reader before training, an `EncoderDecoderModel`.

    Its encoder is the embedded one, its decoder is fresh.

    The decoder reads and writes through the encoder's word embeddings, which stay frozen, so a
    name that no question ever asked for still has its place in input and output.
    """
    encoder = minilm_model()
    shape = encoder.config
    config = BertConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        num_attention_heads=shape.num_attention_heads,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=DECODER_LAYERS,
        max_position_embeddings=64,
        type_vocab_size=1,
        is_decoder=True,
        add_cross_attention=True,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    decoder = BertLMHeadModel(config)
    words = encoder.embeddings.word_embeddings
    decoder.bert.embeddings.word_embeddings = words
    decoder.cls.predictions.decoder.weight = words.weight
    model = EncoderDecoderModel(encoder=encoder, decoder=decoder)
    model.config.decoder_start_token_id = 101  # [CLS]
    model.config.eos_token_id = 102  # [SEP]
    model.config.pad_token_id = 0
    return model


def _setting(model: Any, name: str) -> int:
    """A special token's id, which stands in the model's configuration or its generation one."""
    for place in (model.config, model.generation_config):
        if getattr(place, name, None) is not None:
            return getattr(place, name)
    raise InputError(f"{type(model).__name__} has no {name}; write it into its config.json")


class Memory:
    """What a decoder attends to: inputs' states, and its cross-attention's keys and values of them.

    These are computed once; beam search continues from them and rescoring reads them again.

    Parameters
    ----------
    reader: whose decoder.
    states, mask: float32 [S, L, d] and int64 [S, L], 1 on real tokens.
    owner: int64 [S, L], the passage of each token, -1 on padding, where passages were packed into
        one input: original FiD checkpoints, whose cross-attention has a position bias, need it.
    """

    @torch.no_grad()
    def __init__(
        self, reader: SeqReader, states: Tensor, mask: Tensor, owner: Tensor | None = None
    ) -> None:
        self.states, self.mask = states, mask
        cache = EncoderDecoderCache(DynamicCache(), PackedCache(owner))
        start = torch.full((len(states), 1), reader.start, device=states.device)
        reader.forward(states, mask, start, past_key_values=cache, use_cache=True)
        self.cross = cache.cross_attention_cache  # keys and values [S, heads, L, d] a layer

    def cache(self, rows: Tensor | None = None) -> EncoderDecoderCache:
        """A cache that has read these rows, int64 [S'], or all, and written nothing yet.

        One of all rows in their order holds the memory's own keys and values, which nobody changes
        in place, and no copy: for many long inputs they are the greatest tensors there are.
        """
        cross = copy(self.cross)
        cross.layers = [copy(layer) for layer in self.cross.layers]
        everything = torch.arange(len(self.mask))
        if rows is not None and not torch.equal(rows.cpu(), everything):
            cross.batch_select_indices(rows)
        return EncoderDecoderCache(DynamicCache(), cross)

    def masked(self, mask: Tensor) -> Memory:
        """The same memory under another mask [S, L], its keys and values not copied."""
        other = copy(self)
        other.mask = mask
        return other


class Continuation:
    """Next-token distributions of growing prefixes, with keys and values kept between tokens.

    All prefixes that continue from one row of the memory attend to the one copy of its keys and
    values (see `shared_attention`), which is moved only when a row is done.
    """

    def __init__(self, reader: SeqReader, memory: Memory) -> None:
        self.reader, self.memory = reader, memory
        self.cache: EncoderDecoderCache | None = None
        self.read = torch.empty(0, dtype=torch.long)  # the memory's rows that the cache holds
        self.written = 0  # tokens of the prefixes that it holds

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
            self.cache = self.memory.cache(own)
            inputs = self.reader.opened(prefixes)
        else:
            self.cache.self_attention_cache.batch_select_indices(parents.to(device))
            if not torch.equal(self.read, own):
                kept = torch.searchsorted(self.read, own)
                self.cache.cross_attention_cache.batch_select_indices(kept)
            inputs = prefixes[:, self.written :]
        self.read, self.written = own, prefixes.shape[1]
        out = self.reader.forward(
            self.memory.states[:1],  # only there to say that there are keys and values
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
    name: what tables call it.
    layout: how question and passage become one input; see `ragbook.models.prompts`.
    opening: tokens that stand before every answer, after the decoder's start token; by default
        those that the tokenizer puts there (BART's `<s>`). They are given, not predicted: no
        probability counts them.
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

    def encode_questions(self, questions: Sequence[Question]) -> tuple[Tensor, Tensor]:
        """Questions alone: (states float32 [B, L, d], mask int64 [B, L])."""
        inputs, states = self.pairs([q.text for q in questions], [None] * len(questions))
        return states, inputs.mask.to(states.device)

    def encode_documents(
        self, questions: Sequence[Question], passages: Sequence[Sequence[Passage]]
    ) -> tuple[Tensor, Tensor]:
        """Each (question, passage) pair apart, once.

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
        if len(rows) == len(passages) * n:  # as they are, without a copy
            shape = (len(passages), n, flat.shape[1])
            return flat.reshape(*shape, -1), inputs.mask.to(flat.device).reshape(shape)
        states = flat.new_zeros(len(passages), n, *flat.shape[1:])
        mask = inputs.mask.new_zeros(len(passages), n, flat.shape[1], device=flat.device)
        at = torch.tensor(rows, device=flat.device).unbind(1)
        states[at], mask[at] = flat, inputs.mask.to(flat.device)
        return states, mask

    def answer_ids(self, answers: Sequence[str]) -> list[list[int]]:
        """Token ids of each answer, the end token last."""
        ids = self.tokenizer(list(answers), add_special_tokens=False)["input_ids"]
        return [[*one, self.end] for one in ids]

    def pad_labels(self, answers: Sequence[Sequence[int]]) -> Tensor:
        """int64 [B, T], padded with -100."""
        rows = [torch.tensor(one) for one in answers]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100)

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of an answer's tokens."""
        return detokenize(self.tokenizer, tokens)

    def memory(self, states: Tensor, mask: Tensor, owner: Tensor | None = None) -> Memory:
        """What the decoder attends to when it reads these inputs: see `Memory`."""
        return Memory(self, states, mask, owner)

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
        # Additive and of four dimensions, so that no model makes one of its own: there may be more
        # prefixes than inputs.
        unread = torch.zeros_like(mask, dtype=states.dtype)
        unread = unread.masked_fill(mask == 0, torch.finfo(states.dtype).min)
        return self.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            attention_mask=unread[:, None, None, :],
            decoder_input_ids=inputs,
            **{"use_cache": False, **kwargs},
        )

    def teacher_forcing(self, labels: Tensor) -> Tensor:
        """Decoder inputs [N, len(opening) + T] under which it predicts labels [N, T]."""
        start = torch.full_like(labels[:, :1], self.start)
        inputs = torch.cat([start, labels[:, :-1]], dim=1)
        return self.opened(inputs.masked_fill(inputs == -100, self.end))

    @torch.no_grad()
    def token_log_probs(
        self, memory: Memory, labels: Tensor, rows: Tensor | None = None, chunk: int = 64
    ) -> Tensor:
        """log p(y_t | states, y_<t) of each label token, float32 [N, T]; 0 on padding (-100).

        Parameters
        ----------
        memory: of S inputs.
        labels: int64 [N, T].
        rows: int64 [N], the memory's row each label is read from; None where S = N and each has its
            own.
        chunk: labels read at a time.
        """
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
            # As many labels for every row, so that they share its keys and values; where there are
            # fewer, one of them is read again.
            at = torch.tensor([[*asked[row], *asked[row][:1] * width][:width] for row in own])
            at = at.flatten()
            out[at, : int(lengths[at].max())] = self._scored(memory, torch.tensor(own), labels[at])
        return out

    def _scored(self, memory: Memory, own: Tensor, labels: Tensor) -> Tensor:
        """`token_log_probs` of the same number of labels for each of the rows `own`, without the
        padding that all of them have. A prefix that several labels of a row share is predicted from
        once."""
        labels = labels[:, : int((labels != -100).sum(1).max())]
        per_row = len(labels) // len(own)
        numbers: dict[tuple[int, ...], int] = {}  # (row, *prefix) -> its number
        places: list[tuple[int, int]] = []  # where each stands
        prefix = torch.zeros_like(labels)  # the number of the one each token follows
        for n, tokens in enumerate(labels.tolist()):
            for t in range(len(tokens) - tokens.count(-100)):
                key = (n // per_row, *tokens[:t])
                if key not in numbers:
                    numbers[key] = len(places)
                    places.append((n, len(self.opening) + t))
                prefix[n, t] = numbers[key]
        device = memory.states.device
        own, at = own.to(device), torch.tensor(places, device=device).unbind(1)
        # The output layer, the widest there is, sees only these.
        hook = self.model.get_output_embeddings().register_forward_pre_hook(
            lambda _, given: (given[0][at][None],)
        )
        try:
            read = self.forward(
                memory.states[:1],
                memory.mask[own],
                self.teacher_forcing(labels.to(device)),
                past_key_values=memory.cache(own),
                use_cache=True,
            )
        finally:
            hook.remove()
        logits = read.logits[0].float()
        chosen = logits[prefix.to(device), labels.clamp_min(0).to(device)]
        chosen -= logits.logsumexp(-1)[prefix.to(device)]
        return chosen.cpu().masked_fill(labels == -100, 0.0)

    def continuation(self, memory: Memory) -> Continuation:
        """What a beam search over answers from this memory asks for the next token."""
        return Continuation(self, memory)

    @torch.no_grad()
    def cross_attention(self, memory: Memory, labels: Tensor) -> Tensor:
        """Attention of the decoder's last layer, averaged over heads and the answer's tokens.

        Parameters
        ----------
        memory: of N inputs.
        labels: int64 [N, T], the end token last, which points nowhere and is left out.

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
    def first_token_scores(self, memory: Memory) -> Tensor:
        """Cross-attention's scores before the softmax, averaged over heads and layers, at the place
        that writes an answer's first token: float32 [N, L], of padding too."""
        start = torch.full((len(memory.mask), 1), self.start)
        with recorded_scores() as recorded:
            self._read(memory, self.opened(start))
        cross = recorded[1::2]  # in every layer self-attention comes first
        return torch.stack([scores[:, :, -1].float().mean(1) for scores in cross]).mean(0)

    def _read(self, memory: Memory, inputs: Tensor, **kwargs: Any) -> Any:
        """The decoder's output on inputs [N, t], one for each row of the memory."""
        return self.forward(
            memory.states[:1],
            memory.mask,
            inputs.to(memory.states.device),
            past_key_values=memory.cache(),
            use_cache=True,
            **kwargs,
        )
