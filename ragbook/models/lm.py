"""Causal language models with the memory keys of kNN-LM.

The bundled one is the embedded encoder turned into a left-to-right model (`BertLMHeadModel`, a
standard class): its word embeddings are unchanged, its upper layers were trained to predict the
next token.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertLMHeadModel, DynamicCache

from ragbook.corpus import Passage
from ragbook.errors import InputError
from ragbook.models.answers import word_runs
from ragbook.models.cached import Steps, check_steps
from ragbook.models.devices import least_precise, name_of
from ragbook.models.embedded import minilm_model
from ragbook.models.limits import Cut, first_position
from ragbook.models.prompts import MAX_QUESTION, passage_text

MAX_PASSAGE = 256
"""Tokens of a passage in a prompt or a training text; the rest is dropped."""

WINDOW, OVERLAP = 256, 128
"""A memory's text is read in windows of WINDOW tokens, each of which repeats OVERLAP tokens of the
window before. So every key has at least OVERLAP tokens of context, except at the beginning of a
text."""

BATCH_TOKENS = 4096
"""Tokens in one forward pass over a memory's text, padding included."""


def new_lm_model() -> BertLMHeadModel:
    """The bundled language model before training: the embedded encoder under a causal mask."""
    encoder = minilm_model()
    config = BertConfig(**{**encoder.config.to_dict(), "is_decoder": True})
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    model = BertLMHeadModel(config)
    model.tie_weights()  # also where it is made without first values
    model.bert.load_state_dict(encoder.state_dict())
    model.cls.predictions.decoder.weight = model.bert.embeddings.word_embeddings.weight
    return model


FEED_FORWARD = ("mlp", "ffn", "feed_forward", "fc1", "intermediate", "block_sparse_moe")
"""Names in `transformers` of a block's feed-forward network, or of its first layer."""


def key_module(model: Any) -> nn.Module:
    """The last block's feed-forward network. Its input is the key (Khandelwal et al. 2020, section
    5): the output of the layer norm before it.

    | architecture | network | the norm whose output is the key |
    |---|---|---|
    | GPT-2, GPT-Neo, GPT-BigCode | `transformer.h[-1].mlp` | `ln_2` |
    | GPT-J, CodeGen | `transformer.h[-1].mlp` | `ln_1`, which attention reads too |
    | GPT-NeoX, Pythia | `gpt_neox.layers[-1].mlp` | `post_attention_layernorm` |
    | Llama, Mistral, Qwen | `model.layers[-1].mlp` | `post_attention_layernorm` |
    | Phi | `model.layers[-1].mlp` | `input_layernorm`, which attention reads too |
    | Gemma 2 and 3 | `model.layers[-1].mlp` | `pre_feedforward_layernorm` |
    | BLOOM | `transformer.h[-1].mlp` | `post_attention_layernorm` |
    | MPT | `transformer.blocks[-1].ffn` | `norm_2` |
    | OPT | `model.decoder.layers[-1].fc1` | `final_layer_norm` |
    | OPT-350m (norms after blocks) | `model.decoder.layers[-1].fc1` | `self_attn_layer_norm` |
    | BART's decoder | `model.decoder.layers[-1].fc1` | `self_attn_layer_norm` |
    | BERT's decoder | `bert.encoder.layer[-1].intermediate` | `attention.output.LayerNorm` |

    Any other model works too if its blocks are a list and their network has a name from
    `FEED_FORWARD`.

    Raises
    ------
    InputError: the model has no such block.
    """
    for blocks in model.base_model.modules():
        if isinstance(blocks, nn.ModuleList) and len(blocks):
            for name in FEED_FORWARD:
                if hasattr(blocks[-1], name):
                    return getattr(blocks[-1], name)
    raise InputError(
        f"{type(model).__name__} is not a language model whose feed-forward layers are known; "
        "use a decoder of transformer blocks such as GPT-2, Llama, OPT or BERT"
    )


