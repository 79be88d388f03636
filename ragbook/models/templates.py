"""Prompts as data: a template holds the texts around instruction, passages, question and answer.

Passages come before the question, so that a decoder-only model's states of a passage do not depend
on the question. The answer follows the template's `answer` and is closed by its `end`.
"""

from __future__ import annotations

import json
import random
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ragbook.corpus import Passage, Question
from ragbook.errors import InputError
from ragbook.models.prompts import Inputs, cut_input, padded_inputs, shorten


@dataclass(frozen=True)
class Template:
    """The texts of a prompt.

    Parameters
    ----------
    instruction: the text at the beginning of the prompt.
    passage: the text for each passage, with `{title}` and `{text}`.
    question: the text for the question, with `{question}`.
    answer: the text before the answer; it must be the same for every question.
    space: the text between `answer` and the answer itself.
    end: the text that closes an answer, one token; empty for the model's own end token.
    demonstrations: how many answered questions are shown before the one that is asked.
    max_passage, max_question: the most tokens of a passage and of a question; the rest is cut.
    chat: whether the texts are put into the tokenizer's chat template, as one turn of the user.
    """

    instruction: str = ""
    passage: str = "{title}\n{text}\n\n"
    question: str = "Question: {question}\n"
    answer: str = "Answer:"
    space: str = " "
    end: str = "\n"
    demonstrations: int = 0
    max_passage: int = 256
    max_question: int = 64
    chat: bool = False


INSTRUCTION = "Answer the question in a few words, without a sentence around them.\n\n"

TEMPLATES = {
    "base": Template(),
    "few-shot": Template(INSTRUCTION, demonstrations=4),
    "chat": Template(INSTRUCTION, answer="", space="", end="", chat=True),
    "t5": Template(
        passage="context: {title} {text} ", question="question: {question}", answer="", end=""
    ),
}
"""Templates by name: `base` for a model that continues a text, `few-shot` the same after answered
questions, `chat` for a model that follows instructions, `t5` for T5 and Flan-T5, which learned
question answering in this form."""

_KINDS = {str: "a text", int: "a whole number, 0 or more", bool: "true or false"}
SLOTS = {"passage": ("{title}", "{text}"), "question": ("{question}",)}


def load_template(name: str) -> Template:
    """The template of that name, or the one in a TOML or JSON file with the fields of `Template`.

    Fields that the file leaves out keep the values of `base`.

    Raises
    ------
    InputError: there is no such template or file, or the file has other content.
    """
    if name in TEMPLATES:
        return TEMPLATES[name]
    path = Path(name)
    if not path.is_file():
        raise InputError(
            f"there is no prompt {name!r}; choose {', '.join(TEMPLATES)}, or name a TOML or JSON "
            "file with the fields of ragbook.models.templates.Template"
        )
    try:
        text = path.read_text(encoding="utf-8")
        given = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"the prompt {path} is not valid TOML or JSON: {error}") from error
    return _checked(path, given)


def _checked(path: Path, given: Any) -> Template:
    kinds = {field.name: type(getattr(TEMPLATES["base"], field.name)) for field in fields(Template)}
    if not isinstance(given, dict):
        raise InputError(f"the prompt {path} must consist of fields with values")
    for name, value in given.items():
        if name not in kinds:
            raise InputError(
                f"the prompt {path} has the unknown field {name!r}; choose from {', '.join(kinds)}"
            )
        if type(value) is not kinds[name] or (kinds[name] is int and value < 0):
            raise InputError(
                f"{name} in the prompt {path} must be {_KINDS[kinds[name]]}, not {value!r}"
            )
    template = replace(TEMPLATES["base"], **given)
    for name, slots in SLOTS.items():
        if slots[-1] not in getattr(template, name):
            raise InputError(f"{name} in the prompt {path} must contain {slots[-1]}")
    return template


def fill(template: str, /, **values: str) -> str:
    """A template's text with its slots filled in; other braces, and those of the values, are not
    changed."""
    return re.sub(r"\{(\w+)\}", lambda slot: values.get(slot[1], slot[0]), template)


