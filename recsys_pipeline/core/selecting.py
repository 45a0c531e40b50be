"""By which metric, and within how many ranks, one model is picked among several."""

from collections.abc import Mapping
from enum import Enum
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from recsys_pipeline.core.metrics import (
    K,
    Metric,
    PerUser,
    average_precision,
    hit_rate,
    hits_of_groups,
    mean_of_users,
    ndcg,
    recall,
    standard_error,
)

# A rank is a byte, and one value stands for all beyond.
MOST_K = 200
# Places of lists whose hits are counted at once: bounds the memory.
_HITS_AT_ONCE = 1 << 22


class SelectBy(Enum):
    """The metrics that may select; see `core.metrics`."""

    MAP = "MAP"
    NDCG = "NDCG"
    HitRate = "HitRate"
    Recall = "Recall"


_METRICS: Mapping[SelectBy, Metric] = {
    SelectBy.MAP: average_precision,
    SelectBy.NDCG: ndcg,
    SelectBy.HitRate: hit_rate,
    SelectBy.Recall: recall,
}
_SNAKE_CASE = {SelectBy.HitRate: "hit_rate"}


class Estimate(NamedTuple):
    """A mean over users, and its standard error."""

    value: float
    standard_error: float


class Selection(NamedTuple):
    """What selects: the larger, the better.

    Attributes:
        metric: which one.
        k: ranks beyond count as misses; from 1 to 200.
    """

    metric: SelectBy = SelectBy.MAP
    k: int = K

    @property
    def name(self) -> str:
        """For people, such as NDCG@20."""
        return f"{self.metric.value}@{self.k}"

    @property
    def column(self) -> str:
        """Its column in the tables of trials and of baselines."""
        return self.name if self.is_default else self._snake_case

    @property
    def error_column(self) -> str:
        """The column of its standard error."""
        return f"{self._snake_case}_standard_error"

    @property
    def _snake_case(self) -> str:
        return f"{_SNAKE_CASE.get(self.metric, self.metric.value.lower())}_at_{self.k}"

    @property
    def is_default(self) -> bool:
        """Whether it is MAP@10, which is always measured."""
        return self == Selection()

    @property
    def reach(self) -> int:
        """Up to which rank the ranks must be known: the figures at 10 are always told."""
        return max(K, self.k)

    def of_users(
        self, ranks: NDArray[np.integer], group: NDArray[np.int64], user: NDArray[np.int64]
    ) -> PerUser:
        """(n_users,) the metric of each user.

        Args:
            ranks: (n_held_out,) 1-based, known up to `k` at least.
            group: group of each held-out interaction, see `group_by_user`.
            user: user of each group.
        """
        hits, n_relevant = hits_of_groups(ranks, group, self.k), np.bincount(group)
        at_once = _HITS_AT_ONCE // self.k
        blocks = [slice(first, first + at_once) for first in range(0, len(hits), at_once)]
        metric = _METRICS[self.metric]
        return mean_of_users(np.concatenate([metric(hits[rows], n_relevant[rows]) for rows in blocks]), user)

    def estimate(
        self, ranks: NDArray[np.integer], group: NDArray[np.int64], user: NDArray[np.int64]
    ) -> Estimate:
        """Its mean over users; arguments as of `of_users`."""
        values = self.of_users(ranks, group, user)
        return Estimate(float(values.mean()), standard_error(values))

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"metric": self.metric.value, "k": self.k}

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any] | None) -> Self:
        """From JSON; MAP@10 where nothing is said, as in tables from before there was a choice."""
        return cls(SelectBy(values["metric"]), values["k"]) if values else cls()


MAP_AT_10 = Selection()
