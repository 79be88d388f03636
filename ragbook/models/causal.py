"""Decoder-only generators: any Hugging Face causal model behind every generative method.

A prompt is: the beginning (start token, instruction, demonstrations), the passages, the question,
and the text that the answer follows. Every passage has the same positions, right after the
beginning, so its keys and values depend on neither the question nor the other passages: they are
computed once for each passage, and kept for other questions and methods. They are used in three
ways:

* each passage by itself, with the question after it, gives the rows of RAG-Sequence and RAG-Token;
* the same rows laid end to end give Fusion-in-Decoder without a cross-attention: the answer attends
  to all passages, and no passage attends to another. Where positions are rotary, the keys are moved
  so that the passages are one after the other, the best last (Block-Attention, Ma et al. 2025);
  otherwise all keep their positions, and the order of the passages does not matter (parallel
  context windows, Ratner et al. 2023);
* the states that kNN-LM stores come from the same forward pass.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from ragbook.corpus import Passage, Question
from ragbook.errors import InputError
from ragbook.models.answers import detokenize
from ragbook.models.cached import check_steps
from ragbook.models.causal_memory import ANSWER, CausalContinuation, CausalMemory, Rows, Shown
from ragbook.models.causal_prompt import CausalPrompt
from ragbook.models.causal_states import (
    KeptStates,
    PassageStates,
    Piece,
    cache_after,
    cache_of,
    layers_of,
)
from ragbook.models.lm import LanguageModel
from ragbook.models.rotary import Rotation, rotation_of
from ragbook.models.split_attention import Read, can_split, reading
from ragbook.models.templates import TEMPLATES, Demonstration, Template

BUDGET = 2**30
"""The default for the bytes of passages' keys and values that are kept between calls."""

MAX_CONTEXT = 4096
"""The most tokens of a prompt in which passages see each other."""

_SLIDING = "sliding_attention"


