"""What many values are like, in few numbers."""

from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

# Of the quantiles: the least, the tenth, the median, the nine tenths, the 99 hundredths, the greatest.
PROBABILITIES = (0.0, 0.1, 0.5, 0.9, 0.99, 1.0)


class Distribution(NamedTuple):
    """Quantiles and mean of a sample.

    Attributes:
        quantiles: one for each of `PROBABILITIES`, interpolated between neighbours.
        mean: of all values.
    """

    quantiles: tuple[float, ...]
    mean: float

    @classmethod
    def of(cls, values: NDArray[Any]) -> Self:
        """That of (n,) values, one at least."""
        return cls(tuple(np.quantile(values, PROBABILITIES).tolist()), float(np.mean(values)))

    @property
    def median(self) -> float:
        """Half of the values are not above it."""
        return self.quantiles[PROBABILITIES.index(0.5)]


class Frequencies(NamedTuple):
    """How often each value occurs: all of a sample of integers, in little room.

    Attributes:
        values: (n_distinct,), ascending.
        counts: (n_distinct,) how often each occurs.
    """

    values: NDArray[np.int64]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, values: NDArray[np.integer]) -> Self:
        """Those of (n,) values, one at least."""
        return cls(*np.unique(values.astype(np.int64), return_counts=True))

    @property
    def n(self) -> int:
        """How many values there are, equal ones counted one by one."""
        return int(self.counts.sum())

    def distribution(self) -> Distribution:
        """That of the values."""
        places = (self.n - 1) * np.array(PROBABILITIES)
        last = np.cumsum(self.counts) - 1
        low, high = (self.values[np.searchsorted(last, side)] for side in (np.floor(places), np.ceil(places)))
        quantiles = low + (high - low) * (places - np.floor(places))
        return Distribution(tuple(quantiles.tolist()), float(self.values @ self.counts) / self.n)

    def share_with_at_least(self) -> NDArray[np.float64]:
        """(n_distinct,) the share of the values that are not below each."""
        shares: NDArray[np.float64] = np.cumsum(self.counts[::-1])[::-1] / self.n
        return shares

    def share_of_greatest(self, n: int) -> float:
        """What the n greatest values have of the sum of all."""
        values, counts = self.values[::-1], self.counts[::-1]
        taken = np.diff(np.minimum(np.cumsum(counts), n), prepend=0)
        return float(values @ taken / (values @ counts))
