"""Whether two solvers of the same loss find the same model."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from recsys_pipeline.core.comparison import Interval, bootstrap_means, intervals
from recsys_pipeline.core.metrics import K
from recsys_pipeline.core.selecting import MAP_AT_10

# By how much solvers that start from the same random factors may differ: the share of the reference's MAP@10
# that the interval of the difference must not lie beyond, and the share of ranks. See docs/search.md.
MOST_OF_MAP = 0.01
MOST_OF_RANKS = 0.05


class Agreement(NamedTuple):
    """The chosen trial by its solver beside the same trial by the reference, held-out pair by pair.

    Attributes:
        map: MAP@10 by the solver.
        reference_map: MAP@10 by the reference.
        difference: 95 % interval of `map` minus `reference_map`, a paired bootstrap over users.
        ranks_differing: share of the held-out interactions whose rank within the first 10 differs.
        failure: why there are no figures, all of which are 0 then; empty where there are.
    """

    map: float
    reference_map: float
    difference: Interval
    ranks_differing: float
    failure: str = ""

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """From JSON."""
        return cls(**{**values, "difference": Interval(*values["difference"])})

    @classmethod
    def failed(cls, reason: str) -> Self:
        """The reference could not be trained."""
        return cls(0.0, 0.0, Interval(0.0, 0.0), 0.0, reason)

    @property
    def is_as_good(self) -> bool:
        """Whether nothing says that the one solver finds better models than the other."""
        most = MOST_OF_MAP * self.reference_map
        return not (self.failure or self.difference.low > most or self.difference.high < -most)

    @property
    def holds(self) -> bool:
        """Whether nothing says that the solvers are further apart than rounding explains."""
        return self.is_as_good and self.ranks_differing <= MOST_OF_RANKS


def agreement(
    ranks: NDArray[np.uint8],
    reference_ranks: NDArray[np.uint8],
    group: NDArray[np.int64],
    user: NDArray[np.int64],
    seed: int,
) -> Agreement:
    """Compare two fits of a trial.

    Args:
        ranks: (n_held_out,) by the solver.
        reference_ranks: (n_held_out,) by the reference.
        group: group of each held-out interaction, see `group_by_user`.
        user: user of each group.
        seed: of the bootstrap.
    """
    # Whatever selects: within the first 10, by which docs/search.md compares the solvers.
    ranks, reference_ranks = np.minimum(ranks, K + 1), np.minimum(reference_ranks, K + 1)
    of_users = np.stack([MAP_AT_10.of_users(each, group, user) for each in (ranks, reference_ranks)], axis=1)
    (difference,) = intervals(bootstrap_means(of_users[:, :1] - of_users[:, 1:], seed))
    own, reference = of_users.mean(axis=0).tolist()
    return Agreement(own, reference, difference, float(np.mean(ranks != reference_ranks)))
