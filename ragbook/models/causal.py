"""Decoder-only generators: any Hugging Face causal model behind every generative method.

A prompt is: what stands before everything (start token, instruction, demonstrations), passages, the
question, and what the answer follows. Every passage stands at the same places, right after the
beginning, so its keys and values depend on neither the question nor the other passages: they are
computed once a passage, and kept for other questions and methods. From them

* each passage by itself gives the rows of RAG-Sequence and RAG-Token;
* laid end to end they are Fusion-in-Decoder's idea without a cross-attention: question and answer
  attend to all passages, none of which attends to another (parallel context windows). The question
  stands after the longest passage, wherever that is, so the passages' order changes nothing;
* the states that kNN-LM stores are those of the same reading.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from ragbook.corpus import Passage, Question
from ragbook.errors import InputError
from ragbook.models.answers import detokenize, following, word_runs
from ragbook.models.cached import check_steps
from ragbook.models.causal_memory import (
    BATCH_TOKENS,
    CausalContinuation,
    CausalMemory,
    PassageStates,
    Rows,
    Shown,
    cache_of,
)
from ragbook.models.lm import LanguageModel
from ragbook.models.prompts import shorten
from ragbook.models.templates import TEMPLATES, Demonstration, Template, chat_parts, fill

BUDGET = 2**30
"""Bytes of passages' keys and values that are kept between calls, if nobody says otherwise."""

MAX_CONTEXT = 4096
"""Most tokens of a prompt that holds several passages."""


