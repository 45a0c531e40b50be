"""What a model is worth on held-out interactions, averaged over seeds, beside others on the same ones."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_pipeline.core.blending import GROUPS
from recsys_pipeline.core.comparison import Interval, bootstrap_means, intervals
from recsys_pipeline.core.distribution import Frequencies
from recsys_pipeline.core.metrics import (
    Metric,
    average_precision,
    group_by_user,
    hit_rate,
    hits_of_groups,
    mean_of_users,
    ndcg,
    recall,
    standard_error,
)

# Names of the models.
TUNED = "tuned ALS"
BLEND = "blend"
REPEAT_CONSUMPTION = "repeat consumption"
ITEM_KNN = "item-kNN"
GRAPH_FILTER = "graph filter"
EASE = "EASE"
NOTEBOOK = "notebook's ALS"
POPULARITY = "popularity"
LEAKING = "tuned ALS, weights of all interactions"


def blend_without(group: str) -> str:
    """Name of the blend whose terms of a group are left out."""
    return f"{BLEND} without {group}"


# Models that show what a part of another is worth, and are none to recommend by.
ABLATIONS = tuple(blend_without(group) for group in GROUPS)
NO_RIVALS = (LEAKING, *ABLATIONS)
# As tables have them.
IN_ORDER = (
    TUNED,
    BLEND,
    *ABLATIONS,
    REPEAT_CONSUMPTION,
    GRAPH_FILTER,
    ITEM_KNN,
    EASE,
    NOTEBOOK,
    POPULARITY,
    LEAKING,
)
# In place of the rank of a held-out interaction that a model was not measured on.
NOT_MEASURED = 0


class HeldOutRanks(NamedTuple):
    """The held-out interactions of all seeds, and where each model ranked them.

    Attributes:
        seed: (n,) number of the seed.
        users: (n,) user index.
        items: (n,) item index.
        interactions_of_user: (n,) training interactions of the user.
        popularity_of_item: (n,) training interactions of the item.
        ranks: by model, (n,) the 1-based rank; k + 1 is beyond k, NOT_MEASURED where the model was not
            measured.
    """

    seed: NDArray[np.int64]
    users: NDArray[np.int32]
    items: NDArray[np.int32]
    interactions_of_user: NDArray[np.int64]
    popularity_of_item: NDArray[np.int64]
    ranks: Mapping[str, NDArray[np.int64]]

    def measured_together(self) -> Iterator["HeldOutRanks"]:
        """The models in groups that were measured on the same held-out interactions, and these alone.

        The first model, which was measured on all, comes first in each group.
        """
        groups: dict[bytes, list[str]] = {}
        for name, ranks in self.ranks.items():
            groups.setdefault((ranks != NOT_MEASURED).tobytes(), []).append(name)
        first = next(iter(self.ranks))
        for measured, names in groups.items():
            of_group = {name: self.ranks[name] for name in dict.fromkeys([first, *names])}
            yield self._replace(ranks=of_group).select(np.frombuffer(measured, dtype=bool))

    def of_models(self, names: Sequence[str]) -> "HeldOutRanks":
        """Some of the models, in this order; those that were not measured are left out."""
        return self._replace(ranks={name: self.ranks[name] for name in names if name in self.ranks})

    def select(self, chosen: NDArray[np.bool_]) -> "HeldOutRanks":
        """Some of the held-out interactions."""
        return HeldOutRanks(
            self.seed[chosen],
            self.users[chosen],
            self.items[chosen],
            self.interactions_of_user[chosen],
            self.popularity_of_item[chosen],
            {name: ranks[chosen] for name, ranks in self.ranks.items()},
        )


def share_out_of_reach(held_out: HeldOutRanks) -> float:
    """Share of the held-out interactions that no model can rank by what it has learned.

    Nobody has the item in training, or the user has nothing in training.
    """
    out_of_reach = (held_out.popularity_of_item == 0) | (held_out.interactions_of_user == 0)
    return float(np.mean(out_of_reach))


class Quality(NamedTuple):
    """How good a model is.

    Attributes:
        map: mean average precision.
        standard_error: of `map`, over users.
        interval: of `map`, bootstrap over users.
        mean_difference: of `map` minus that of the first model on the same held-out interactions.
        difference: its interval, on the same draws.
        ndcg: see `metrics.ndcg`.
        hit_rate: see `metrics.hit_rate`.
        recall: see `metrics.recall`.
        seeds: that it was measured on.
    """

    map: float
    standard_error: float
    interval: Interval
    mean_difference: float
    difference: Interval
    ndcg: float
    hit_rate: float
    recall: float
    seeds: int


class Worth(NamedTuple):
    """What a group of terms is worth to the blend.

    Attributes:
        group: its name.
        map_without: mean average precision of the blend without it, the other weights learned anew.
        adds: what the group adds to that, on the same held-out interactions.
        low: lower end of the 95 % interval of what it adds.
        high: upper end.
    """

    group: str
    map_without: float
    adds: float
    low: float
    high: float


def worth_of_terms(to_blend: Mapping[str, Quality]) -> list[Worth]:
    """Of each group of terms without which the blend was measured.

    Args:
        to_blend: qualities whose differences are to the blend.
    """
    measured = {group: to_blend.get(blend_without(group)) for group in GROUPS}
    return [
        Worth(group, each.map, -each.mean_difference, -each.difference.high, -each.difference.low)
        for group, each in measured.items()
        if each
    ]


class _PerUser:
    """The metrics of each user, the mean over the user's seeds: the one way from ranks to figures."""

    def __init__(self, held_out: HeldOutRanks, k: int) -> None:
        self._group, self._user = group_by_user(held_out.seed, held_out.users)
        self._n_relevant = np.bincount(self._group)
        self._k = k

    def of(self, metric: Metric, ranks: NDArray[np.int64]) -> NDArray[np.float64]:
        """(n_users,)."""
        hits = hits_of_groups(ranks, self._group, self._k)
        return mean_of_users(metric(hits, self._n_relevant), self._user)


