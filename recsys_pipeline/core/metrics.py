"""Ranking metrics, each defined once, from where the relevant items stand in the recommended list.

`hits` is (n_users, k): whether the item recommended at each rank is relevant. `n_relevant` is
(n_users,): how many relevant items the user has. Every metric gives one number a user; the mean over
users is the figure that is reported.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_pipeline.core.pattern import Pattern

Hits = NDArray[np.bool_]
PerUser = NDArray[np.float64]
# From hits and the number of relevant items to one number a user.
Metric = Callable[[Hits, NDArray[np.integer]], PerUser]

K = 10


def hits_of_ranks(ranks: NDArray[np.integer], k: int = K) -> Hits:
    """(n, k) hits of users with one relevant item each, at the given 1-based ranks; beyond k no hit."""
    hits: Hits = ranks[:, None] == np.arange(1, k + 1)
    return hits


def group_by_user(
    splits: NDArray[np.integer], users: NDArray[np.integer]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which held-out interactions belong together: those of one user in one split.

    Returns:
        group: (n,) number of the group of each held-out interaction.
        user: (n_groups,) the user of each group.
    """
    stacked = np.stack([splits.astype(np.int64), users.astype(np.int64)])
    groups, group = np.unique(stacked, axis=1, return_inverse=True)
    return group.reshape(-1), groups[1]


def groups_of_some(
    chosen: NDArray[np.bool_], group: NDArray[np.int64], user: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What `group_by_user` says of some of the held-out interactions, numbered anew.

    Args:
        chosen: (n,) which.
        group: (n,) of all.
        user: (n_groups,) of all.
    """
    kept, of_chosen = np.unique(group[chosen], return_inverse=True)
    return of_chosen.reshape(-1), user[kept]


def hits_of_groups(ranks: NDArray[np.integer], group: NDArray[np.int64], k: int = K) -> Hits:
    """(n_groups, k) hits of groups of held-out interactions at the given 1-based ranks; beyond k no hit."""
    hits: Hits = np.zeros((int(group.max(initial=-1)) + 1, k), dtype=bool)
    within = ranks <= k
    hits[group[within], ranks[within] - 1] = True
    return hits


def mean_of_users(values: PerUser, user: NDArray[np.int64]) -> PerUser:
    """(n_users,) the mean of each user's values; a user has one a split."""
    _, place, counts = np.unique(user, return_inverse=True, return_counts=True)
    return np.asarray(np.bincount(place.reshape(-1), weights=values) / counts)


def hits_of_recommended(
    recommended: NDArray[np.integer], relevant: Pattern, users: NDArray[np.integer]
) -> Hits:
    """(n, k) hits of the item indexes `recommended` (n, k) to the users (n,) of `relevant`."""
    of_user = np.repeat(users.astype(np.int32), recommended.shape[1])
    found = relevant.positions_of(of_user, recommended.ravel().astype(np.int32)) >= 0
    return found.reshape(recommended.shape)


def average_precision(hits: Hits, n_relevant: NDArray[np.integer]) -> PerUser:
    """AP@k: the precision at each rank that holds a hit, summed, over min(k, n_relevant).

    `implicit` divides as we do. With one relevant item it is 1 / rank, or 0 beyond k.
    """
    ranks = np.arange(1, hits.shape[1] + 1)
    precision = np.cumsum(hits, axis=1) / ranks
    return np.asarray((precision * hits).sum(axis=1) / np.minimum(hits.shape[1], n_relevant))


def notebook_average_precision(hits: Hits, n_relevant: NDArray[np.integer]) -> PerUser:
    """The notebook's formula: the precision at every rank, hit or not, summed, over min(k, n_relevant).

    Kept so that the notebook's figures stay comparable; it is no average precision. One relevant item
    at rank r gives the sum of 1/j for j from r to k: at most 2.93 for k = 10.
    """
    ranks = np.arange(1, hits.shape[1] + 1)
    precision = np.cumsum(hits, axis=1) / ranks
    return np.asarray(precision.sum(axis=1) / np.minimum(hits.shape[1], n_relevant))


def ndcg(hits: Hits, n_relevant: NDArray[np.integer]) -> PerUser:
    """NDCG@k with binary relevance: gains 1 / log2(rank + 1) over those of the ideal list.

    Source: Järvelin and Kekäläinen, "Cumulated Gain-Based Evaluation of IR Techniques" (2002).
    """
    gains = 1 / np.log2(np.arange(2, hits.shape[1] + 2))
    ideal: PerUser = np.cumsum(gains).take(np.minimum(hits.shape[1], n_relevant) - 1)
    share: PerUser = np.sum(hits * gains / ideal[:, None], axis=1)
    return share


def hit_rate(hits: Hits, n_relevant: NDArray[np.integer]) -> PerUser:  # noqa: ARG001 - as every metric
    """1 for a user with at least one hit, else 0."""
    return np.asarray(hits.any(axis=1), dtype=np.float64)


def recall(hits: Hits, n_relevant: NDArray[np.integer]) -> PerUser:
    """Recall@k: the share of the user's relevant items that is among the first k."""
    return np.asarray(hits.sum(axis=1) / n_relevant)


class Scores(NamedTuple):
    """Means over users; `standard_error` is that of `map`."""

    map: float
    standard_error: float
    ndcg: float
    hit_rate: float
    recall: float
    notebook_map: float


def standard_error(values: PerUser) -> float:
    """Of their mean; NaN for a single one."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


def score(hits: Hits, n_relevant: NDArray[np.integer], user: NDArray[np.int64] | None = None) -> Scores:
    """All metrics of these hits, as means over users of the means over each user's rows.

    Args:
        hits: (n, k).
        n_relevant: (n,).
        user: (n,) whose row it is; by default every row has a user of its own.

    Raises:
        ValueError: there is no user, or a user without a relevant item.
    """
    if not len(hits) or np.any(n_relevant < 1):
        raise ValueError("metrics need at least one user, and a relevant item for each")
    if user is None:
        user = np.arange(len(hits))
    precisions = mean_of_users(average_precision(hits, n_relevant), user)
    return Scores(
        map=float(precisions.mean()),
        standard_error=standard_error(precisions),
        ndcg=float(mean_of_users(ndcg(hits, n_relevant), user).mean()),
        hit_rate=float(mean_of_users(hit_rate(hits, n_relevant), user).mean()),
        recall=float(mean_of_users(recall(hits, n_relevant), user).mean()),
        notebook_map=float(mean_of_users(notebook_average_precision(hits, n_relevant), user).mean()),
    )
