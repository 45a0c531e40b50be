"""Lists without a trained model: what a tuned model should beat."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from recsys_pipeline.core.pattern import Pattern
from recsys_pipeline.core.ranking import NO_LIMIT, NOTHING, Lister

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


def by_popularity(popularity: NDArray[np.integer]) -> Lister:
    """The most popular items, the same to everybody; (n_items,) counts, 0 is never recommended."""
    order = popular_first(popularity)

    def lister(users: NDArray[np.int32], exclusions: Pattern, k: int) -> NDArray[np.int32]:
        return _filled_up(np.full((len(users), k), NOTHING, dtype=np.int32), order, users, exclusions)

    return lister


def by_repeat_consumption(
    training: Pattern, strengths: NDArray[np.float64], popularity: NDArray[np.integer]
) -> Lister:
    """What the user has interacted with, strongest first, among equals the popular; then the popular."""
    _, level = np.unique(strengths, return_inverse=True)
    share = (popularity / (popularity.max() + 1.0)).astype(np.float32)
    scores = (level.reshape(-1) + 1.0).astype(np.float32) + share[training.indices]
    history = training.user_items(scores)
    order = popular_first(popularity)

    def lister(users: NDArray[np.int32], exclusions: Pattern, k: int) -> NDArray[np.int32]:
        return _filled_up(sparse_lists(history[users], users, exclusions, k), order, users, exclusions)

    return lister


def sparse_lists(
    scores: "csr_matrix", users: NDArray[np.int32], exclusions: Pattern, k: int
) -> NDArray[np.int32]:
    """The best lists by sparse scores; what is not stored, or is not above 0, is not recommended.

    Args:
        scores: (n, n_items) float32.
        users: (n,) the user of each row.
        exclusions: the interactions that exclude their item.
        k: length of the lists.

    Returns:
        (n, k) item indexes; NOTHING where a list ends early.
    """
    from recsys_pipeline.core.selection import select_sparse

    lists = np.full((len(users), k), NOTHING, dtype=np.int32)
    excluded = exclusions.indptr, exclusions.indices
    stored = scores.indptr, scores.indices, scores.data
    select_sparse(*stored, users, *excluded, exclusions.n_items, lists)
    return lists


def popular_first(popularity: NDArray[np.integer]) -> NDArray[np.int32]:
    """Items by (n_items,) counts, among equals the lower index first; those at 0 are left out."""
    order = np.argsort(-popularity.astype(np.int64), kind="stable")
    return order[: np.count_nonzero(popularity)].astype(np.int32)


def _filled_up(
    lists: NDArray[np.int32], order: NDArray[np.int32], users: NDArray[np.int32], exclusions: Pattern
) -> NDArray[np.int32]:
    from recsys_pipeline.core.selection import fill_up

    fill_up(order, users, exclusions.indptr, exclusions.indices, exclusions.n_items, lists, *NO_LIMIT)
    return lists