class CausalReader(LanguageModel):
    """A causal language model as a generator, and as kNN-LM's model; float32 results on the CPU.

    Parameters
    ----------
    model: any Hugging Face causal model that takes positions as an input (learned or rotary).
    tokenizer: its fast tokenizer.
    name: how tables name it.
    template: the prompt; by default `chat` if the tokenizer has a chat template, else `base`.
    demonstrations: answered questions in every prompt; in a prompt without passages they are shown
        without their own.
    budget: bytes of passages' keys and values that are kept; the least recently used are dropped
        first.

    Raises
    ------
    InputError: the model takes no positions, it keeps other states than keys and values, or the
        template does not fit the tokenizer.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        name: str,
        template: Template | None = None,
        demonstrations: Sequence[Demonstration] = (),
        budget: int = BUDGET,
    ) -> None:
        super().__init__(model, tokenizer, name)
        chat = bool(getattr(tokenizer, "chat_template", None))
        template = template or TEMPLATES["chat" if chat else "base"]
        self.prompt = CausalPrompt(tokenizer, template, demonstrations, self._own_end())
        self.start, self.end = self.prompt.start, self.prompt.end
        self.kept = KeptStates(self, budget)
        self.splits = can_split(model)
        self._check()
        self.rotation: Rotation | None = rotation_of(model)

    def _own_end(self) -> int | None:
        """The end token of the tokenizer, or of the model's configuration."""
        end = self.end
        if end is None:
            end = getattr(self.model.generation_config, "eos_token_id", None)
            end = end[0] if isinstance(end, list) else end
        if not isinstance(end, int) or not 0 <= end < self.vocab_size:
            return None
        return end

    def _check(self) -> None:
        """Refuse a model that cannot read a prompt piece by piece, before a long run begins."""
        kind = self.model.config.model_type
        if not self.takes_positions:
            raise InputError(
                f"{self.name} ({kind}) does not take positions as an input; name a model with "
                "learned or rotary positions"
            )
        try:
            layers = self.beginning.layers
        except (TypeError, ValueError, AttributeError, IndexError, KeyError) as error:
            raise InputError(
                f"{self.name} ({kind}) cannot continue from keys and values; name a transformer "
                "that has only attention layers"
            ) from error
        if any(k.ndim != 3 for k, _ in layers):
            raise InputError(
                f"{self.name} ({kind}) keeps other states than keys and values; name a transformer "
                "that has only attention layers"
            )

    def check(self) -> None:
        """Whether the model says through its cache what it says in one plain pass.

        Raises
        ------
        InputError: it does not; see `ragbook.models.cached`.
        """
        asked = ([5, 6, 7, 8], [9, 10])
        before = [*self.beginning.ids]

        def plainly(prefixes: Tensor, rows: Tensor, _: Tensor) -> Tensor:
            whole = [
                torch.tensor([[*before, *asked[row], *prefix]])
                for row, prefix in zip(rows.tolist(), prefixes.tolist(), strict=True)
            ]
            return torch.cat([self.forward(ids, last=1)[1][:, -1] for ids in whole])

        check_steps(
            self.name,
            self.start,
            self.model.dtype,
            lambda: self.continuation(CausalMemory(self, asked, [[], []], 1, self.beginning)),
            plainly,
        )

    @property
    def device(self) -> torch.device:
        """The device that the model is on."""
        return next(self.model.parameters()).device

    @property
    def places(self) -> int:
        """The most tokens of a prompt and its answer."""
        return min(self.positions or MAX_CONTEXT, MAX_CONTEXT)

    @property
    def longest_answer(self) -> None:
        """None: it depends on the prompt, and what does not fit is refused there."""
        return

    # What is read.

    @cached_property
    @torch.no_grad()
    def beginning(self) -> PassageStates:
        """The beginning of every prompt: start token, instruction and demonstrations."""
        return self._read_beginning(True)

    @cached_property
    @torch.no_grad()
    def bare_beginning(self) -> PassageStates:
        """The same for a prompt without passages."""
        if any(one.passage for one in self.prompt.demonstrations):
            return self._read_beginning(False)
        return self.beginning

    def _read_beginning(self, passages: bool) -> PassageStates:
        ids = self.prompt.beginning(passages)
        if ids:
            return self._states([tuple(ids)], [[]])[0]
        config = self.model.config  # a model without a start token, in a prompt without words
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        size = getattr(config, "head_dim", None)
        size = size or config.hidden_size // config.num_attention_heads
        nothing = torch.zeros(heads, 0, size, device=self.device, dtype=self.model.dtype)
        layers = [(nothing, nothing)] * config.num_hidden_layers
        return PassageStates((), layers, torch.zeros(0, self.dimension), 0.0)

    @torch.no_grad()
    def states(
        self, pieces: Sequence[Piece], before: Sequence[Sequence[PassageStates]]
    ) -> list[PassageStates]:
        """Read pieces of prompts in one batch, each after the beginning and those given for it."""
        return self._states(pieces, [[self.beginning, *row] for row in before])

    def _states(
        self, pieces: Sequence[Piece], before: Sequence[Sequence[PassageStates]]
    ) -> list[PassageStates]:
        began = time.perf_counter()
        rows = [torch.tensor(ids, dtype=torch.long) for ids in pieces]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self.end)
        cache, seen = cache_after(before)
        P, new = int(seen.max()), torch.arange(ids.shape[1])
        positions = torch.cat([torch.arange(P).expand(len(ids), -1), seen[:, None] + new], 1)
        lengths = torch.tensor([len(one) for one in pieces])
        real = torch.cat([torch.arange(P) < seen[:, None], new < lengths[:, None]], 1)
        self.run(ids, cache, positions, real, logits=0)
        keys = self._seen(ids)
        seconds = (time.perf_counter() - began) / len(ids)
        out = []
        for at, piece in enumerate(pieces):
            own = slice(P, P + len(piece))
            layers = [(k[at, :, own].clone(), v[at, :, own].clone()) for k, v in layers_of(cache)]
            out.append(PassageStates(piece, layers, keys[at, : len(piece)].clone(), seconds))
        return out

    def run(
        self, ids: Tensor, cache: DynamicCache, positions: Tensor, real: Tensor, logits: int
    ) -> Tensor:
        """Run the model on new tokens that follow those of a cache, which then holds both.

        Parameters
        ----------
        ids: int64 [R, t].
        cache: keys and values of P tokens in each row.
        positions, real: int64 and bool [R, P + t], for the cache's tokens and the new ones. A token
            attends to itself and to the real ones before it in its row.
        logits: for how many of the last tokens logits are computed, at least 1.

        Returns
        -------
        [R, logits or 1, V].

        Raises
        ------
        InputError: a real token's position is beyond the last one that the model has.
        """
        device, t, P = self.device, ids.shape[1], real.shape[1] - ids.shape[1]
        new = positions[:, P:]
        if self.positions is not None:
            longest = int((new * real[:, P:]).max()) + 1
            if longest > self.positions:
                raise InputError(
                    f"a prompt of {longest} tokens is longer than the {self.positions} that "
                    f"{self.name} can read; show fewer demonstrations or shorter passages"
                )
            new = new.clamp_max(self.positions - 1)  # padding
        order = torch.arange(P + t)
        allowed = real[:, None, :] & (order <= order[P:, None])
        allowed |= order == order[P:, None]
        mask: Any = self._additive(allowed)
        window = self._window
        if window is not None:
            near = positions[:, P:, None] - positions[:, None, :] < window
            sliding = self._additive(allowed & near)
            kinds = getattr(self.model.config, "layer_types", None)
            mask = sliding if kinds is None else {"full_attention": mask, _SLIDING: sliding}
        return self.model(
            input_ids=ids.to(device),
            attention_mask=mask,
            position_ids=(new + self.first_position).to(device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=max(1, logits),
        ).logits

    def run_after(
        self,
        read: Read,
        ids: Tensor,
        positions: Tensor,
        real: Tensor,
        logits: int,
        written: DynamicCache | None = None,
    ) -> tuple[Tensor, DynamicCache]:
        """Run the model on new tokens that follow what was read, and what `written` holds.

        The arguments and the logits are as in `run`, with the tokens that were read first. What
        was read is not copied where the model lets it; see `ragbook.models.split_attention`.

        Returns
        -------
        (logits, a cache for the next call).
        """
        nothing = read.layers[0][0].shape[2] == 0
        split = self.splits and not nothing and self.model.config._attn_implementation != "eager"
        if written is None:
            written = DynamicCache()
            if not split:
                written = cache_of([(k[read.rows], v[read.rows]) for k, v in read.layers])
        with reading(self.model, read if split else None):
            return self.run(ids, written, positions, real, logits), written

    def _additive(self, allowed: Tensor) -> Tensor:
        """The additive mask [R, 1, t, L] for bool `allowed` [R, t, L]."""
        dtype = next(self.model.parameters()).dtype
        mask = torch.zeros(allowed.shape, dtype=dtype)
        return mask.masked_fill(~allowed, torch.finfo(dtype).min)[:, None].to(self.device)

    @property
    def _window(self) -> int | None:
        """How many tokens a layer with sliding attention looks back; None without such layers."""
        config = self.model.config
        kinds = getattr(config, "layer_types", None)
        if kinds is not None:
            return config.sliding_window if _SLIDING in kinds else None
        return getattr(config, "sliding_window", None)

    def read(
        self, questions: Sequence[Question], passages: Sequence[Sequence[Passage]] | None = None
    ) -> CausalMemory:
        """Read each passage by itself, once; see `ragbook.models.generator.Generator.read`."""
        asked = [self.prompt.question(question.text) for question in questions]
        if passages is None:
            return CausalMemory(self, asked, [[] for _ in questions], 1, self.bare_beginning)
        n = max(len(found) for found in passages)
        ids = [[self._passage(passage) for passage in found] for found in passages]
        states = self.kept.alone([one for row in ids for one in row])
        shown = [
            [Shown(states[row[z]], (0,) * len(row[z]))] if z < len(row) else []
            for row in ids
            for z in range(n)
        ]
        return CausalMemory(self, asked, shown, n, self.beginning)

    def _passage(self, passage: Passage) -> Piece:
        """A passage's tokens in a prompt; if it is too long for one, this is noted."""
        ids, rest = self.prompt.passage_and_rest(passage)
        if rest:
            self.cut.note(passage.id, self.tokenizer.decode(rest))
        return ids

    def read_together(
        self, questions: Sequence[Question], passages: Sequence[Sequence[Passage]]
    ) -> CausalMemory:
        """Read each question's passages as one text, the best last; see
        `ragbook.models.generator.Generator.read_together`."""
        asked = [self.prompt.question(question.text) for question in questions]
        room = self.places - len(self.beginning.ids) - max(map(len, asked)) - ANSWER
        texts: list[list[Piece]] = []
        owners: list[tuple[int, ...]] = []
        for question, found in zip(questions, passages, strict=True):
            text: list[Piece] = []
            owner: tuple[int, ...] = ()
            for z, passage in enumerate(found):
                own = self._passage(passage)
                if text and len(owner) + len(own) > room:
                    break
                text, owner = [own, *text], ((z,) * len(own) + owner)
            texts.append(text)
            owners.append(owner)
            self.cut.note_unread(question.text, len(found) - len(text))
        read = iter(self.kept.together([text for text in texts if text]))
        shown = [[Shown(next(read), owner)] if owner else [] for owner in owners]
        n = max(len(found) for found in passages)
        return CausalMemory(self, asked, shown, n, self.beginning)

    # What is written.

    def continuation(self, memory: CausalMemory) -> CausalContinuation:
        """The next-token distribution for a beam search over answers from this memory."""
        return CausalContinuation(self, memory)

    @torch.no_grad()
    def token_log_probs(
        self, memory: CausalMemory, labels: Tensor, rows: Tensor | None = None, chunk: int = 32
    ) -> Tensor:
        """log p(y_t | what was read, y_<t), nats, float32 [N, T], 0 on padding; see
        `ragbook.models.generator.Generator.token_log_probs`. `chunk` labels are scored at a time.
        """
        rows = torch.arange(len(labels)) if rows is None else rows
        read, out = memory.rows, torch.zeros(labels.shape)
        if self.positions is not None:
            # Of an answer beyond the last place the beginning is scored; `cut` notes it.
            labels = self.cut.fitting(labels, (self.positions - read.after[rows]).clamp_min(1))
        order = torch.argsort((labels != -100).sum(1), stable=True)
        for part in order.split(chunk):
            length = int((labels[part] != -100).sum(1).max())
            logits = self._teacher_forced(read, labels[part, :length], rows[part], length)
            target = labels[part, :length].clamp_min(0).to(logits.device)
            chosen = logits.float().log_softmax(-1).gather(-1, target[:, :, None])
            out[part, :length] = chosen.squeeze(-1).cpu()
        return out.masked_fill(labels == -100, 0.0)

    def _teacher_forced(self, read: Rows, labels: Tensor, rows: Tensor, logits: int) -> Tensor:
        """The logits [N, T, V] with which the model predicts labels [N, T]."""
        start = torch.full_like(labels[:, :1], self.start)
        inputs = torch.cat([start, labels[:, :-1]], 1)
        written = read.after[rows, None] + torch.arange(inputs.shape[1])
        return self.run_after(
            Read(read.layers, rows),
            inputs.masked_fill(inputs == -100, self.end),
            torch.cat([read.positions[rows], written], 1),
            torch.cat([read.real[rows], torch.ones_like(written, dtype=torch.bool)], 1),
            logits,
        )[0]

    @torch.no_grad()
    def last_attention(self, memory: CausalMemory, labels: Tensor) -> Tensor:
        """The last layer's attention while answers are written, averaged over heads and tokens.

        Parameters
        ----------
        memory: of N rows.
        labels: int64 [N, T], the end token last; it points to no passage and is left out.

        Returns
        -------
        float32 [N, L], over the tokens of `memory.rows`.
        """
        seen: list[Tensor] = []
        usual = self.model.config._attn_implementation
        self.model.set_attn_implementation("eager")  # the others do not return their weights
        module = _last_attention(self.model)
        hook = module.register_forward_hook(lambda _, __, out: seen.append(out[1]))
        try:
            self._teacher_forced(memory.rows, labels, torch.arange(len(labels)), 1)
        finally:
            hook.remove()
            self.model.set_attn_implementation(usual)
        weights = seen[-1].float().mean(1)[:, :, : memory.rows.real.shape[1]]  # [N, T, L]
        valid = (labels != -100).float()
        valid[torch.arange(len(labels)), valid.sum(1).long() - 1] = 0.0
        valid[:, 0] = 1.0
        valid = valid.to(weights.device)
        return (weights * valid[:, :, None]).sum(1) / valid.sum(1, keepdim=True)

    def answer_ids(self, text: str) -> list[int]:
        """An answer's token ids as they follow the prompt, the end token last."""
        return self.prompt.answer(text)

    def runs(self, text: str) -> list[tuple[list[int], list[bool], list[bool]]]:
        """Every run of whole words of a text, as an answer's tokens; see `word_runs`."""
        return self.prompt.runs(text)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of an answer's tokens, without special tokens."""
        return detokenize(self.tokenizer, tokens)

    def forget(self) -> None:
        """Drop the kept passages, so that the next call reads all that it is given."""
        self.kept.forget()

    def clock(self) -> float:
        """A time in seconds, which counts the time to read a passage again when its states are
        reused, so that methods' times stay comparable; only differences have a meaning."""
        return time.perf_counter() + self.kept.reused

    # What kNN-LM asks of a language model.

    def prompt_ids(self, question: str) -> list[int]:
        """The token ids of a question's whole prompt without passages, up to its answer."""
        return [*self.bare_beginning.ids, *self.prompt.question(question), self.start]

    def key_values(self, passages: Sequence[Passage]) -> list[tuple[Tensor, Tensor]]:
        """The (key, next token) pairs of each passage, (float32 [T, d], int64 [T]), from the
        forward pass that all methods share; a key's context is the beginning and its own passage.
        """
        ids = [self._passage(passage) for passage in passages]
        states = self.kept.alone(ids)
        return [(states[one].keys[:-1], torch.tensor(one[1:], dtype=torch.long)) for one in ids]


def _last_attention(model: Any) -> Any:
    """The self-attention module of the last block."""
    found = None
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in ("attn", "self_attn", "attention", "self_attention", "self"):
            found = module
    if found is None:
        raise InputError(f"{type(model).__name__} has no attention layer that is known here")
    return found
