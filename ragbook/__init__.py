"""ragbook: one passage index, five ways to use it, every figure re-executed.

No large library is imported here: the names below are looked up in their modules when they are
first used, so that ``import ragbook`` is as fast as ``import json``.
"""

import sys

# `python -m ragbook` imports this module before it knows the command's: from here on an interrupt
# ends it without a traceback. Before, Python is on its own, as ragbook_start.py says.
if sys.argv[:1] == ["-m"] and sys.orig_argv[-len(sys.argv)] in ("ragbook", "-mragbook"):
    import os
    from _signal import SIGINT, default_int_handler, getsignal, signal  # pyright: ignore

    if getsignal(SIGINT) is default_int_handler:  # else the caller wants them to be ignored
        signal(SIGINT, lambda *_: os._exit(130))

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ragbook.errors import InputError
from ragbook.version import __version__

if TYPE_CHECKING:
    from ragbook.corpus import Corpus as Corpus
    from ragbook.corpus import Passage as Passage
    from ragbook.corpus import Question as Question
    from ragbook.corpus import QuestionSet as QuestionSet
    from ragbook.corpus import load_corpus as load_corpus
    from ragbook.corpus import load_questions as load_questions
    from ragbook.evaluation import Comparison as Comparison
    from ragbook.evaluation import compare as compare
    from ragbook.evaluation.perplexity import perplexity as perplexity
    from ragbook.index import PassageIndex as PassageIndex
    from ragbook.index import build_index as build_index
    from ragbook.methods import Answer as Answer
    from ragbook.methods import Evidence as Evidence
    from ragbook.methods import load as load_methods
    from ragbook.methods.closed_book import ClosedBook as ClosedBook
    from ragbook.methods.fid import FiD as FiD
    from ragbook.methods.in_context import InContext as InContext
    from ragbook.methods.knn_lm import KnnLM as KnnLM
    from ragbook.methods.rag import RagSequence as RagSequence
    from ragbook.methods.rag import RagToken as RagToken
    from ragbook.methods.realm import Realm as Realm
    from ragbook.models import load_encoder as load_encoder
    from ragbook.models import load_language_model as load_language_model
    from ragbook.models import load_reader as load_reader
    from ragbook.models import load_span_reader as load_span_reader
    from ragbook.retrieval import BM25Retriever as BM25Retriever
    from ragbook.retrieval import DenseRetriever as DenseRetriever
    from ragbook.retrieval import OracleRetriever as OracleRetriever

# Public name -> (module, name there).
_EXPORTS = {
    "Passage": ("ragbook.corpus", "Passage"),
    "Corpus": ("ragbook.corpus", "Corpus"),
    "Question": ("ragbook.corpus", "Question"),
    "QuestionSet": ("ragbook.corpus", "QuestionSet"),
    "load_corpus": ("ragbook.corpus", "load_corpus"),
    "load_questions": ("ragbook.corpus", "load_questions"),
    "load_encoder": ("ragbook.models", "load_encoder"),
    "load_reader": ("ragbook.models", "load_reader"),
    "load_span_reader": ("ragbook.models", "load_span_reader"),
    "load_language_model": ("ragbook.models", "load_language_model"),
    "PassageIndex": ("ragbook.index", "PassageIndex"),
    "build_index": ("ragbook.index", "build_index"),
    "DenseRetriever": ("ragbook.retrieval", "DenseRetriever"),
    "BM25Retriever": ("ragbook.retrieval", "BM25Retriever"),
    "OracleRetriever": ("ragbook.retrieval", "OracleRetriever"),
    "Answer": ("ragbook.methods", "Answer"),
    "Evidence": ("ragbook.methods", "Evidence"),
    "ClosedBook": ("ragbook.methods.closed_book", "ClosedBook"),
    "InContext": ("ragbook.methods.in_context", "InContext"),
    "KnnLM": ("ragbook.methods.knn_lm", "KnnLM"),
    "Realm": ("ragbook.methods.realm", "Realm"),
    "RagSequence": ("ragbook.methods.rag", "RagSequence"),
    "RagToken": ("ragbook.methods.rag", "RagToken"),
    "FiD": ("ragbook.methods.fid", "FiD"),
    "load_methods": ("ragbook.methods", "load"),
    "compare": ("ragbook.evaluation", "compare"),
    "Comparison": ("ragbook.evaluation", "Comparison"),
    "perplexity": ("ragbook.evaluation.perplexity", "perplexity"),
}
_ROOMS = (
    "corpus",
    "models",
    "index",
    "retrieval",
    "methods",
    "training",
    "evaluation",
    "figures",
    "explorer",
)

__all__ = [  # noqa: RUF022  (in the order of the rooms)
    "InputError",
    "__version__",
    "Passage",
    "Corpus",
    "Question",
    "QuestionSet",
    "load_corpus",
    "load_questions",
    "load_encoder",
    "load_reader",
    "load_span_reader",
    "load_language_model",
    "PassageIndex",
    "build_index",
    "DenseRetriever",
    "BM25Retriever",
    "OracleRetriever",
    "Answer",
    "Evidence",
    "ClosedBook",
    "InContext",
    "KnnLM",
    "Realm",
    "RagSequence",
    "RagToken",
    "FiD",
    "load_methods",
    "compare",
    "Comparison",
    "perplexity",
]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        module, attribute = _EXPORTS[name]
        return getattr(import_module(module), attribute)
    if name in _ROOMS:
        return import_module(f"ragbook.{name}")
    raise AttributeError(f"module 'ragbook' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS, *_ROOMS})
