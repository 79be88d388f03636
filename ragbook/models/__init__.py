"""The models: how they are loaded, and the interfaces through which the methods use them.

Names are imported when they are first used, so that what is refused before a model is needed is
refused at once.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ragbook.models.bundled import length_penalties, tuned_for_answers
    from ragbook.models.causal import CausalReader
    from ragbook.models.encoder import Encoder, load_encoder
    from ragbook.models.lm import LanguageModel
    from ragbook.models.loading import (
        load_adapted_language_model,
        load_language_model,
        load_question_tower,
        load_reader,
        load_span_reader,
    )
    from ragbook.models.seq2seq import SeqReader
    from ragbook.models.span import SpanReader

__all__ = [
    "CausalReader",
    "Encoder",
    "LanguageModel",
    "SeqReader",
    "SpanReader",
    "length_penalties",
    "load_adapted_language_model",
    "load_encoder",
    "load_language_model",
    "load_question_tower",
    "load_reader",
    "load_span_reader",
    "tuned_for_answers",
]

_MODULES = {
    "CausalReader": "ragbook.models.causal",
    "Encoder": "ragbook.models.encoder",
    "LanguageModel": "ragbook.models.lm",
    "SeqReader": "ragbook.models.seq2seq",
    "SpanReader": "ragbook.models.span",
    "length_penalties": "ragbook.models.bundled",
    "load_adapted_language_model": "ragbook.models.loading",
    "load_encoder": "ragbook.models.encoder",
    "load_language_model": "ragbook.models.loading",
    "load_question_tower": "ragbook.models.loading",
    "load_reader": "ragbook.models.loading",
    "load_span_reader": "ragbook.models.loading",
    "tuned_for_answers": "ragbook.models.bundled",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        from importlib import import_module

        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
