"""Scores without factors: what a tuned model should beat."""

import numpy as np
from numpy.typing import NDArray

from recsys_pipeline.core.pattern import Pattern
from recsys_pipeline.core.ranking import Scorer


def by_popularity(popularity: NDArray[np.integer]) -> Scorer:
    """The most popular items, the same to everybody; (n_items,) counts, 0 is never recommended."""
    scores = np.where(popularity > 0, popularity, -np.inf).astype(np.float32)

    def scorer(users: NDArray[np.int32]) -> NDArray[np.float32]:
        return np.tile(scores, (len(users), 1))

    return scorer


def by_repeat_consumption(
    training: Pattern, strengths: NDArray[np.float64], popularity: NDArray[np.int64]
) -> Scorer:
    """What the user has interacted with, strongest first, among equals the popular; then the popular."""
    _, level = np.unique(strengths, return_inverse=True)
    history = training.user_items(level.reshape(-1) + 1.0)
    share = (popularity / (popularity.max() + 1.0)).astype(np.float32)

    def scorer(users: NDArray[np.int32]) -> NDArray[np.float32]:
        scores: NDArray[np.float32] = history[users].toarray() + share
        scores[scores == 0] = -np.inf
        return scores

    return scorer
