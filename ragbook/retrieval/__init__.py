"""Retrievers: dense, BM25, hybrid, oracle, random, Milvus, a run file, reranked; all have
`retrieve(questions, k)`.

Names are imported when they are first used, so that BM25 needs no Faiss and the dense one no BM25.
"""

from typing import TYPE_CHECKING, Any

from ragbook.retrieval.base import Retrieved, Retriever

if TYPE_CHECKING:
    from ragbook.retrieval.bm25 import BM25Retriever
    from ragbook.retrieval.dense import DenseRetriever
    from ragbook.retrieval.hybrid import HybridRetriever
    from ragbook.retrieval.milvus import MilvusRetriever
    from ragbook.retrieval.oracle import OracleRetriever
    from ragbook.retrieval.random import RandomRetriever
    from ragbook.retrieval.reranking import RerankedRetriever
    from ragbook.retrieval.runs import RunRetriever

__all__ = [
    "BM25Retriever",
    "DenseRetriever",
    "HybridRetriever",
    "MilvusRetriever",
    "OracleRetriever",
    "RandomRetriever",
    "RerankedRetriever",
    "Retrieved",
    "Retriever",
    "RunRetriever",
]

_MODULES = {
    "BM25Retriever": "ragbook.retrieval.bm25",
    "DenseRetriever": "ragbook.retrieval.dense",
    "HybridRetriever": "ragbook.retrieval.hybrid",
    "MilvusRetriever": "ragbook.retrieval.milvus",
    "OracleRetriever": "ragbook.retrieval.oracle",
    "RandomRetriever": "ragbook.retrieval.random",
    "RerankedRetriever": "ragbook.retrieval.reranking",
    "RunRetriever": "ragbook.retrieval.runs",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        from importlib import import_module

        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
