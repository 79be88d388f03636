"""Causal language models with the memory keys of kNN-LM.

The bundled one is the embedded encoder turned into a left-to-right model (`BertLMHeadModel`, a
standard class): its word embeddings stay, its upper layers were trained to predict the next token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertLMHeadModel, DynamicCache

from ragbook.corpus import Passage
from ragbook.errors import InputError
from ragbook.models.embedded import minilm_model
from ragbook.models.prompts import MAX_QUESTION, passage_text

MAX_PASSAGE = 256
"""Tokens of a passage that the language model reads; the rest is dropped."""


def new_lm_model() -> BertLMHeadModel:
    """The bundled language model before training: the embedded encoder under a causal mask."""
    encoder = minilm_model()
    config = BertConfig(**{**encoder.config.to_dict(), "is_decoder": True})
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    model = BertLMHeadModel(config)
    model.bert.load_state_dict(encoder.state_dict())
    model.cls.predictions.decoder.weight = model.bert.embeddings.word_embeddings.weight
    return model


def key_module(model: Any) -> nn.Module:
    """The last block's feed-forward network: what comes into it is the key (Khandelwal et al. 2020,
    section 5), after the layer norm that stands before it.

    GPT-2: `transformer.h[-1].mlp`; Llama-style: `model.layers[-1].mlp`; OPT:
    `model.decoder.layers[-1].fc1`; BERT: `bert.encoder.layer[-1].intermediate`.

    Raises
    ------
    InputError: the architecture is none of these.
    """
    for block, inner in (
        ("transformer.h", "mlp"),
        ("model.layers", "mlp"),
        ("model.decoder.layers", "fc1"),
        ("bert.encoder.layer", "intermediate"),
    ):
        try:
            return getattr(model.get_submodule(block)[-1], inner)
        except AttributeError:
            continue
    raise InputError(
        f"{type(model).__name__} is not a language model whose feed-forward layers are known; "
        "use a GPT-2, Llama, OPT or BERT decoder"
    )


class Continuation:
    """Next-token distributions of growing prefixes after prompts, with keys and values kept.

    Prompts of different lengths are padded on the left and masked; positions count real tokens.
    """

    def __init__(self, lm: LanguageModel, prompts: Sequence[Sequence[int]]) -> None:
        self.lm = lm
        longest = max(len(prompt) for prompt in prompts)
        self.ids = torch.tensor([[lm.end] * (longest - len(p)) + list(p) for p in prompts])
        self.mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
        self.cache = DynamicCache()

    @torch.no_grad()
    def __call__(self, prefixes: Tensor, rows: Tensor, parents: Tensor) -> tuple[Tensor, Tensor]:
        """The keys of the contexts, float32 [R, d], and log p(next token), float32 [R, V].

        Parameters
        ----------
        prefixes: int64 [R, t], a start token, which the model is not shown, and the answer so far,
            one token longer than at the last call.
        rows: int64 [R], the prompt each prefix continues.
        parents: int64 [R], which prefix of the last call each one continues; not used at the first.
        """
        written = prefixes.shape[1] - 1
        mask = torch.cat([self.mask[rows], torch.ones_like(prefixes[:, 1:])], dim=1)
        positions = (mask.cumsum(1) - 1).clamp_min(0)
        if written:
            self.cache.batch_select_indices(parents)
            ids, positions = prefixes[:, -1:], positions[:, -1:]
        else:
            ids = self.ids[rows]
        keys, log_probs = self.lm.forward(
            ids, mask, last=1, position_ids=positions, past_key_values=self.cache, use_cache=True
        )
        return keys[:, -1], log_probs[:, -1]


class LanguageModel:
    """A causal language model with its tokenizer; inference only, float32 results."""

    def __init__(self, model: Any, tokenizer: Any, name: str) -> None:
        self.model, self.tokenizer, self.name = model.eval(), tokenizer, name
        self.start, self.end = tokenizer.cls_token_id, tokenizer.sep_token_id
        if self.start is None:  # GPT-2 and its kin open and close a text with one token
            self.start = self.end = tokenizer.eos_token_id
        self.vocab_size: int = model.config.vocab_size
        self.dimension: int = model.config.hidden_size
        self.parameters = sum(p.numel() for p in model.parameters())
        self._key: Tensor | None = None
        key_module(model).register_forward_pre_hook(self._keep)

    def _keep(self, _: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        self._key = arguments[0]

    @torch.no_grad()
    def forward(
        self, ids: Tensor, mask: Tensor | None = None, last: int = 0, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Keys and next-token log-probabilities at every position, or at the `last` ones.

        Parameters
        ----------
        ids: int64 [N, L], padded on the right.
        mask: int64 [N, L], 1 on real tokens; None where there is no padding.
        last: how many positions from the end are wanted; 0 for all. The output layer over a whole
            vocabulary costs more than the rest of a small model.
        kwargs: for the model; without any it keeps no cache.

        Returns
        -------
        (keys float32 [N, L, d], log p(next token) float32 [N, L, V]), L being `last` if given.
        """
        logits = self.model(
            input_ids=ids,
            attention_mask=mask,
            logits_to_keep=last,
            **{"use_cache": False, **kwargs},
        ).logits
        assert self._key is not None
        return self._key[:, -last:].float(), logits.float().log_softmax(-1)

    def continuation(self, questions: Sequence[str]) -> Continuation:
        """What a beam search over the questions' answers asks for the next token."""
        return Continuation(self, [self.prompt_ids(question) for question in questions])

    def passage_ids(self, passage: Passage) -> list[int]:
        """A passage as the model reads it: start, title and text, end."""
        ids = self.tokenizer(
            passage_text(passage), add_special_tokens=False, truncation=True, max_length=MAX_PASSAGE
        )["input_ids"]
        return [self.start, *ids, self.end]

    def prompt_ids(self, question: str) -> list[int]:
        """A question as the model reads it: start, question, end; its answer comes next."""
        ids = self.tokenizer(
            question, add_special_tokens=False, truncation=True, max_length=MAX_QUESTION
        )["input_ids"]
        return [self.start, *ids, self.end]

    @torch.no_grad()
    def memory(self, passages: Sequence[Passage]) -> list[tuple[Tensor, Tensor]]:
        """The (key, next token) pairs of each passage: (float32 [T, d], int64 [T]).

        A key's context is its own passage from the start.
        """
        out: list[tuple[Tensor, Tensor]] = []
        for at in range(0, len(passages), 32):
            rows = [torch.tensor(self.passage_ids(p)) for p in passages[at : at + 32]]
            ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self.end)
            mask = torch.zeros_like(ids)
            for row, one in enumerate(rows):
                mask[row, : len(one)] = 1
            self.model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)
            assert self._key is not None
            keys = self._key.float()
            out += [(keys[row, : len(one) - 1].clone(), one[1:]) for row, one in enumerate(rows)]
        return out
