"""Sequence-to-sequence readers: question and passage in, answer out.

`SeqReader` wraps any Hugging Face encoder-decoder (BART, T5, BERT-to-BERT). The bundled one has the
embedded encoder's own weights as its encoder, fine-tuned in its upper layers, and a small decoder.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from ragbook.models.embedded import minilm_model
from ragbook.models.pairs import PairEncoder
from ragbook.models.prompts import detokenize

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
    places = (getattr(model.config, name, None), getattr(model.generation_config, name, None))
    return next(value for value in places if value is not None)


class Continuation:
    """Next-token distributions of growing prefixes, with keys and values kept between tokens.

    The cross-attention's keys and values are computed once for each prefix that is open at the
    first token, and moved only when the prefixes move between rows.
    """

    def __init__(self, reader: SeqReader, states: Tensor, mask: Tensor) -> None:
        self.reader, self.states, self.mask = reader, states, mask
        self.cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        self.rows: Tensor | None = None

    @torch.no_grad()
    def __call__(self, prefixes: Tensor, rows: Tensor, parents: Tensor) -> Tensor:
        """log p(next token | states, prefix), float32 [R, V].

        Parameters
        ----------
        prefixes: int64 [R, t], the start token first, one token longer than at the last call.
        rows: int64 [R], the row of `states` that each prefix continues from.
        parents: int64 [R], which prefix of the last call each one continues; not used at the first.
        """
        if self.rows is not None:
            self.cache.self_attention_cache.batch_select_indices(parents)
            if not torch.equal(self.rows, rows):
                self.cache.cross_attention_cache.batch_select_indices(parents)
        self.rows = rows
        out = self.reader._forward(
            self.states[rows]
            if prefixes.shape[1] == 1
            else self.states[:1].expand(len(rows), -1, -1),
            self.mask[rows],
            prefixes[:, -1:],
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
    """

    def __init__(self, model: Any, tokenizer: Any, name: str) -> None:
        model.get_decoder().set_attn_implementation("eager")  # its attention is the evidence
        self.model, self.tokenizer, self.name = model.eval(), tokenizer, name
        self.start, self.end = (
            _setting(model, "decoder_start_token_id"),
            _setting(model, "eos_token_id"),
        )
        self.parameters = sum(p.numel() for p in model.parameters())
        self.pairs = PairEncoder(model.get_encoder(), tokenizer)

    def encode_questions(self, questions: Sequence[Question]) -> tuple[Tensor, Tensor]:
        """Questions alone: (states float32 [B, L, d], mask int64 [B, L])."""
        inputs, states = self.pairs([q.text for q in questions], [None] * len(questions))
        return states, inputs.mask

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
        states = flat.new_zeros(len(passages), n, *flat.shape[1:])
        mask = inputs.mask.new_zeros(len(passages), n, flat.shape[1])
        at = torch.tensor(rows).unbind(1)
        states[at], mask[at] = flat, inputs.mask
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

    def _forward(self, states: Tensor, mask: Tensor, inputs: Tensor, **kwargs: Any) -> Any:
        return self.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            attention_mask=mask,
            decoder_input_ids=inputs,
            **{"use_cache": False, **kwargs},
        )

    def _teacher_forcing(self, labels: Tensor) -> Tensor:
        inputs = torch.cat([torch.full_like(labels[:, :1], self.start), labels[:, :-1]], dim=1)
        return inputs.masked_fill(inputs == -100, self.end)

    @torch.no_grad()
    def token_log_probs(
        self,
        states: Tensor,
        mask: Tensor,
        labels: Tensor,
        rows: Tensor | None = None,
        chunk: int = 64,
    ) -> Tensor:
        """log p(y_t | states, y_<t) of each label token, float32 [N, T]; 0 on padding (-100).

        Parameters
        ----------
        states, mask: [S, L, d] and [S, L].
        labels: int64 [N, T].
        rows: int64 [N], the row of `states` each label is read from; None where S = N and each has
            its own. The cross-attention's keys and values are computed once for each row.
        chunk: labels read at a time.
        """
        keys_and_values: list[tuple[Tensor, Tensor]] = []
        if rows is None:
            rows = torch.arange(len(labels))
        else:
            cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
            start = torch.full((len(states), 1), self.start)
            self._forward(states, mask, start, past_key_values=cache, use_cache=True)
            layers: Any = cache.cross_attention_cache.layers
            keys_and_values = [(layer.keys, layer.values) for layer in layers]
        lengths = (labels != -100).sum(1)
        out = torch.zeros(labels.shape)
        for chosen_rows in torch.argsort(lengths, stable=True).split(chunk):  # little padding
            longest = int(lengths[chosen_rows].max())
            at, own = labels[chosen_rows, :longest], rows[chosen_rows]
            kept = {}
            if keys_and_values:
                cross = DynamicCache([(k[own], v[own]) for k, v in keys_and_values])
                cache = EncoderDecoderCache(DynamicCache(), cross)
                kept = {"past_key_values": cache, "use_cache": True}
            read = self._forward(states[own], mask[own], self._teacher_forcing(at), **kept)
            logits = read.logits.float()
            target = at.clamp_min(0)
            chosen = logits.gather(-1, target[:, :, None]).squeeze(-1) - logits.logsumexp(-1)
            out[chosen_rows, :longest] = chosen.masked_fill(at == -100, 0.0)
        return out

    def continuation(self, states: Tensor, mask: Tensor) -> Continuation:
        """What a beam search over answers from these states asks for the next token."""
        return Continuation(self, states, mask)

    @torch.no_grad()
    def cross_attention(self, states: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
        """Attention of the decoder's last layer, averaged over heads and the answer's tokens.

        Returns
        -------
        float32 [N, L]; each row sums to 1 over the input's tokens.
        """
        out = self._forward(states, mask, self._teacher_forcing(labels), output_attentions=True)
        attention = out.cross_attentions[-1].float().mean(1)  # [N, T, L]
        valid = (labels != -100).float()
        valid[torch.arange(len(labels)), valid.sum(1).long() - 1] = (
            0.0  # the end token points nowhere
        )
        valid[:, 0] = 1.0
        return (attention * valid[:, :, None]).sum(1) / valid.sum(1, keepdim=True)
