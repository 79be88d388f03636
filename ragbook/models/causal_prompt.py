"""The tokens of a decoder-only model's prompt, piece by piece; see `ragbook.models.causal`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ragbook.corpus import Passage
from ragbook.errors import InputError
from ragbook.models.answers import following, word_runs
from ragbook.models.prompts import shorten
from ragbook.models.templates import Demonstration, Template, chat_parts, fill


class CausalPrompt:
    """A template in a tokenizer's tokens.

    Pieces are tokenised as they stand after the piece before, so that prompt and answer are one
    token sequence. What an answer follows is the same for every question; its last token is
    `start`, with which the first token of an answer is predicted.

    Parameters
    ----------
    tokenizer: a fast tokenizer.
    template: the texts.
    demonstrations: answered questions in every prompt.
    end: the model's own end token, which closes answers if the template names no other; None if it
        has none.

    Attributes
    ----------
    cue: the text that every answer follows.
    start, end: the last token before an answer, and the token that closes it.

    Raises
    ------
    InputError: the template's `answer` is empty, no token can close an answer, or the tokenizer has
        no chat template for a template that needs one.
    """

    def __init__(
        self,
        tokenizer: Any,
        template: Template,
        demonstrations: Sequence[Demonstration] = (),
        end: int | None = None,
    ) -> None:
        self.tokenizer, self.template = tokenizer, template
        self.demonstrations = tuple(demonstrations)
        opening, reply, self._again = (
            chat_parts(tokenizer, template) if template.chat else ("", "", template.end or "\n")
        )
        self._opening = opening + template.instruction
        self.cue = template.answer + reply
        if not self.cue:
            raise InputError("the prompt's `answer` is empty; give it the text before an answer")
        self.start = following(tokenizer, "\n", self.cue)[-1]
        self.end = self._end(end)

    def _end(self, own: int | None) -> int:
        template = self.template
        if template.end:
            ids = following(self.tokenizer, self.cue + template.space + "x", template.end)
            if len(ids) == 1 and ids[0] != self.tokenizer.unk_token_id:
                return ids[0]
        if own is None:
            raise InputError(
                f"{self.tokenizer.name_or_path} has no end token, and the prompt's `end` is not "
                "one of its tokens; choose a prompt whose `end` is one token"
            )
        return own

    def beginning(self, passages: bool) -> list[int]:
        """Start token, instruction and demonstrations, with or without the demonstrations' own
        passages."""
        text, template = self._opening, self.template
        for one in self.demonstrations:
            if one.passage is not None and passages:
                text += fill(template.passage, title=one.passage.title, text=one.passage.text)
            text += fill(template.question, question=one.question) + self.cue
            text += template.space + one.answer + self._again
        before = self.tokenizer("")["input_ids"]  # start tokens, and in some tokenizers end tokens
        last = self.tokenizer.eos_token_id
        before = before[: before.index(last)] if last in before else before
        ids = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        # A chat template may contain the start tokens already.
        return ids if ids[: len(before)] == before else [*before, *ids]

    def passage(self, passage: Passage) -> tuple[int, ...]:
        """A passage's tokens. A long passage is cut at its end, and what closes it is kept."""
        return self.passage_and_rest(passage)[0]

    def passage_and_rest(self, passage: Passage) -> tuple[tuple[int, ...], list[int]]:
        """The same, and the tokens at the passage's end that were cut off."""
        text = fill(self.template.passage, title=passage.title, text=passage.text)
        body = text.rstrip()
        ids, most = following(self.tokenizer, "\n", body), self.template.max_passage
        return (*ids[:most], *following(self.tokenizer, body, text[len(body) :])), ids[most:]

    def question(self, question: str) -> list[int]:
        """A question's tokens and those of the cue but the last, which is `start`."""
        short = shorten(self.tokenizer, question, self.template.max_question)
        text = fill(self.template.question, question=short)
        return following(self.tokenizer, "\n", text + self.cue)[:-1]

    def answer(self, text: str) -> list[int]:
        """An answer's tokens after the cue, the end token last."""
        return [*following(self.tokenizer, self.cue, self.template.space + text), self.end]

    def runs(self, text: str) -> list[tuple[list[int], list[bool], list[bool]]]:
        """Every run of whole words of a text, as an answer's tokens; see `word_runs`."""
        return word_runs(self.tokenizer, text, self.cue + self.template.space)
