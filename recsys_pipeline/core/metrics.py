"""Ranking metrics, each defined once, from where the relevant items stand in the recommended list.

`hits` is (n_users, k): whether the item recommended at each rank is relevant. `n_relevant` is
(n_users,): how many relevant items the user has. Every metric gives one number a user; the mean over
users is the figure that is reported.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_pipeline.core.pattern import Pattern

Hits = NDArray[np.bool_]
PerUser = NDArray[np.float64]

K = 10


def hits_of_ranks(ranks: NDArray[np.integer], k: int = K) -> Hits:
    """(n, k) hits of users with one relevant item each, at the given 1-based ranks; beyond k no hit."""
    hits: Hits = ranks[:, None] == np.arange(1, k + 1)
    return hits


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


def hit_rate(hits: Hits) -> PerUser:
    """1 for a user with at least one hit, else 0."""
    return np.asarray(hits.any(axis=1), dtype=np.float64)


class Scores(NamedTuple):
    """Means over users; `standard_error` is that of `map`."""

    map: float
    standard_error: float
    ndcg: float
    hit_rate: float
    notebook_map: float


def score(hits: Hits, n_relevant: NDArray[np.integer]) -> Scores:
    """All metrics of these hits.

    Raises:
        ValueError: there is no user, or a user without a relevant item.
    """
    if not len(hits) or np.any(n_relevant < 1):
        raise ValueError("metrics need at least one user, and a relevant item for each")
    precisions = average_precision(hits, n_relevant)
    return Scores(
        map=float(precisions.mean()),
        standard_error=float(precisions.std(ddof=1) / np.sqrt(len(precisions)))
        if len(precisions) > 1
        else float("nan"),
        ndcg=float(ndcg(hits, n_relevant).mean()),
        hit_rate=float(hit_rate(hits).mean()),
        notebook_map=float(notebook_average_precision(hits, n_relevant).mean()),
    )
