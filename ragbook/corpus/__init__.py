"""Passages and questions: MiniWiki, and readers for the common file formats of the field."""

from ragbook.corpus.questions import load_questions
from ragbook.corpus.readers import load_corpus, read_passages
from ragbook.corpus.types import Corpus, Passage, Question, QuestionSet, passages_sha256

__all__ = [
    "Corpus",
    "Passage",
    "Question",
    "QuestionSet",
    "load_corpus",
    "load_questions",
    "passages_sha256",
    "read_passages",
]
