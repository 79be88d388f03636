"""What a person may ask of the live page, and how much of it."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from ragbook.errors import InputError

BODY = 64 * 1024
"""The most bytes of a request."""
K, BEAMS = 20, 8
"""The most passages and beams."""
QUESTION, TYPED, EDITED, ID = 1000, 300, 2000, 500
"""The most characters of a question, a typed answer, an edited passage and a passage's id."""

_Id = Annotated[str, Meta(max_length=ID)]


class Ask(Struct, frozen=True, forbid_unknown_fields=True):
    """One question and the settings of its answers; None stands for the server's own setting.

    Attributes
    ----------
    free: whether generative methods write freely, instead of in the passages' words.
    struck: ids of passages that no method may read, though they are retrieved.
    edited: what passages say instead of their own texts, by their ids.
    typed: an answer whose probability under every method is wanted; none if it is empty.
    """

    question: Annotated[str, Meta(max_length=QUESTION)]
    k: Annotated[int, Meta(ge=1, le=K)] | None = None
    retriever: Annotated[str, Meta(max_length=20)] | None = None
    lam: Annotated[float, Meta(ge=0, le=1)] | None = None
    temperature: Annotated[float, Meta(gt=0, le=1e6)] | None = None
    beams: Annotated[int, Meta(ge=1, le=BEAMS)] | None = None
    free: bool | None = None
    struck: Annotated[tuple[_Id, ...], Meta(max_length=K)] = ()
    edited: Annotated[dict[_Id, Annotated[str, Meta(max_length=EDITED)]], Meta(max_length=K)] = (
        msgspec.field(default_factory=dict)
    )
    typed: Annotated[str, Meta(max_length=TYPED)] = ""


def parse_ask(body: bytes) -> Ask:
    """A request's JSON as an `Ask`.

    Raises
    ------
    InputError: it is no JSON of that form, a limit is exceeded, the question is blank, or a text
        holds half a character (a lone surrogate).
    """
    try:
        ask = msgspec.json.decode(body, type=Ask)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"The request is not understood: {error}.") from None
    if not ask.question.strip():
        raise InputError("The question is empty; give it some words.")
    for text in (ask.question, ask.typed, *ask.struck, *ask.edited, *ask.edited.values()):
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InputError("A text of the request is not valid Unicode.") from None
    return ask
