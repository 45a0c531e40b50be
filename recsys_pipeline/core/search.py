"""What became of the trials of a search."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_pipeline.core.holdout import Split
from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.metrics import Scores, group_by_user
from recsys_pipeline.core.selecting import Estimate, Selection

# What may tell searches over the same data apart, for people.
SEARCHES_DIFFER_IN = ("weights", "solver", "seed", "k")


class TrialResult(NamedTuple):
    """What became of a trial.

    Attributes:
        hyperparameters: what was tried.
        scores: None for a trial that failed.
        fit_seconds: wall time of the training.
        failure: why it failed, empty for one that did not.
        iterations_done: fewer than asked for where halving stopped it; None for all of them.
        ranks: (n_held_out,) of the held-out interactions of all splits, up to the reach of what selects; one
            more is beyond.
        selected: the figure that selects, where that is not MAP@10.
    """

    hyperparameters: Hyperparameters
    scores: Scores | None
    fit_seconds: float
    failure: str = ""
    iterations_done: int | None = None
    ranks: NDArray[np.uint8] | None = None
    selected: Estimate | None = None

    @property
    def figure(self) -> float | None:
        """What trials are compared by, the larger the better; None for a trial that failed."""
        if self.selected:
            return self.selected.value
        return self.scores.map if self.scores else None

    def by(self, selection: Selection, group: NDArray[np.int64], user: NDArray[np.int64]) -> "TrialResult":
        """The same, to be compared by that. See `groups_of`."""
        if selection.is_default or self.ranks is None:
            return self._replace(selected=None)
        return self._replace(selected=selection.estimate(self.ranks, group, user))


def groups_of(splits: Sequence[Split]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Group of each held-out interaction and user of each group, over all splits: see `group_by_user`."""
    number = np.repeat(np.arange(len(splits)), [len(split.users) for split in splits])
    return group_by_user(number, np.concatenate([split.users for split in splits]))


def best_first(results: Sequence[TrialResult]) -> list[TrialResult]:
    """By what selects; among equals the cheaper model first; what was stopped, then what failed, last."""
    return sorted(
        results,
        key=lambda result: (
            result.scores is None,
            result.iterations_done is not None,
            -(result.figure or 0.0),
            result.hyperparameters.cost,
            result.hyperparameters,
        ),
    )


class KnownTrial(NamedTuple):
    """A finished trial, and the search that it belongs to.

    Attributes:
        search: what its scores depend on beside the hyperparameters: digest of the data, weights, solver,
            seed, versions and machine; and `k`, up to which its ranks are known.
        hyperparameters: what was tried.
        strengths: of the events, by its mapping; a name may have stood for other ones in another search.
        scores: how it ranks the held-out interactions.
        fit_seconds: wall time of the training.
        ranks: as in `TrialResult`.
    """

    search: Mapping[str, Any]
    hyperparameters: Hyperparameters
    strengths: Mapping[str, float]
    scores: Scores
    fit_seconds: float
    ranks: NDArray[np.uint8] | None

    def figure(self, selection: Selection, group: NDArray[np.int64], user: NDArray[np.int64]) -> float | None:
        """What it is compared by; None where its ranks do not reach so far. See `groups_of`."""
        if selection.is_default:
            return self.scores.map
        if self.ranks is None or self.search["k"] < selection.k:
            return None
        return selection.estimate(self.ranks, group, user).value


def best_known_first(
    known: Sequence[KnownTrial], figures: Sequence[float | None]
) -> list[tuple[KnownTrial, float | None]]:
    """With the figure of each; those that have none last, among them and among equals by MAP@10."""

    def order(each: tuple[KnownTrial, float | None]) -> tuple[Any, ...]:
        trial, figure = each
        search = (*(trial.search[name] for name in SEARCHES_DIFFER_IN), sorted(trial.strengths.items()))
        return (figure is None, -(figure or 0.0), -trial.scores.map, trial.hyperparameters, *search)

    return sorted(zip(known, figures, strict=True), key=order)
