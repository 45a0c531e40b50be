"""An ensemble of one trial: models with different random starts, whose scores are added."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.engines.local.training import Checkpoint, Fit, Trainer

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

# Between the seeds of the models, so that they are not those of a search with the next seed.
_STRIDE = 1_000_003
_SEEDS = 2**32


def seeds_of(trial: Hyperparameters, seed: int) -> list[int]:
    """The seeds of the models of a trial."""
    if trial.ensemble_size == 1:
        return [seed]
    return [(seed + _STRIDE * number) % _SEEDS for number in range(trial.ensemble_size)]


class Ensemble:
    """Trains a trial from several random starts and puts the factors side by side.

    The product of the wide factors is the sum of the models' scores; what they owe to chance averages out.
    """

    def __init__(self, trainer: Trainer) -> None:
        """`trainer` trains each model."""
        self._trainer = trainer

    def train(
        self, user_items: "csr_matrix", fit: Fit, seed: int, start: Checkpoint | None = None
    ) -> Iterator[Checkpoint]:
        """See `recsys_pipeline.engines.local.training.Trainer`; factors are (n, ensemble_size * factors)."""
        n = fit.longest.ensemble_size
        if n == 1:
            yield from self._trainer.train(user_items, fit, seed, start)
            return
        begins = _parts(start, n) if start else [None] * n
        runs = [
            self._trainer.train(user_items, fit, own, begin)
            for own, begin in zip(seeds_of(fit.longest, seed), begins, strict=True)
        ]
        for states in zip(*runs, strict=True):
            yield Checkpoint(
                states[0].iterations,
                np.hstack([state.user_factors for state in states]),
                np.hstack([state.item_factors for state in states]),
                sum(state.seconds for state in states),
            )


def _parts(state: Checkpoint, n: int) -> list[Checkpoint]:
    users, items = (np.split(wide, n, axis=1) for wide in (state.user_factors, state.item_factors))
    return [
        Checkpoint(
            state.iterations,
            np.ascontiguousarray(of_users),
            np.ascontiguousarray(of_items),
            state.seconds / n,
        )
        for of_users, of_items in zip(users, items, strict=True)
    ]
