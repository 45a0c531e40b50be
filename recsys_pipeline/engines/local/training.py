"""Fits of this machine: trained in stages, scored on the way."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from recsys_pipeline.core.holdout import Split
from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.metrics import K, hits_of_groups, score
from recsys_pipeline.core.ranking import Factors, held_out_ranks
from recsys_pipeline.core.search import TrialResult, groups_of

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


class Fit(NamedTuple):
    """One training run that answers every trial differing in iterations alone.

    Attributes:
        longest: the trial that takes the most iterations.
        checkpoints: the iterations of all its trials, ascending.
    """

    longest: Hyperparameters
    checkpoints: tuple[int, ...]

    def trial(self, iterations: int) -> Hyperparameters:
        """The trial that this fit answers after so many iterations."""
        return self.longest.replace(iterations=iterations)


def fits_for(trials: Iterable[Hyperparameters]) -> list[Fit]:
    """The fits that answer all trials: the factors after 10 of 20 iterations are those of a fit of 10."""
    checkpoints: dict[Hyperparameters, set[int]] = {}
    for trial in trials:
        checkpoints.setdefault(trial.replace(iterations=0), set()).add(trial.iterations)
    return [
        Fit(trial.replace(iterations=max(wanted)), tuple(sorted(wanted)))
        for trial, wanted in checkpoints.items()
    ]


class Checkpoint(NamedTuple):
    """The state of a fit after so many iterations: all it takes to go on.

    Attributes:
        iterations: done since the random start.
        user_factors: (n_users, factors) float32.
        item_factors: (n_items, factors) float32.
        seconds: wall time of the training up to here.
    """

    iterations: int
    user_factors: NDArray[np.float32]
    item_factors: NDArray[np.float32]
    seconds: float

    @property
    def factors(self) -> Factors:
        """The model of this state."""
        return Factors(self.user_factors, self.item_factors)


def random_start(
    shape: tuple[int, int], factors: int, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The factors of users and items that a fit begins with: `implicit`'s on the CPU, for every solver."""
    rng = np.random.default_rng(seed)
    users, items = (rng.random((n_rows, factors), dtype=np.float32) * np.float32(0.01) for n_rows in shape)
    return users, items


class Trainer(Protocol):
    """Whatever solves ALS."""

    def train(
        self, user_items: "csr_matrix", fit: Fit, seed: int, start: Checkpoint | None = None
    ) -> Iterator[Checkpoint]:
        """Yield the factors at each of the fit's checkpoints; the arrays may change afterwards.

        Args:
            user_items: weighted users x items matrix.
            fit: what to train.
            seed: of the random start.
            start: where an earlier fit of the same trial stopped, to go on from there.
        """
        ...


def train_to_the_end(
    trainer: Trainer, user_items: "csr_matrix", hyperparameters: Hyperparameters, seed: int
) -> Checkpoint:
    """One whole fit.

    Raises:
        FloatingPointError: it diverged.
    """
    (fit,) = fits_for([hyperparameters])
    (state,) = trainer.train(user_items, fit, seed)
    state.factors.require_finite()
    return state


def score_fit(
    splits: Sequence[Split],
    fit: Fit,
    trainer: Trainer,
    seed: int,
    resumed: Sequence[Checkpoint] | None = None,
    reach: int = K,
) -> Iterator[tuple[TrialResult, list[Checkpoint]]]:
    """Train once a split and score every trial of the fit on the way.

    Args:
        splits: what to train and score on.
        fit: what to train.
        trainer: who trains.
        seed: of the random starts.
        resumed: where earlier fits of the same trial stopped, one a split.
        reach: up to which rank the ranks are told, K at least.

    Raises:
        FloatingPointError: the fit diverged; what was yielded before stands.
    """
    group, user = groups_of(splits)
    n_relevant = np.bincount(group)
    training = [
        trainer.train(split.user_items(fit.longest), fit, seed, resumed[number] if resumed else None)
        for number, split in enumerate(splits)
    ]
    for states in zip(*training, strict=True):
        ranks = np.concatenate(
            [
                held_out_ranks(state.factors, split.exclusions, split.users, split.items, k=reach)
                for state, split in zip(states, splits, strict=True)
            ]
        ).astype(np.uint8)
        scores = score(hits_of_groups(ranks, group), n_relevant, user)
        seconds = sum(state.seconds for state in states)
        yield TrialResult(fit.trial(states[0].iterations), scores, seconds, ranks=ranks), list(states)
