"""Sequence-to-sequence readers: question and passage in, answer out.

`SeqReader` wraps any Hugging Face encoder-decoder (BART, T5, BERT-to-BERT). The bundled one has the
embedded encoder's own weights as its encoder, fine-tuned in its upper layers, and a small decoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import BertConfig, BertLMHeadModel, EncoderDecoderModel
from transformers.modeling_outputs import BaseModelOutput

from ragbook.corpus import Passage, Question
from ragbook.models.embedded import minilm_model
from ragbook.models.prompts import Inputs, detokenize, padded_states, pair

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
        self._last: tuple[Any, tuple[Tensor, Tensor]] | None = None

    @torch.no_grad()
    def _states(self, inputs: Inputs) -> Tensor:
        encoder = self.model.get_encoder()
        return padded_states(encoder, inputs, encoder.config.hidden_size)

    def encode_questions(self, questions: Sequence[Question]) -> tuple[Tensor, Tensor]:
        """Questions alone: (states float32 [B, L, d], mask int64 [B, L])."""
        inputs = pair(self.tokenizer, [q.text for q in questions], [None] * len(questions))
        return self._states(inputs), inputs.mask

    def encode_documents(
        self, questions: Sequence[Question], passages: Sequence[Sequence[Passage]]
    ) -> tuple[Tensor, Tensor]:
        """Each (question, passage) pair apart, once.

        Returns
        -------
        (states float32 [B, n, L, d], mask int64 [B, n, L]), n the largest number of passages; where
        a question has fewer, the rest is masked. The last call's result is kept: a method that
        answers and then weighs its answers reads the same pairs twice.
        """
        key = [(q.text, tuple(found)) for q, found in zip(questions, passages, strict=True)]
        if self._last is not None and self._last[0] == key:
            return self._last[1]
        n = max(len(found) for found in passages)
        rows = [(b, i) for b, found in enumerate(passages) for i in range(len(found))]
        inputs = pair(
            self.tokenizer,
            [questions[b].text for b, _ in rows],
            [passages[b][i] for b, i in rows],
        )
        flat = self._states(inputs)
        states = flat.new_zeros(len(passages), n, *flat.shape[1:])
        mask = inputs.mask.new_zeros(len(passages), n, flat.shape[1])
        at = torch.tensor(rows).unbind(1)
        states[at], mask[at] = flat, inputs.mask
        self._last = (key, (states, mask))
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
            use_cache=False,
            **kwargs,
        )

    def _teacher_forcing(self, labels: Tensor) -> Tensor:
        inputs = torch.cat([torch.full_like(labels[:, :1], self.start), labels[:, :-1]], dim=1)
        return inputs.masked_fill(inputs == -100, self.end)

    @torch.no_grad()
    def token_log_probs(
        self, states: Tensor, mask: Tensor, labels: Tensor, chunk: int = 64
    ) -> Tensor:
        """log p(y_t | states, y_<t) of each label token, float32 [N, T]; 0 on padding (-100)."""
        out = []
        for at in range(0, len(labels), chunk):
            rows = slice(at, at + chunk)
            logits = self._forward(
                states[rows], mask[rows], self._teacher_forcing(labels[rows])
            ).logits.float()
            target = labels[rows].clamp_min(0)
            chosen = logits.gather(-1, target[:, :, None]).squeeze(-1) - logits.logsumexp(-1)
            out.append(chosen.masked_fill(labels[rows] == -100, 0.0))
        return torch.cat(out)

    @torch.no_grad()
    def next_log_probs(self, states: Tensor, mask: Tensor, prefixes: Tensor) -> Tensor:
        """log p(next token | states, prefix), float32 [N, V]; `prefixes` int64 [N, t]."""
        return self._forward(states, mask, prefixes).logits[:, -1].float().log_softmax(-1)

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
