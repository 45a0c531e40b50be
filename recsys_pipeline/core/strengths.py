"""What the events of an interaction add up to."""

from collections.abc import Mapping
from enum import Enum

import numpy as np
from numpy.typing import NDArray


class Aggregate(Enum):
    """What several events of one interaction add up to."""

    sum = "sum"
    max = "max"


def combined_strengths(
    counts: Mapping[str, NDArray[np.integer]], strengths: Mapping[str, float], aggregate: Aggregate
) -> NDArray[np.float64]:
    """(n_interactions,) what the events of each add up to; an event without a strength counts nothing.

    Args:
        counts: (n_interactions,) how often each event occurred; at least one event.
        strengths: strength of each event name.
        aggregate: `sum` of the strengths of an interaction's events, or their `max`.
    """
    total = np.zeros(len(next(iter(counts.values()))))
    for event, strength in strengths.items():
        if event in counts:
            if aggregate is Aggregate.sum:
                total += counts[event] * strength
            else:
                np.maximum(total, (counts[event] > 0) * strength, out=total)
    return total