@dataclass(frozen=True)
class Demonstration:
    """An answered question for a prompt, with the passage that answers it, if it is known."""

    question: str
    answer: str
    passage: Passage | None = None


def draw_demonstrations(
    questions: Sequence[Question],
    passages: Sequence[Passage],
    count: int,
    seed: int,
    asked: Sequence[Question],
) -> tuple[Demonstration, ...]:
    """Draw answered questions, with a seed, to show them before other questions.

    Parameters
    ----------
    questions: the questions to draw from; those without an answer are not drawn.
    passages: questions whose gold passage is among these are preferred.
    count: how many are drawn.
    asked: the questions that will be asked, none of which is drawn.

    Raises
    ------
    InputError: there are fewer than `count` such questions.
    """
    hidden = {question.text.strip().lower() for question in asked}
    free = [q for q in questions if q.answers and q.text.strip().lower() not in hidden]
    if len(free) < count:
        raise InputError(
            f"there are {len(free)} questions to draw demonstrations from, and {count} are needed; "
            "name a larger question file"
        )
    drawn = random.Random(f"demonstrations-{seed}").sample(free, len(free))
    by_id = {passage.id: passage for passage in passages}
    drawn.sort(key=lambda question: question.gold_passage not in by_id)
    return tuple(
        Demonstration(q.text, q.answers[0], by_id.get(q.gold_passage or "")) for q in drawn[:count]
    )


def chat_parts(tokenizer: Any, template: Template) -> tuple[str, str, str]:
    """The texts that the tokenizer's chat template puts around the turns of user and model.

    Returns
    -------
    (the text before the user's first turn, between it and the model's reply, between the reply and
    the user's next turn).

    Raises
    ------
    InputError: the tokenizer has no chat template, or one that changes the texts of turns.
    """
    name = tokenizer.name_or_path
    if not getattr(tokenizer, "chat_template", None):
        raise InputError(
            f"{name} has no chat template; choose the prompt 'base', or one with chat = false"
        )
    first, reply, second = (f"words-{number}-words" for number in range(3))
    turns = [("user", first), ("assistant", reply), ("user", second)]
    rendered = tokenizer.apply_chat_template(
        [{"role": role, "content": content} for role, content in turns],
        tokenize=False,
        add_generation_prompt=True,
    )
    parts = re.split(rf"{first}|{reply}|{second}", rendered)
    if len(parts) != 4 or not parts[3]:
        raise InputError(
            f"the chat template of {name} changes the texts of turns; choose the prompt 'base'"
        )
    return parts[0], parts[3], parts[2]


@dataclass(frozen=True)
class TemplateLayout:
    """A template as the layout of an encoder's input; a long passage is cut at its end.

    See `ragbook.models.prompts.Layout`.
    """

    template: Template
    demonstrations: tuple[Demonstration, ...] = ()
    max_input: int = 320

    def __call__(
        self, tokenizer: Any, questions: Sequence[str], passages: Sequence[Passage | None]
    ) -> Inputs:
        template = self.template
        before, after, again = (
            chat_parts(tokenizer, template) if template.chat else ("", "", template.end or "\n")
        )
        before += template.instruction
        for shown in self.demonstrations:
            before += self._passage(shown.passage)
            before += fill(template.question, question=shown.question) + template.answer + after
            before += template.space + shown.answer + again
        rows, texts = [], []
        for question, passage in zip(questions, passages, strict=True):
            asked = shorten(tokenizer, question, template.max_question)
            shown_text = self._passage(passage)
            text = before + shown_text + fill(template.question, question=asked)
            # What separates the passage from the question stays where the passage is cut.
            span = (len(before), len(before) + len(shown_text.rstrip()))
            rows.append(cut_input(tokenizer, text + template.answer + after, span, self.max_input))
            texts.append(shown_text)
        return padded_inputs(tokenizer, rows, texts)

    def _passage(self, passage: Passage | None) -> str:
        if passage is None:
            return ""
        return fill(self.template.passage, title=passage.title, text=passage.text)
