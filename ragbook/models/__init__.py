"""The models: how they are loaded, and the interfaces through which the methods use them."""

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
