"""What events mean, and what those of an interaction add up to."""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray


class Aggregate(Enum):
    """What several events of one interaction add up to."""

    sum = "sum"
    max = "max"


class EventRules(NamedTuple):
    """What the events mean; travels with the tables.

    Attributes:
        strengths: strength of each event.
        aggregate: what several events of an interaction add up to.
        target_events: events that may be held out.
        seen_events: events that exclude the item from recommendation.
    """

    strengths: Mapping[str, float]
    aggregate: Aggregate
    target_events: Sequence[str]
    seen_events: Sequence[str]

    def to_metadata(self) -> dict[str, Any]:
        """As JSON."""
        return {**self._asdict(), "aggregate": self.aggregate.value}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> Self:
        """From what `to_metadata` gave; of a table without metadata: nothing is known."""
        return cls(
            metadata.get("strengths", {}),
            Aggregate(metadata.get("aggregate", Aggregate.sum.value)),
            metadata.get("target_events", []),
            metadata.get("seen_events", []),
        )


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