class CausalReader(LanguageModel):
    """A causal language model as a generator, and as kNN-LM's model; float32 results on the CPU.

    Parameters
    ----------
    model: any Hugging Face causal model whose positions are given to it (learnt or rotary).
    tokenizer: its fast tokenizer.
    name: what tables call it.
    template: the prompt; by default `chat` where the tokenizer has a chat template, else `base`.
    demonstrations: answered questions that stand in every prompt; those of a prompt without
        passages are shown without theirs.
    budget: bytes of passages' keys and values that are kept; the least recently used leave first.

    Raises
    ------
    InputError: the model's positions cannot be given to it, it keeps other states than keys and
        values, or the template does not fit the tokenizer.
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
        self.template = template or TEMPLATES["chat" if chat else "base"]
        self.demonstrations, self.budget = tuple(demonstrations), budget
        opening, reply, self._again = (
            chat_parts(tokenizer, self.template) if self.template.chat else ("", "", "")
        )
        self._opening = opening + self.template.instruction
        self.cue = self.template.answer + reply
        if not self.cue:
            raise InputError("the prompt's `answer` is empty: an answer must follow some text")
        self.end = self._end()
        self.start = following(tokenizer, "\n", self.cue)[-1]
        self._kept: OrderedDict[tuple[int, ...], PassageStates] = OrderedDict()
        self._reused = 0.0
        self._check()

    def _end(self) -> int:
        """The token that closes an answer: the template's, or the model's own."""
        if self.template.end:
            ids = following(self.tokenizer, self.cue + self.template.space + "x", self.template.end)
            if len(ids) == 1 and ids[0] != self.tokenizer.unk_token_id:
                return ids[0]
        end = self.end  # the tokenizer's
        if end is None:
            end = getattr(self.model.generation_config, "eos_token_id", None)
            end = end[0] if isinstance(end, list) else end
        if end is None or end >= self.vocab_size:
            raise InputError(
                f"{self.name} has no end token, and its tokenizer none for the prompt's `end`; "
                "name a prompt whose `end` is one token"
            )
        return int(end)

    def _check(self) -> None:
        """Refuse what cannot be read piece by piece, before an hour is lost on it."""
        kind = self.model.config.model_type
        if not self.takes_positions:
            raise InputError(
                f"{self.name} ({kind}) has no positions that can be given to it; name a model with "
                "learnt or rotary positions"
            )
        try:
            layers = self.beginning.layers
        except (TypeError, ValueError, AttributeError, IndexError, KeyError) as error:
            raise InputError(
                f"{self.name} ({kind}) cannot go on from keys and values; name a transformer of "
                "attention layers only"
            ) from error
        if any(k.ndim != 3 for k, _ in layers):
            raise InputError(f"{self.name} ({kind}) keeps other states than keys and values")

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
        """Where the model is."""
        return next(self.model.parameters()).device

    @property
    def places(self) -> int:
        """Tokens that a prompt and its answer may have."""
        return min(getattr(self.model.config, "max_position_embeddings", MAX_CONTEXT), MAX_CONTEXT)

    # What is read.

    @cached_property
    @torch.no_grad()
    def beginning(self) -> PassageStates:
        """What stands before everything: start token, instruction and demonstrations."""
        return self._read_beginning(True)

    @cached_property
    @torch.no_grad()
    def bare_beginning(self) -> PassageStates:
        """The same of a prompt without passages."""
        if any(one.passage for one in self.demonstrations):
            return self._read_beginning(False)
        return self.beginning

    def _read_beginning(self, passages: bool) -> PassageStates:
        text, template = self._opening, self.template
        for one in self.demonstrations:
            if one.passage is not None and passages:
                text += fill(template.passage, title=one.passage.title, text=one.passage.text)
            text += fill(template.question, question=one.question) + self.cue
            text += template.space + one.answer + (self._again or template.end or "\n")
        before = self.tokenizer("")["input_ids"]  # start tokens, and perhaps end tokens
        last = self.tokenizer.eos_token_id
        before = before[: before.index(last)] if last in before else before
        ids = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        if ids[: len(before)] != before:  # a chat template may write its own
            ids = [*before, *ids]
        if not ids:  # a model that is never shown a start token
            config = self.model.config
            heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
            size = getattr(config, "head_dim", None)
            size = size or config.hidden_size // config.num_attention_heads
            nothing = torch.zeros(
                heads, 0, size, device=self.device, dtype=next(self.model.parameters()).dtype
            )
            layers = [(nothing, nothing)] * config.num_hidden_layers
            return PassageStates((), layers, torch.zeros(0, self.dimension), 0.0)
        return self._states([ids], None)[0]

    def _states(
        self, pieces: Sequence[Sequence[int]], beginning: PassageStates | None
    ) -> list[PassageStates]:
        """Read pieces of a prompt, each by itself after the beginning, in one batch."""
        began = time.perf_counter()
        first = len(beginning.ids) if beginning else 0
        rows = [torch.tensor(ids, dtype=torch.long) for ids in pieces]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self.end)
        N, length = ids.shape
        cache = DynamicCache()
        if beginning and first:
            cache = cache_of(
                [(k.expand(N, *k.shape), v.expand(N, *v.shape)) for k, v in beginning.layers]
            )
        positions = torch.arange(first + length).expand(N, -1)
        lengths = torch.tensor([len(one) for one in pieces])
        real = torch.arange(first + length) < first + lengths[:, None]
        self.run(ids, cache, positions, real, logits=0)
        keys = self._seen(ids)
        seconds = (time.perf_counter() - began) / N
        out = []
        for at, piece in enumerate(pieces):
            own = slice(first, first + len(piece))
            layers = [
                (layer.keys[at, :, own].clone(), layer.values[at, :, own].clone())
                for layer in cache.layers
            ]
            out.append(PassageStates(tuple(piece), layers, keys[at, : len(piece)].clone(), seconds))
        return out

    def run(
        self, ids: Tensor, cache: DynamicCache, positions: Tensor, real: Tensor, logits: int
    ) -> Tensor:
        """The model over new tokens that follow those of a cache, which then holds both.

        Parameters
        ----------
        ids: int64 [R, t].
        cache: keys and values of P tokens a row.
        positions, real: int64 and bool [R, P + t], of the cache's tokens and the new ones. A token
            attends to the real ones that stand before it in its row, and to itself.
        logits: how many of the last places' logits are wanted.

        Returns
        -------
        [R, logits or 1, V].
        """
        device, t, P = self.device, ids.shape[1], real.shape[1] - ids.shape[1]
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
            position_ids=(positions[:, P:] + self.first_position).to(device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=max(1, logits),
        ).logits

    def _additive(self, allowed: Tensor) -> Tensor:
        """A mask [R, 1, t, L] that is added to scores."""
        dtype = next(self.model.parameters()).dtype
        mask = torch.zeros(allowed.shape, dtype=dtype)
        return mask.masked_fill(~allowed, torch.finfo(dtype).min)[:, None].to(self.device)

    @property
    def _window(self) -> int | None:
        """Tokens that a layer of sliding attention looks back at, if the model has any."""
        config = self.model.config
        kinds = getattr(config, "layer_types", None)
        if kinds is not None:
            return config.sliding_window if _SLIDING in kinds else None
        return getattr(config, "sliding_window", None)

    def _pieces(self, wanted: Sequence[tuple[int, ...]]) -> dict[tuple[int, ...], PassageStates]:
        """The states of pieces of a prompt, read now or kept from before."""
        found: dict[tuple[int, ...], PassageStates] = {}
        for ids in wanted:
            if ids in self._kept and ids not in found:
                self._kept.move_to_end(ids)
                found[ids] = self._kept[ids]
                self._reused += found[ids].seconds
        new = sorted((ids for ids in dict.fromkeys(wanted) if ids not in found), key=len)
        while new:
            size = max(1, BATCH_TOKENS // len(new[-1]))
            batch, new = new[-size:], new[:-size]
            with torch.no_grad():
                read = self._states(batch, self.beginning)
            found.update(zip(batch, read, strict=True))
            self._kept.update(zip(batch, read, strict=True))
        total = sum(states.nbytes for states in self._kept.values())
        while self._kept and total > self.budget:
            total -= self._kept.popitem(last=False)[1].nbytes
        return found

    def _passage(self, passage: Passage) -> tuple[int, ...]:
        """A passage's tokens: its text is cut where it is too long, what closes it stays."""
        text = fill(self.template.passage, title=passage.title, text=passage.text)
        body = text.rstrip()
        ids = following(self.tokenizer, "\n", body)[: self.template.max_passage]
        return (*ids, *following(self.tokenizer, body, text[len(body) :]))

    def _asked(self, question: str) -> list[int]:
        """A question's tokens, up to the last one before its answer."""
        short = shorten(self.tokenizer, question, self.template.max_question)
        text = fill(self.template.question, question=short)
        return following(self.tokenizer, "\n", text + self.cue)[:-1]

    def read(
        self, questions: Sequence[Question], passages: Sequence[Sequence[Passage]] | None = None
    ) -> CausalMemory:
        """Read each passage by itself, once; see `ragbook.models.generator.Generator.read`."""
        asked = [self._asked(question.text) for question in questions]
        if passages is None:
            return CausalMemory(self, asked, [[] for _ in questions], 1, self.bare_beginning)
        n = max(len(found) for found in passages)
        ids = [[self._passage(passage) for passage in found] for found in passages]
        states = self._pieces([one for row in ids for one in row])
        shown = [
            [Shown(states[row[z]], (0,) * len(row[z]))] if z < len(row) else []
            for row in ids
            for z in range(n)
        ]
        return CausalMemory(self, asked, shown, n, self.beginning)

    def read_together(
        self, questions: Sequence[Question], passages: Sequence[Sequence[Passage]]
    ) -> CausalMemory:
        """Read each question's passages as one text, the best last; see
        `ragbook.models.generator.Generator.read_together`."""
        asked = [self._asked(question.text) for question in questions]
        room = self.places - len(self.beginning.ids) - max(map(len, asked)) - ANSWER
        rows: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
        for found in passages:
            ids: tuple[int, ...] = ()
            owner: tuple[int, ...] = ()
            for z, passage in enumerate(found):
                own = self._passage(passage)
                if ids and len(ids) + len(own) > room:
                    break
                ids, owner = (*own, *ids), (*((z,) * len(own)), *owner)
            rows.append((ids, owner))
        states = self._pieces([ids for ids, _ in rows])
        shown = [[Shown(states[ids], owner)] for ids, owner in rows]
        n = max(len(found) for found in passages)
        return CausalMemory(self, asked, shown, n, self.beginning)

    # What is written.

    def continuation(self, memory: CausalMemory) -> CausalContinuation:
        """What a beam search over answers from this memory asks for the next token."""
        return CausalContinuation(self, memory)

    @torch.no_grad()
    def token_log_probs(
        self, memory: CausalMemory, labels: Tensor, rows: Tensor | None = None, chunk: int = 32
    ) -> Tensor:
        """log p(y_t | what was read, y_<t), float32 [N, T], 0 on padding; see
        `ragbook.models.generator.Generator.token_log_probs`. `chunk` labels are read at a time."""
        rows = torch.arange(len(labels)) if rows is None else rows
        read, out = memory.rows, torch.zeros(labels.shape)
        order = torch.argsort((labels != -100).sum(1), stable=True)
        for part in order.split(chunk):
            length = int((labels[part] != -100).sum(1).max())
            logits = self._teacher_forced(read, labels[part, :length], rows[part], length)
            target = labels[part, :length].clamp_min(0).to(logits.device)
            chosen = logits.float().log_softmax(-1).gather(-1, target[:, :, None])
            out[part, :length] = chosen.squeeze(-1).cpu()
        return out.masked_fill(labels == -100, 0.0)

    def _teacher_forced(self, read: Rows, labels: Tensor, rows: Tensor, logits: int) -> Tensor:
        """The logits under which the model predicts labels [N, T], [N, T, V]."""
        start = torch.full_like(labels[:, :1], self.start)
        inputs = torch.cat([start, labels[:, :-1]], 1)
        written = read.after[rows, None] + torch.arange(inputs.shape[1])
        return self.run(
            inputs.masked_fill(inputs == -100, self.end),
            cache_of([(k[rows], v[rows]) for k, v in read.layers]),
            torch.cat([read.positions[rows], written], 1),
            torch.cat([read.real[rows], torch.ones_like(written, dtype=torch.bool)], 1),
            logits,
        )

    @torch.no_grad()
    def last_attention(self, memory: CausalMemory, labels: Tensor) -> Tensor:
        """The last layer's attention while answers are written, heads and tokens averaged.

        Parameters
        ----------
        memory: of N rows.
        labels: int64 [N, T], the end token last; it points nowhere and is left out.

        Returns
        -------
        float32 [N, L], over the tokens of `memory.rows`.
        """
        seen: list[Tensor] = []
        usual = self.model.config._attn_implementation
        self.model.set_attn_implementation("eager")  # the others do not say their weights
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
        """An answer's token ids as they stand after the prompt, the end token last."""
        return [*following(self.tokenizer, self.cue, self.template.space + text), self.end]

    def runs(self, text: str) -> list[tuple[list[int], list[bool], list[bool]]]:
        """Every run of whole words of a text as an answer's tokens; see `word_runs`."""
        return word_runs(self.tokenizer, text, self.cue + self.template.space)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of an answer's tokens, special ones left out."""
        return detokenize(self.tokenizer, tokens)

    def clock(self) -> float:
        """Seconds, to be subtracted from each other: what passages took that were read before is
        counted again, as each method would have had to read them alone."""
        return time.perf_counter() + self._reused

    # What kNN-LM asks of a language model.

    def prompt_ids(self, question: str) -> list[int]:
        """The whole prompt of a question without passages, up to its answer."""
        return [*self.bare_beginning.ids, *self._asked(question), self.start]

    def key_values(self, passages: Sequence[Passage]) -> list[tuple[Tensor, Tensor]]:
        """The (key, next token) pairs of each passage, (float32 [T, d], int64 [T]), of the one
        reading that all methods share; a key's context is the beginning and its own passage."""
        ids = [self._passage(passage) for passage in passages]
        states = self._pieces(ids)
        return [(states[one].keys[:-1], torch.tensor(one[1:], dtype=torch.long)) for one in ids]


ANSWER = 64
"""Tokens that a prompt of several passages leaves to the answer."""

_SLIDING = "sliding_attention"


def _last_attention(model: Any) -> Any:
    """The self-attention module of the last block."""
    found = None
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in ("attn", "self_attn", "attention", "self_attention", "self"):
            found = module
    if found is None:
        raise InputError(f"{type(model).__name__} has no attention layer that is known here")
    return found
