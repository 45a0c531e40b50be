"""The trials of a search, and the fewest fits that answer them all."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from random import Random
from typing import Any, NamedTuple, Self

# The confidence in a pair of weight w: `implicit`'s, and that of Hu et al. (2008) and Spark.
ALPHA_W = "alpha * w"
ONE_PLUS_ALPHA_W = "1 + alpha * w"
# The weight of a pair: BM25 of its strength, or the strength itself.
BM25 = "bm25"
NO_WEIGHTING = "none"
# Name of the mapping from events to strengths that the feedback is described with.
DEFAULT_STRENGTHS = "default"


class Trial(NamedTuple):
    """One configuration.

    Attributes:
        factors: number of latent factors.
        regularization: penalty on the squared length of the factors.
        alpha: factor of the weights in the confidence.
        iterations: of ALS.
        bm25_k1: of the weights.
        bm25_b: of the weights.
        nu: power of a row's frequency by which its penalty grows; 0 is `implicit`'s.
        unobserved_weight: confidence of a pair that was not observed; 1 is `implicit`'s.
        confidence: ALPHA_W or ONE_PLUS_ALPHA_W.
        weighting: BM25 or NO_WEIGHTING, for which K1 and B are 0.
        strengths: name of the mapping from events to strengths.
        starts: random starts whose scores are added.
    """

    factors: int
    regularization: float
    alpha: float
    iterations: int
    bm25_k1: float
    bm25_b: float
    nu: float = 0.0
    unobserved_weight: float = 1.0
    confidence: str = ALPHA_W
    weighting: str = BM25
    strengths: str = DEFAULT_STRENGTHS
    starts: int = 1

    @property
    def weights(self) -> "WeightKey":
        """What tells the weights of the pairs apart."""
        return self.strengths, self.weighting, self.bm25_k1, self.bm25_b

    @property
    def width(self) -> int:
        """Factors of all starts."""
        return self.factors * self.starts

    @property
    def cost(self) -> tuple[int, int]:
        """What makes a model dear, first to serve, then to train: its width, its iterations."""
        return self.width, self.iterations

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """The trial with these attributes; other keys do not count."""
        return cls(**{name: values[name] for name in cls._fields if name in values})


# Mapping, weighting, K1 and B.
WeightKey = tuple[str, str, float, float]


class Fit(NamedTuple):
    """One training run that answers every trial differing in iterations alone.

    Attributes:
        longest: the trial that takes the most iterations.
        checkpoints: the iterations of all its trials, ascending.
    """

    longest: Trial
    checkpoints: tuple[int, ...]

    def trial(self, iterations: int) -> Trial:
        """The trial that this fit answers after so many iterations."""
        return self.longest._replace(iterations=iterations)


def grid(**lists: Sequence[Any]) -> list[Trial]:
    """Every combination of the attributes' lists once, in the order of the lists."""
    combinations = product(*lists.values())
    trials = (Trial(**dict(zip(lists, values, strict=True))) for values in combinations)
    return list(dict.fromkeys(_without_idle_dimensions(trial) for trial in trials))


def _without_idle_dimensions(trial: Trial) -> Trial:
    """Trials that differ only in what they do not use are one."""
    return trial if trial.weighting == BM25 else trial._replace(bm25_k1=0.0, bm25_b=0.0)


def draw(n_trials: int, seed: int, **lists: Sequence[Any]) -> list[Trial]:
    """Trials drawn between the least and the largest value of each list.

    Integers are drawn evenly on a logarithmic scale, as are floats whose list is above 0 throughout but
    for `bm25_b` and `nu`, which are shares; texts are drawn from the list.
    """
    rng = Random(seed)
    drawn = (
        Trial(**{name: _draw_value(rng, name, values) for name, values in lists.items()})
        for _ in range(n_trials)
    )
    return [_without_idle_dimensions(trial) for trial in drawn]


def _draw_value(rng: Random, name: str, values: Sequence[Any]) -> Any:
    share = rng.random()
    if isinstance(values[0], str):
        return values[int(share * len(values))]
    low, high = min(values), max(values)
    if low > 0 and name not in ("bm25_b", "nu"):
        value = low * math.exp(share * math.log(high / low))
    else:
        value = low + share * (high - low)
    return round(value) if isinstance(low, int) else float(f"{value:.4g}")


def fits_for(trials: Iterable[Trial]) -> list[Fit]:
    """The fits that answer all trials: the factors after 10 of 20 iterations are those of a fit of 10."""
    checkpoints: dict[Trial, set[int]] = {}
    for trial in trials:
        checkpoints.setdefault(trial._replace(iterations=0), set()).add(trial.iterations)
    return [
        Fit(trial._replace(iterations=max(wanted)), tuple(sorted(wanted)))
        for trial, wanted in checkpoints.items()
    ]
