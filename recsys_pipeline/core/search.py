"""What became of the trials of a search."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_pipeline.core.holdout import Split
from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.metrics import Scores, group_by_user


class TrialResult(NamedTuple):
    """What became of a trial.

    Attributes:
        hyperparameters: what was tried.
        scores: None for a trial that failed.
        fit_seconds: wall time of the training.
        failure: why it failed, empty for one that did not.
        iterations_done: fewer than asked for where halving stopped it; None for all of them.
        ranks: (n_held_out,) of the held-out interactions of all splits; K + 1 is beyond K.
    """

    hyperparameters: Hyperparameters
    scores: Scores | None
    fit_seconds: float
    failure: str = ""
    iterations_done: int | None = None
    ranks: NDArray[np.uint8] | None = None


def groups_of(splits: Sequence[Split]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Group of each held-out interaction and user of each group, over all splits: see `group_by_user`."""
    number = np.repeat(np.arange(len(splits)), [len(split.users) for split in splits])
    return group_by_user(number, np.concatenate([split.users for split in splits]))


def best_first(results: Sequence[TrialResult]) -> list[TrialResult]:
    """By MAP@10; among equals the cheaper model first; what was stopped, then what failed, last."""
    return sorted(
        results,
        key=lambda result: (
            result.scores is None,
            result.iterations_done is not None,
            -result.scores.map if result.scores else 0.0,
            result.hyperparameters.cost,
            result.hyperparameters,
        ),
    )
