"""Metrics, their uncertainty, and the comparison of methods side by side."""

from ragbook.evaluation.compare import compare
from ragbook.evaluation.comparison import Comparison
from ragbook.evaluation.errors import error_kind
from ragbook.evaluation.metrics import (
    contains,
    exact_match,
    f1,
    has_answer,
    is_hit,
    normalize_answer,
    recall_at_k,
)
from ragbook.evaluation.statistics import Paired, bootstrap_ci, holm, paired_test

__all__ = [
    "Comparison",
    "Paired",
    "bootstrap_ci",
    "compare",
    "contains",
    "error_kind",
    "exact_match",
    "f1",
    "has_answer",
    "holm",
    "is_hit",
    "normalize_answer",
    "paired_test",
    "recall_at_k",
]