DISTANCES_ONLY = ("bloom", "mpt", "roformer")
"""Types of models that take no positions: they know only how far apart tokens stand."""


class _KeySeen(Exception):
    """Ends a forward pass at the key: a datastore does not need what comes after it."""


class Continuation:
    """Next-token distributions of growing prefixes after prompts; the attention's keys and values
    are kept between calls.

    Prompts of different lengths are padded on the left and masked; positions count real tokens. A
    model that cannot be told them wants prompts of one length (`LanguageModel.padded`).
    """

    def __init__(self, lm: LanguageModel, prompts: Sequence[Sequence[int]]) -> None:
        self.lm = lm
        longest = max(len(prompt) for prompt in prompts)
        self.ids = torch.tensor([[lm.end] * (longest - len(p)) + list(p) for p in prompts])
        self.mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
        self.cache = DynamicCache()  # of all that was read: where a window slides, the mask knows

    @torch.no_grad()
    def __call__(self, prefixes: Tensor, rows: Tensor, parents: Tensor) -> tuple[Tensor, Tensor]:
        """The keys of the contexts, float32 [R, d], and log p(next token), float32 [R, V].

        Parameters
        ----------
        prefixes: int64 [R, t], a start token, which is not given to the model, and the answer so
            far, one token longer than at the last call.
        rows: int64 [R], the prompt each prefix continues.
        parents: int64 [R], which prefix of the last call each one continues; not used at the first.
        """
        written = prefixes.shape[1] - 1
        mask = torch.cat([self.mask[rows], torch.ones_like(prefixes[:, 1:])], dim=1)
        positions = (mask.cumsum(1) - 1).clamp_min(0) + self.lm.first_position
        if written:
            self.cache.batch_select_indices(parents)
            ids, positions = prefixes[:, -1:], positions[:, -1:]
        else:
            ids = self.ids[rows]
        given: dict[str, Any] = {"position_ids": positions} if self.lm.takes_positions else {}
        keys, log_probs = self.lm.forward(
            ids, mask, last=1, past_key_values=self.cache, use_cache=True, **given
        )
        return keys[:, -1], log_probs[:, -1]


class ContinuationByLength:
    """The same, for a model that cannot be told positions: prompts of each length by themselves."""

    def __init__(self, lm: LanguageModel, prompts: Sequence[Sequence[int]]) -> None:
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        self.parts: list[tuple[Tensor, Continuation]] = []  # numbers of its prompts, ascending
        for length in lengths.unique():
            own = (lengths == length).nonzero()[:, 0]
            self.parts.append((own, Continuation(lm, [prompts[at] for at in own.tolist()])))
        self.places = torch.empty(0, dtype=torch.long)  # of the last call's prefixes in their part

    def __call__(self, prefixes: Tensor, rows: Tensor, parents: Tensor) -> tuple[Tensor, Tensor]:
        """See `Continuation`."""
        order, found, places = [], [], torch.zeros_like(rows)
        for own, part in self.parts:
            at = torch.isin(rows, own).nonzero()[:, 0]
            if not len(at):
                continue
            before = self.places[parents[at]] if len(self.places) else parents[at]
            found.append(part(prefixes[at], torch.searchsorted(own, rows[at]), before))
            places[at] = torch.arange(len(at))
            order.append(at)
        self.places = places
        back = torch.cat(order).argsort()
        keys, log_probs = (torch.cat(parts)[back] for parts in zip(*found, strict=True))
        return keys, log_probs