def qualities(held_out: HeldOutRanks, k: int, seed: int) -> dict[str, Quality]:
    """The quality of each model; differences are to the first.

    Every figure is the mean over users of the mean over each user's seeds, and a difference that over the
    seeds that both were measured on.

    Args:
        held_out: with at least one model; the first was measured on every seed.
        k: length of the lists.
        seed: of the bootstrap.
    """
    found: dict[str, Quality] = {}
    for group in held_out.measured_together():
        of_group = _qualities_of_group(group, k, seed)
        found.update((name, quality) for name, quality in of_group.items() if name not in found)
    return {name: found[name] for name in held_out.ranks}


def _qualities_of_group(held_out: HeldOutRanks, k: int, seed: int) -> dict[str, Quality]:
    per_user = _PerUser(held_out, k)
    precisions = np.stack(
        [per_user.of(average_precision, ranks) for ranks in held_out.ranks.values()], axis=1
    )
    means = bootstrap_means(precisions, seed)
    own, differences = intervals(means), intervals(means - means[:, :1])
    return {
        name: Quality(
            map=float(precisions[:, number].mean()),
            standard_error=standard_error(precisions[:, number]),
            interval=own[number],
            mean_difference=float((precisions[:, number] - precisions[:, 0]).mean()),
            difference=differences[number],
            ndcg=float(per_user.of(ndcg, ranks).mean()),
            hit_rate=float(per_user.of(hit_rate, ranks).mean()),
            recall=float(per_user.of(recall, ranks).mean()),
            seeds=len(np.unique(held_out.seed)),
        )
        for number, (name, ranks) in enumerate(held_out.ranks.items())
    }


class Segment(NamedTuple):
    """Some of the held-out interactions.

    Attributes:
        kind: what they are segmented by.
        name: which segment.
        chosen: (n,) the held-out interactions of the segment.
    """

    kind: str
    name: str
    chosen: NDArray[np.bool_]


def head_of(per_item: Frequencies) -> int:
    """So many interactions or more have the most popular items that together have half of all."""
    values = per_item.values[::-1]
    together = np.cumsum(values * per_item.counts[::-1])
    return int(values[np.searchsorted(together, together[-1] / 2)])


def segments(held_out: HeldOutRanks, head: int) -> list[Segment]:
    """By how many training interactions the user has, in thirds, and by head and tail of the items.

    Args:
        held_out: what was ranked.
        head: so many interactions an item has at least that is of the head, see `head_of`.
    """
    of_user = held_out.interactions_of_user
    few, many = np.quantile(of_user, [1 / 3, 2 / 3]).astype(np.int64).tolist()
    found = [
        Segment("user", f"few interactions (up to {few})", of_user <= few),
        Segment("user", f"some interactions ({few + 1} to {many})", (of_user > few) & (of_user <= many)),
        Segment("user", f"many interactions (over {many})", of_user > many),
        Segment("item", f"head ({head} interactions or more)", held_out.popularity_of_item >= head),
        Segment("item", f"tail (below {head})", held_out.popularity_of_item < head),
    ]
    return [segment for segment in found if segment.chosen.any()]


def segment_quality(
    held_out: HeldOutRanks, segment: Segment, k: int
) -> dict[str, tuple[float, float, float]]:
    """By model: mean average precision over the segment's users, its standard error, hit rate.

    As `qualities`, with the segment's held-out interactions as all that is relevant.
    """
    found = {}
    for name, ranks in held_out.ranks.items():
        chosen = held_out.select(segment.chosen & (ranks != NOT_MEASURED))
        if not len(chosen.users):
            continue
        per_user = _PerUser(chosen, k)
        precisions = per_user.of(average_precision, chosen.ranks[name])
        hit = float(per_user.of(hit_rate, chosen.ranks[name]).mean())
        found[name] = float(precisions.mean()), standard_error(precisions), hit
    return found
