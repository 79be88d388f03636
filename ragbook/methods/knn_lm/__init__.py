"""kNN-LM (Khandelwal et al. 2020): its mathematics and answers, free text, an adaptive weight."""

from ragbook.methods.knn_lm.answers import (
    LAMS,
    TEMPERATURES,
    KnnLM,
    grid,
    interpolate,
    knn_log_probs,
    knn_target_log_prob,
    knn_target_log_probs,
    passage_mass,
    squared_distances,
    tune,
)

__all__ = [
    "LAMS",
    "TEMPERATURES",
    "KnnLM",
    "grid",
    "interpolate",
    "knn_log_probs",
    "knn_target_log_prob",
    "knn_target_log_probs",
    "passage_mass",
    "squared_distances",
    "tune",
]
