"""Penalty and unobserved weight relative to the data, and where they ruin a model.

The same `regularization` is nothing on one data set and everything on another: what it does depends on the
confidences, on nu and on how many interactions there are. Two figures mean the same everywhere.

- Relative unobserved weight: w0 divided by the mean confidence of an interaction.
- Relative penalty: the penalty r of a typical row (see `recsys_pipeline.core.loss`), divided by the mean
  confidence and by the level of the noise. Near zero the terms of fourth order in the factors vanish, and a
  direction grows only if its singular value in the matrix of confidences, divided by the roots of both sides'
  penalties, exceeds 1. A matrix with the same entries at random places has singular values up to about

      rms(c) * (sqrt(interactions per user) + sqrt(interactions per item))

  so a relative penalty of 1 is where noise, and with it all but the strongest structure, vanishes.

Source of the bound of random matrices: Bai and Yin, "Limit of the Smallest Eigenvalue of a Large Dimensional
Sample Covariance Matrix" (1993).
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from recsys_pipeline.core.hyperparameters import ONE_PLUS_ALPHA_W, Hyperparameters, without_unused

# Measured at 64 factors on four public data sets, see docs/search.md. From this relative penalty on, at most
# 61 % of the best MAP@10 was left, and mostly a quarter or less.
CRUSHING_PENALTY = 2.0
# Below this one, at most 51 % was left where all unobserved interactions together weigh less than the others.
IDLE_PENALTY = 0.03
# A relative penalty that is good on all of them.
USUAL_PENALTY = 0.25


class Weighting(NamedTuple):
    """What makes the weights of a configuration from its events; as in `Hyperparameters`."""

    strengths: str
    weighting: str
    bm25_K1: float
    bm25_B: float
    half_life_days: float = 0.0

    @classmethod
    def of(cls, trial: Hyperparameters) -> Self:
        """That of a configuration."""
        used = without_unused(trial)
        return cls(used.strengths, used.weighting, used.bm25_K1, used.bm25_B, used.half_life_days)

    def trial(self, factors: int = 1, nu: float = 0.0, ensemble_size: int = 1) -> Hyperparameters:
        """A configuration with these weights and nothing else decided; see `Scale.with_relative`."""
        return Hyperparameters(
            factors=factors,
            regularization=0.0,
            alpha=1.0,
            iterations=1,
            nu=nu,
            ensemble_size=ensemble_size,
            **self._asdict(),
        )


class Relative(NamedTuple):
    """Penalty and unobserved weight of a configuration, relative to the data."""

    penalty: float
    unobserved_weight: float


class Scale(NamedTuple):
    """The size of the data under one weighting.

    Attributes:
        n_users: rows.
        n_items: columns.
        n_interactions: observed, those that the strengths leave out not counted.
        mean_weight: of them.
        rms_weight: the root of the mean of the squared weights.
        least_weight: the smallest.
    """

    n_users: int
    n_items: int
    n_interactions: int
    mean_weight: float
    rms_weight: float
    least_weight: float

    @classmethod
    def of(cls, shape: tuple[int, int], weights: NDArray[np.floating]) -> Self:
        """That of (n_interactions,) weights of a users x items matrix of that shape; one weight at least."""
        mean, squares = (np.mean(values, dtype=np.float64) for values in (weights, np.square(weights)))
        return cls(*shape, len(weights), float(mean), float(np.sqrt(squares)), float(weights.min()))

    def noise(self, trial: Hyperparameters) -> float:
        """Largest singular value of noise, in mean confidences."""
        mean, rms = self.mean_weight * trial.alpha, self.rms_weight * trial.alpha
        if trial.confidence == ONE_PLUS_ALPHA_W:
            mean, rms = 1 + mean, float(np.sqrt(1 + 2 * mean + rms * rms))
        per_user, per_item = self.n_interactions / self.n_users, self.n_interactions / self.n_items
        return float(rms / mean * (np.sqrt(per_user) + np.sqrt(per_item)))

    def frequency(self, unobserved_weight: float) -> float:
        """What nu is the power of, in a typical row: the geometric mean of both sides."""
        of_user = self.n_interactions / self.n_users + unobserved_weight * self.n_items
        of_item = self.n_interactions / self.n_items + unobserved_weight * self.n_users
        return float(np.sqrt(of_user * of_item))

    def mean_confidence(self, trial: Hyperparameters) -> float:
        """Of an interaction."""
        return trial.alpha * self.mean_weight + (trial.confidence == ONE_PLUS_ALPHA_W)

    def relative(self, trial: Hyperparameters) -> Relative:
        """Penalty and unobserved weight of a configuration, relative to this data."""
        confidence = self.mean_confidence(trial)
        penalty = trial.regularization * self.frequency(trial.unobserved_weight) ** trial.nu
        return Relative(penalty / confidence / self.noise(trial), trial.unobserved_weight / confidence)

    def with_relative(
        self, trial: Hyperparameters, relative: Relative, *, as_implicit: bool
    ) -> Hyperparameters:
        """The configuration with alpha, regularization and unobserved weight so that these are relative.

        Args:
            trial: its nu, confidence and what makes the weights stand.
            relative: what is wanted.
            as_implicit: leave the unobserved weight 1, as `implicit` must, and raise alpha instead. Without,
                the mean confidence is 1.
        """
        confidence = 1 / relative.unobserved_weight if as_implicit else 1.0
        unobserved = 1.0 if as_implicit else relative.unobserved_weight
        scaled = trial.replace(
            alpha=_short(confidence / self.mean_weight), unobserved_weight=_short(unobserved)
        )
        of_one = self.frequency(scaled.unobserved_weight) ** trial.nu
        penalty = relative.penalty * self.noise(scaled) * confidence
        return scaled.replace(regularization=_short(penalty / of_one))

    def corner(self, trial: Hyperparameters) -> str:
        """Why this configuration is likely to be ruined; empty for one that is not."""
        relative = self.relative(trial)
        n_unobserved = self.n_users * self.n_items - self.n_interactions
        unobserved = relative.unobserved_weight * n_unobserved / self.n_interactions
        if relative.penalty >= CRUSHING_PENALTY:
            usual = _short(trial.regularization * USUAL_PENALTY / relative.penalty)
            return (
                f"the penalty is {relative.penalty:.2g} times what noise withstands, so most factors vanish; "
                f"a regularization of {usual:g} would be usual"
            )
        if relative.penalty < IDLE_PENALTY and unobserved < 1:
            return (
                f"all unobserved interactions together weigh {unobserved:.2g} of the observed, and hardly "
                "any penalty makes up for it: raise unobserved_weight or lower alpha"
            )
        return ""


def _short(value: float) -> float:
    """With three significant digits."""
    return float(f"{value:.3g}")


def corners(
    trials: Iterable[Hyperparameters], scales: Mapping[Weighting, Scale]
) -> dict[Hyperparameters, str]:
    """The configurations that are likely to be ruined, and why; those of an unknown scale are passed over."""
    known = ((trial, scales.get(Weighting.of(trial))) for trial in trials)
    told = ((trial, scale.corner(trial)) for trial, scale in known if scale is not None)
    return {trial: why for trial, why in told if why}
