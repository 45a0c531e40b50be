"""The trials of a search, and the fewest fits that answer them all."""

from collections.abc import Iterable, Sequence
from itertools import product
from typing import NamedTuple


class Trial(NamedTuple):
    """One configuration of the grid."""

    factors: int
    regularization: float
    alpha: float
    iterations: int
    bm25_k1: float
    bm25_b: float


class Fit(NamedTuple):
    """One training run that answers every trial differing in iterations alone."""

    factors: int
    regularization: float
    alpha: float
    bm25_k1: float
    bm25_b: float
    checkpoints: tuple[int, ...]

    def trial(self, iterations: int) -> Trial:
        """The trial that this fit answers after so many iterations."""
        return Trial(self.factors, self.regularization, self.alpha, iterations, self.bm25_k1, self.bm25_b)


def grid(
    factors: Sequence[int],
    regularization: Sequence[float],
    alpha: Sequence[float],
    iterations: Sequence[int],
    bm25_k1: Sequence[float],
    bm25_b: Sequence[float],
) -> list[Trial]:
    """Every combination once, in the order of the lists."""
    combinations = product(factors, regularization, alpha, iterations, bm25_k1, bm25_b)
    return list(dict.fromkeys(Trial(*combination) for combination in combinations))


def fits_for(trials: Iterable[Trial]) -> list[Fit]:
    """The fits that answer all trials: the factors after 10 of 20 iterations are those of a fit of 10."""
    checkpoints: dict[Fit, set[int]] = {}
    for trial in trials:
        fit = Fit(trial.factors, trial.regularization, trial.alpha, trial.bm25_k1, trial.bm25_b, ())
        checkpoints.setdefault(fit, set()).add(trial.iterations)
    return [fit._replace(checkpoints=tuple(sorted(wanted))) for fit, wanted in checkpoints.items()]
