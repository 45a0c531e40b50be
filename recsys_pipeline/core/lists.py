"""Recommended lists, and what they are worth beyond their hits."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_pipeline.core.pattern import Pattern

# Scores of every item for these users: (n,) user indexes to (n, n_items) float32; minus infinity is never
# recommended.
Scorer = Callable[[NDArray[np.int32]], NDArray[np.float32]]

NOTHING = -1
_SCORES_AT_ONCE = 1 << 24
_CHUNK = 64


def best_lists(scorer: Scorer, users: NDArray[np.int32], seen: Pattern, k: int) -> NDArray[np.int32]:
    """The k best items of each user that are not hidden, best first; among equals the lower index first.

    Args:
        scorer: of the items.
        users: (n,) user index.
        seen: the pairs that hide their item.
        k: length of the lists.

    Returns:
        (n, k) item indexes; NOTHING where a list ends early.
    """
    lists = np.full((len(users), k), NOTHING, dtype=np.int32)
    at_once = max(1, _SCORES_AT_ONCE // seen.n_items)
    length = min(k, seen.n_items)
    for first in range(0, len(users), at_once):
        block = users[first : first + at_once]
        scores = scorer(block)
        rows, positions = seen.pairs_of(block)
        scores[rows, seen.indices[positions]] = -np.inf
        best = _best(scores, length)
        nothing = np.isneginf(np.take_along_axis(scores, best, axis=1))
        lists[first : first + at_once, :length] = np.where(nothing, NOTHING, best)
    return lists


def _best(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """(n, k) places of the k largest scores of each row, largest first, among equals the first.

    The k best lie within the k chunks of the largest maxima: far less to sort, and, unlike a partition of
    whole rows, no slower where most scores are equal.
    """
    n, n_items = scores.shape
    n_chunks = n_items // _CHUNK
    rest = np.broadcast_to(np.arange(n_chunks * _CHUNK, n_items), (n, n_items - n_chunks * _CHUNK))
    chunks = scores[:, : n_chunks * _CHUNK].reshape(n, n_chunks, _CHUNK)
    chosen = np.sort(np.argsort(-chunks.max(axis=2), axis=1, kind="stable")[:, :k], axis=1)
    within = (chosen[:, :, None] * _CHUNK + np.arange(_CHUNK)).reshape(n, -1)
    places = np.concatenate([within, rest], axis=1)
    order = np.argsort(-np.take_along_axis(scores, places, axis=1), axis=1, kind="stable")[:, :k]
    return np.take_along_axis(places, order, axis=1)


def ranks_in_lists(
    lists: NDArray[np.int32], row: NDArray[np.int64], items: NDArray[np.int32]
) -> NDArray[np.int64]:
    """(n_pairs,) the 1-based rank of each item in the list of its row; k + 1 where it is not listed."""
    k = lists.shape[1]
    found = (lists[row] == items[:, None]) & (items[:, None] >= 0)
    ranks: NDArray[np.int64] = np.where(found.any(axis=1), found.argmax(axis=1), k) + 1
    return ranks


class Reach(NamedTuple):
    """What lists are like, whether or not they hit.

    Attributes:
        coverage: share of all items that somebody is recommended.
        novelty: mean self-information of the recommended items, in bits: -log2 of the share of users who
            have the item in training (Zhou et al. 2010, "Solving the apparent diversity-accuracy dilemma of
            recommender systems"); an item that nobody has counts as if one user had it.
        popularity: mean share of users who have the recommended item in training.
        users_reached: share of users whose list is full.
    """

    coverage: float
    novelty: float
    popularity: float
    users_reached: float


def reach(lists: NDArray[np.int32], training: Pattern) -> Reach:
    """What these lists, a row a user, are like; popularity is that among the training pairs."""
    recommended = lists[lists != NOTHING]
    owners = np.bincount(training.indices, minlength=training.n_items)
    share = np.maximum(owners, 1)[recommended] / training.n_users
    return Reach(
        coverage=len(np.unique(recommended)) / training.n_items,
        novelty=float(-np.log2(share).mean()) if len(recommended) else float("nan"),
        popularity=float(owners[recommended].mean() / training.n_users) if len(recommended) else float("nan"),
        users_reached=float((lists != NOTHING).all(axis=1).mean()),
    )


def by_factors(user_factors: NDArray[np.float32], item_factors: NDArray[np.float32]) -> Scorer:
    """Products of the factors; nothing to a user, nor of an item, whose factors are all 0."""
    unknown_items = ~item_factors.any(axis=1)

    def scorer(users: NDArray[np.int32]) -> NDArray[np.float32]:
        scores: NDArray[np.float32] = user_factors[users] @ item_factors.T
        scores[:, unknown_items] = -np.inf
        scores[~user_factors[users].any(axis=1)] = -np.inf
        return scores

    return scorer


def by_popularity(popularity: NDArray[np.integer]) -> Scorer:
    """The most popular items, the same to everybody; (n_items,) counts, 0 is never recommended."""
    scores = np.where(popularity > 0, popularity, -np.inf).astype(np.float32)

    def scorer(users: NDArray[np.int32]) -> NDArray[np.float32]:
        return np.tile(scores, (len(users), 1))

    return scorer


def by_history(training: Pattern, strengths: NDArray[np.float64], popularity: NDArray[np.int64]) -> Scorer:
    """The items of the user's own history, strongest first, among equals the popular; then the popular."""
    _, level = np.unique(strengths, return_inverse=True)
    history = training.user_items(level.reshape(-1) + 1.0)
    share = (popularity / (popularity.max() + 1.0)).astype(np.float32)

    def scorer(users: NDArray[np.int32]) -> NDArray[np.float32]:
        scores: NDArray[np.float32] = history[users].toarray() + share
        scores[scores == 0] = -np.inf
        return scores

    return scorer