class LanguageModel:
    """A causal language model with its tokenizer; inference only, float32 results on the CPU.

    The model may be on another device (`lm.model.to("cuda")`): inputs are moved there, and results
    are moved back.

    Parameters
    ----------
    model: any Hugging Face causal language model that `key_module` knows.
    tokenizer: its fast tokenizer.
    name: how tables and datastores name it.
    checked: whether it is known to say the same through a cache as without one; where it is not,
        the first continuation finds out.

    Raises
    ------
    InputError: the model has no feed-forward layer that `key_module` finds.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str, checked: bool = True) -> None:
        self.model, self.tokenizer, self.name = model.eval(), tokenizer, name
        self.start, self.end = tokenizer.cls_token_id, tokenizer.sep_token_id
        if self.start is None:  # GPT-2 and models like it have one token for start and end
            self.end = tokenizer.eos_token_id
            self.start = self.end if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        self.vocab_size: int = model.config.vocab_size
        self.dimension: int = model.config.hidden_size
        self.parameters = sum(p.numel() for p in model.parameters())
        self.first_position = first_position(model)
        self.takes_positions = "position_ids" in inspect.signature(model.forward).parameters
        self.padded = self.takes_positions or model.config.model_type in DISTANCES_ONLY
        self.cut = Cut()
        self._key: Tensor | None = None
        self._only_keys, self._checked = False, checked
        key_module(model).register_forward_pre_hook(self._keep, with_kwargs=True)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the weights: names, types and bytes, in the model's order."""
        digest = hashlib.sha256()
        for name, weight in self.model.named_parameters():
            digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
            digest.update(weight.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    @property
    def precision(self) -> str:
        """The number format of the weights, the least precise one where there are several."""
        return name_of(least_precise(self.model.parameters()))

    def _there(self, tensor: Tensor) -> Tensor:
        """A tensor on the model's device."""
        return tensor.to(next(self.model.parameters()).device)

    def _keep(self, _: nn.Module, arguments: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        self._key = arguments[0] if arguments else next(iter(named.values()))
        if self._only_keys:
            raise _KeySeen

    def _seen(self, ids: Tensor) -> Tensor:
        """The keys of the last forward pass, float32 [N, L, d], for ids [N, L]. (OPT flattens the
        first two dimensions.)"""
        assert self._key is not None
        return self._key.reshape(*ids.shape, -1).float().cpu()

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
        kwargs: passed to the model; without any it keeps no cache.

        Returns
        -------
        (keys float32 [N, L, d], log p(next token) float32 [N, L, V]), L being `last` if given.
        """
        given = {"use_cache": False, "attention_mask": mask, **kwargs}
        logits = self.model(
            input_ids=self._there(ids),
            logits_to_keep=last,
            **{n: self._there(v) if isinstance(v, Tensor) else v for n, v in given.items()},
        ).logits
        return self._seen(ids)[:, -last:], logits[:, -last:].float().log_softmax(-1).cpu()

    def key_continuation(self, questions: Sequence[str]) -> Continuation | ContinuationByLength:
        """The keys and next-token distributions for a beam search over the questions' answers."""
        return self.after([self.prompt_ids(question) for question in questions])

    def after(self, prompts: Sequence[Sequence[int]]) -> Continuation | ContinuationByLength:
        """The same after prompts' token ids, of any lengths.

        Raises
        ------
        InputError: the model cannot be read through a cache; see `ragbook.models.cached`.
        """
        kind = Continuation if self.padded else ContinuationByLength
        if not self._checked:
            asked = ([5, 6, 7, 8], [9, 10])

            def plainly(prefixes: Tensor, rows: Tensor, _: Tensor) -> Tensor:
                whole = [
                    torch.tensor([[*asked[row], *prefix[1:]]])
                    for row, prefix in zip(rows.tolist(), prefixes.tolist(), strict=True)
                ]
                return torch.cat([self.forward(ids, last=1)[1][:, -1] for ids in whole])

            def begin() -> Steps:
                following = kind(self, asked)
                return lambda *given: following(*given)[1]

            check_steps(self.name, self.start, self.model.dtype, begin, plainly)
            self._checked = True
        return kind(self, prompts)

    def answer_ids(self, text: str) -> list[int]:
        """An answer's token ids as they follow the prompt, the end token last."""
        return [
            *self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"],
            self.end,
        ]

    def runs(self, text: str) -> list[tuple[list[int], list[bool], list[bool]]]:
        """Every run of whole words of a text, as an answer's tokens; see `word_runs`."""
        return word_runs(self.tokenizer, text)

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

    def texts(self, passages: Sequence[Passage]) -> list[list[int]]:
        """Passages as a memory reads them, whole: start, title and text, end."""
        if not passages:  # tokenizers refuse an empty list
            return []
        ids = self.tokenizer(
            [passage_text(p) for p in passages], add_special_tokens=False, verbose=False
        )["input_ids"]
        return [[self.start, *one, self.end] for one in ids]

    @property
    def positions(self) -> int | None:
        """How many tokens the model reads at once at the most; None if its config says nothing."""
        config = self.model.config
        names = ("max_position_embeddings", "max_seq_len")
        places = [getattr(config, name) for name in names if getattr(config, name, None)]
        return min((place - self.first_position for place in places), default=None)

    @property
    def longest_answer(self) -> int | None:
        """The most tokens of an answer, its end included, after the longest question; None without
        a limit."""
        return None if self.positions is None else self.positions - MAX_QUESTION - 1

    @property
    def window(self) -> int:
        """How many tokens of a memory's text are read at a time: WINDOW, or the model's number of
        positions if that is smaller."""
        return WINDOW if self.positions is None else min(WINDOW, self.positions)

    def windows(self, ids: Sequence[int]) -> list[tuple[list[int], int]]:
        """Cut a text into windows that together give every token one key.

        Returns
        -------
        For each window its token ids, and how many tokens at its beginning get no key: each window
        but the first begins with the start token and repeats the last tokens of the one before.
        """
        repeated = min(OVERLAP, self.window // 2)
        out = [(list(ids[: self.window]), 0)]
        step = self.window - repeated - 1
        for at in range(self.window, len(ids), step):
            out.append(([self.start, *ids[at - repeated : at + step]], repeated + 1))
        return out

    @torch.no_grad()
    def keys(self, texts: Sequence[Sequence[int]]) -> list[Tensor]:
        """The key of every token of every text, float32 [T, d] each.

        Windows of similar length are read together, at most BATCH_TOKENS tokens at a time, and the
        forward pass ends at the key. Padding is on the right, where a causal model does not look.
        """
        cut = [(number, *w) for number, ids in enumerate(texts) for w in self.windows(ids)]
        found: list[Tensor] = [torch.empty(0)] * len(cut)
        order = sorted(range(len(cut)), key=lambda at: (len(cut[at][1]), at), reverse=True)
        while order:
            size = max(1, BATCH_TOKENS // len(cut[order[0]][1]))
            batch, order = order[:size], order[size:]
            rows = [torch.tensor(cut[at][1]) for at in batch]
            ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self.end)
            self._only_keys = True
            try:
                self.model.base_model(input_ids=self._there(ids), use_cache=False)
            except _KeySeen:
                pass
            finally:
                self._only_keys = False
            keys = self._seen(ids)
            for row, at in enumerate(batch):
                found[at] = keys[row, cut[at][2] : len(cut[at][1])]
        parts: list[list[Tensor]] = [[] for _ in texts]
        for (number, _, _), keys in zip(cut, found, strict=True):
            parts[number].append(keys)
        return [torch.cat(part) for part in parts]

    def key_values(self, passages: Sequence[Passage]) -> list[tuple[Tensor, Tensor]]:
        """The (key, next token) pairs of each passage: (float32 [T, d], int64 [T]).

        A key's context is its own passage from the start or, in a long passage, its window.
        """
        texts = self.texts(passages)
        keys = self.keys([ids[:-1] for ids in texts])
        return [(key, torch.tensor(ids[1:])) for key, ids in zip(keys, texts, strict=True)]
