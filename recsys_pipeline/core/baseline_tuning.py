"""What a tuned model should beat: the baselines by family, what was tried of each, and which one is best."""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from recsys_pipeline.core.hyperparameters import DEFAULT_STRENGTHS
from recsys_pipeline.core.item_graph import GraphFilter
from recsys_pipeline.core.metrics import Scores
from recsys_pipeline.core.selecting import Estimate


class Family(Enum):
    """The kinds of baselines."""

    item_knn = "item_knn"
    graph_filter = "graph_filter"
    ease = "ease"
    popularity = "popularity"
    repeat_consumption = "repeat_consumption"


# Those that learn from all interactions.
FITTED = (Family.item_knn, Family.graph_filter, Family.ease)


class Baseline(NamedTuple):
    """One configuration of a baseline; None where a parameter means nothing to its family.

    Attributes:
        family: which kind.
        strengths: name of the mapping from events to strengths; what it leaves out does not count.
        weighting: of the interactions.
        neighbours: of an item that count, of item-kNN.
        shrinkage: of the similarities, see `item_knn.NearestItems`.
        user_exponent: of the graph filter, see `item_graph.GraphFilter`.
        item_exponent: the same.
        penalty: of EASE, see `ease.ease_scorer`.
    """

    family: Family
    strengths: str | None = None
    weighting: str | None = None
    neighbours: int | None = None
    shrinkage: float | None = None
    user_exponent: float | None = None
    item_exponent: float | None = None
    penalty: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """As JSON, or as a row."""
        return {**self._asdict(), "family": self.family.value}

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """From a row or from JSON; other keys do not count."""
        known = {name: values[name] for name in cls._fields}
        return cls(**{**known, "family": Family(values["family"])})

    def graph_filter(self) -> GraphFilter:
        """The parameters of a graph filter, with the strengths of the feedback."""
        assert self.user_exponent is not None
        assert self.item_exponent is not None
        assert self.weighting is not None
        return GraphFilter(self.user_exponent, self.item_exponent, self.weighting)

    def told(self) -> dict[str, Any]:
        """The parameters that mean something to its family, by name."""
        values = self.as_dict()
        del values["family"]
        if self.strengths == DEFAULT_STRENGTHS:
            del values["strengths"]
        return {name: value for name, value in values.items() if value is not None}


class BaselineResult(NamedTuple):
    """What became of a configuration.

    Attributes:
        baseline: what was tried.
        scores: None where it was not measured.
        seconds: wall time of training and lists; what several configurations share counts in each.
        failure: why it was not measured, empty where it was.
        ranks: (n_held_out,) of the held-out interactions of all splits, up to the reach of what selects; one
            more is beyond.
        selected: the figure that selects, where that is not MAP@10.
    """

    baseline: Baseline
    scores: Scores | None
    seconds: float
    failure: str = ""
    ranks: NDArray[np.uint8] | None = None
    selected: Estimate | None = None

    @property
    def figure(self) -> float | None:
        """What baselines are compared by, the larger the better; None where it was not measured."""
        if self.selected:
            return self.selected.value
        return self.scores.map if self.scores else None


def best_baselines_first(results: Sequence[BaselineResult]) -> list[BaselineResult]:
    """By what selects, among equals in the given order; what was not measured last."""
    return sorted(results, key=lambda result: (result.figure is None, -(result.figure or 0.0)))
