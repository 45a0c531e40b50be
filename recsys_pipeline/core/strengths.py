"""What events mean, and what those of an interaction add up to."""

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from recsys_pipeline.core.columns import TIMESTAMP
from recsys_pipeline.core.errors import InputError


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
        window_days: only events of so many days before the latest one count; 0 takes all.
        half_lives: in days; the fading of the events is known by each of them.
    """

    strengths: Mapping[str, float]
    aggregate: Aggregate
    target_events: Sequence[str]
    seen_events: Sequence[str]
    window_days: float = 0.0
    half_lives: Sequence[float] = ()

    def to_metadata(self) -> dict[str, Any]:
        """As JSON; without times, where they do not matter, it is what it was before they could."""
        of_time = {"window_days": self.window_days, "half_lives": list(self.half_lives)}
        told = {name: value for name, value in self._asdict().items() if name not in of_time}
        told |= {name: value for name, value in of_time.items() if value}
        return {**told, "aggregate": self.aggregate.value}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> Self:
        """From what `to_metadata` gave; of a table without metadata: nothing is known."""
        return cls(
            metadata.get("strengths", {}),
            Aggregate(metadata.get("aggregate", Aggregate.sum.value)),
            metadata.get("target_events", []),
            metadata.get("seen_events", []),
            metadata.get("window_days", 0.0),
            metadata.get("half_lives", []),
        )


def require_strengths(unknown: Iterable[str]) -> None:
    """Refuse events that have no strength.

    Raises:
        InputError: there are some; it names them.
    """
    if names := sorted(unknown):
        raise InputError(
            f"raw_feedback holds events with no strength: {', '.join(names)}. "
            "Give each a strength in the `feedback` resource and materialize raw_feedback again."
        )


def no_times(setting: str) -> InputError:
    """What is wrong with a setting of feedback_strengths that needs times, of a feed that has none."""
    return InputError(
        f"{setting} of feedback_strengths needs times, and the feed has no column {TIMESTAMP}: name the one "
        "that it has (timestamp_column of the `feedback` resource, RECSYS_TIMESTAMP_COLUMN), or leave the "
        "setting out."
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


def faded_strengths(
    fades: Mapping[str, NDArray[np.floating]], strengths: Mapping[str, float], aggregate: Aggregate
) -> NDArray[np.float64]:
    """(n_interactions,) what the fading events of each add up to; an event without a strength counts nothing.

        strength[u, i] = sum over the events of u and i of strength[event] * 2 ** (-age / half_life)

    or the greatest of these terms.

    Args:
        fades: (n_interactions,) of each event the sum of 2 ** (-age / half_life), or, by `max`, the greatest;
            at least one event.
        strengths: strength of each event name.
        aggregate: `sum` or `max`.

    Source of the formula: Ding and Li, "Time Weight Collaborative Filtering" (2005).
    """
    total = np.zeros(len(next(iter(fades.values()))))
    combine = np.add if aggregate is Aggregate.sum else np.maximum
    for event, strength in strengths.items():
        if event in fades:
            combine(total, fades[event] * strength, out=total)
    return total
