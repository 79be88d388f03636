"""Sequence-to-sequence readers: question and passage in, answer out.

`SeqReader` wraps any Hugging Face encoder-decoder (BART, T5, BERT-to-BERT). The bundled one has the
embedded encoder's own weights as its encoder, fine-tuned in its upper layers, and a small decoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from ragbook.corpus import Passage, Question
from ragbook.errors import InputError
from ragbook.models.answers import detokenize, word_runs
from ragbook.models.attention import recorded_scores, share_cross_attention
from ragbook.models.limits import Cut, first_position
from ragbook.models.pairs import PairEncoder
from ragbook.models.prompts import MAX_QUESTION, Layout, pair, together, widened
from ragbook.models.seq_memory import Continuation, SeqMemory

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
        for question, found, one in zip(questions, passages, shown, strict=True):
            self.cut.note_unread(question.text, len(found) - len(one.numbers))
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
