"""What a model is worth on held-out pairs, averaged over seeds, beside others on the same pairs."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_pipeline.core.comparison import Interval, bootstrap_means, intervals
from recsys_pipeline.core.lists import Reach
from recsys_pipeline.core.metrics import (
    average_precision,
    group_pairs,
    hit_rate,
    hits_of_groups,
    mean_of_users,
    ndcg,
    recall,
    standard_error,
)


class Trials(NamedTuple):
    """The held-out pairs of all seeds, and where each model ranked them.

    Attributes:
        seed: (n_pairs,) number of the seed of each pair.
        users: (n_pairs,) its user index.
        items: (n_pairs,) its item index.
        pairs_of_user: (n_pairs,) training pairs of its user.
        popularity_of_item: (n_pairs,) training pairs of its item.
        ranks: by model, (n_pairs,) the 1-based rank; k + 1 is beyond k.
    """

    seed: NDArray[np.int64]
    users: NDArray[np.int32]
    items: NDArray[np.int32]
    pairs_of_user: NDArray[np.int64]
    popularity_of_item: NDArray[np.int64]
    ranks: Mapping[str, NDArray[np.int64]]


class Quality(NamedTuple):
    """How good a model is.

    Attributes:
        map: mean average precision.
        standard_error: of `map`, over users.
        interval: of `map`, bootstrap over users.
        difference: interval of `map` minus that of the first model, on the same draws.
        ndcg: see `metrics.ndcg`.
        hit_rate: see `metrics.hit_rate`.
        recall: see `metrics.recall`.
    """

    map: float
    standard_error: float
    interval: Interval
    difference: Interval
    ndcg: float
    hit_rate: float
    recall: float


def qualities(trials: Trials, k: int, seed: int) -> dict[str, Quality]:
    """The quality of each model; differences are to the first.

    Every figure is the mean over users of the mean over each user's seeds.

    Args:
        trials: at least one model.
        k: length of the lists.
        seed: of the bootstrap.
    """
    group, user = group_pairs(trials.seed, trials.users)
    n_relevant = np.bincount(group)
    hits = {name: hits_of_groups(ranks, group, k) for name, ranks in trials.ranks.items()}
    precisions = np.stack(
        [mean_of_users(average_precision(each, n_relevant), user) for each in hits.values()], axis=1
    )
    means = bootstrap_means(precisions, seed)
    own, differences = intervals(means), intervals(means - means[:, :1])
    found = {}
    for number, (name, each) in enumerate(hits.items()):
        found[name] = Quality(
            map=float(precisions[:, number].mean()),
            standard_error=standard_error(precisions[:, number]),
            interval=own[number],
            difference=differences[number],
            ndcg=float(mean_of_users(ndcg(each, n_relevant), user).mean()),
            hit_rate=float(mean_of_users(hit_rate(each), user).mean()),
            recall=float(mean_of_users(recall(each, n_relevant), user).mean()),
        )
    return found


class Segment(NamedTuple):
    """Some of the held-out pairs.

    Attributes:
        kind: what the pairs are parted by.
        name: which part.
        chosen: (n_pairs,) the pairs of the part.
    """

    kind: str
    name: str
    chosen: NDArray[np.bool_]


def segments(trials: Trials, popularity: NDArray[np.int64]) -> list[Segment]:
    """The pairs by how many training pairs the user has, in thirds, and by head and tail of the items.

    The head are the most popular items that together have half of all training pairs.

    Args:
        trials: the held-out pairs.
        popularity: (n_items,) training pairs of each item.
    """
    few, many = np.quantile(trials.pairs_of_user, [1 / 3, 2 / 3]).astype(np.int64).tolist()
    descending = np.sort(popularity)[::-1]
    head = int(descending[np.searchsorted(np.cumsum(descending), descending.sum() / 2)])
    parts = [
        Segment("user", f"few pairs (up to {few})", trials.pairs_of_user <= few),
        Segment(
            "user",
            f"some pairs ({few + 1} to {many})",
            (trials.pairs_of_user > few) & (trials.pairs_of_user <= many),
        ),
        Segment("user", f"many pairs (over {many})", trials.pairs_of_user > many),
        Segment("item", f"head ({head} pairs or more)", trials.popularity_of_item >= head),
        Segment("item", f"tail (below {head})", trials.popularity_of_item < head),
    ]
    return [part for part in parts if part.chosen.any()]


def quality_of_pairs(ranks: NDArray[np.int64], k: int) -> tuple[float, float, float]:
    """Mean of 1/rank, 0 beyond k, its standard error, and the share of pairs within k."""
    reciprocal = np.where(ranks <= k, 1.0 / ranks, 0.0)
    return float(reciprocal.mean()), standard_error(reciprocal), float((ranks <= k).mean())


def mean_reach(found: Sequence[Reach]) -> Reach:
    """The mean over seeds."""
    return Reach(*np.mean(np.array(found), axis=0).tolist())
