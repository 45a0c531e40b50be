"""How sure a difference is: bootstrap over users, and the choice among trials that rests on it."""

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_pipeline.core.search import TrialResult
from recsys_pipeline.core.selecting import MAP_AT_10, Selection

N_RESAMPLES = 1000
LEVEL = 0.95
# Resamples that are drawn at once: bounds the memory.
_COUNTS_AT_ONCE = 1 << 21


class Interval(NamedTuple):
    """Ends of a 95 % interval."""

    low: float
    high: float


def bootstrap_means(
    values: NDArray[np.float64], seed: int, n_resamples: int = N_RESAMPLES
) -> NDArray[np.float64]:
    """(n_resamples, n_columns) means of the columns over users drawn with replacement.

    Every column sees the same draws, so that differences between columns are paired.

    Args:
        values: (n_users, n_columns).
        seed: of the draws.
        n_resamples: how many.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993).
    """
    rng = np.random.default_rng(seed)
    n_users = len(values)
    means = np.empty((n_resamples, values.shape[1]))
    at_once = max(1, _COUNTS_AT_ONCE // n_users)
    for first in range(0, n_resamples, at_once):
        n = min(at_once, n_resamples - first)
        drawn = rng.integers(0, n_users, (n, n_users)) + n_users * np.arange(n)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=n * n_users).reshape(n, n_users)
        means[first : first + n] = counts @ values / n_users
    return means


def intervals(means: NDArray[np.float64]) -> list[Interval]:
    """The percentile interval of each column of bootstrap means."""
    ends = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return [Interval(low, high) for low, high in ends.T.tolist()]


class Difference(NamedTuple):
    """Of a mean between two models, on the same held-out interactions.

    Attributes:
        mean: the one minus the other.
        interval: of it, a paired bootstrap over users.
    """

    mean: float
    interval: Interval


def mean_difference(
    ranks: NDArray[np.integer],
    others: NDArray[np.integer],
    group: NDArray[np.int64],
    user: NDArray[np.int64],
    seed: int,
    selection: Selection = MAP_AT_10,
) -> Difference:
    """What selects by the one ranks minus that by the others.

    Args:
        ranks: (n_held_out,) 1-based.
        others: (n_held_out,) of the same held-out interactions.
        group: group of each held-out interaction, see `group_by_user`.
        user: user of each group.
        seed: of the bootstrap.
        selection: what is compared.
    """
    differences = selection.of_users(ranks, group, user) - selection.of_users(others, group, user)
    (interval,) = intervals(bootstrap_means(differences[:, None], seed))
    return Difference(float(differences.mean()), interval)


def compare_with_best(
    ranking: Sequence[TrialResult],
    group: NDArray[np.int64],
    user: NDArray[np.int64],
    seed: int,
    selection: Selection = MAP_AT_10,
) -> list[Interval | None]:
    """The interval of what selects, each trial's minus the first's, paired; None for a trial that failed.

    Args:
        ranking: best first, the first with ranks.
        group: group of each held-out interaction, see `group_by_user`.
        user: user of each group.
        seed: of the bootstrap.
        selection: what is compared.
    """
    of_users: dict[bytes, NDArray[np.float64]] = {}
    keys = []
    for result in ranking:
        key = b"" if result.ranks is None else result.ranks.tobytes()
        keys.append(key)
        if result.ranks is not None and key not in of_users:
            of_users[key] = selection.of_users(result.ranks, group, user)
    columns = {key: number for number, key in enumerate(of_users)}
    values = np.stack(list(of_users.values()), axis=1)
    differences = intervals(bootstrap_means(values - values[:, :1], seed))
    return [differences[columns[key]] if key in columns else None for key in keys]


class Prefer(Enum):
    """Which trial is chosen: the best, or the cheapest that is not significantly worse."""

    best = "best"
    simplest = "simplest"


class Switch(Enum):
    """When the incumbent's configuration gives way: to a better trial, or only to a significantly better."""

    always = "always"
    significant = "significant"


class Choice(NamedTuple):
    """Which trial the model is made of, and what that means for the incumbent.

    Attributes:
        chosen: its place in the ranking.
        incumbent: place of the incumbent; None where there is none.
        lead: of the best trial over the incumbent, in what selects; None where the incumbent has no score.
        interval: of `lead`, a paired bootstrap over users.
        prefer: what was preferred among the trials.
        switch: when the incumbent gives way.
    """

    chosen: int
    incumbent: int | None
    lead: float | None
    interval: Interval | None
    prefer: Prefer
    switch: Switch

    @property
    def is_significant(self) -> bool:
        """Whether the best trial is better than the incumbent by more than chance."""
        return self.interval is not None and self.interval.low > 0


def choose_or_keep(
    ranking: Sequence[TrialResult],
    differences: Sequence[Interval | None],
    incumbent: int | None,
    prefer: Prefer,
    switch: Switch,
) -> Choice:
    """Choose among the trials, and weigh what is chosen against the incumbent.

    `prefer` comes first. With `switch` significant the incumbent gives way to what that takes only where the
    best trial is better than the incumbent by more than chance: that another is cheaper is no reason.

    Args:
        ranking: best first, the first with scores.
        differences: of each trial to the best, see `compare_with_best`.
        incumbent: its place, None where there is none.
        prefer: which trial is preferred.
        switch: when the incumbent gives way.
    """
    choice = Choice(choose(ranking, differences, prefer), incumbent, None, None, prefer, switch)
    difference = None if incumbent is None else differences[incumbent]
    if incumbent is None or difference is None:
        return choice
    best, own = ranking[0].figure, ranking[incumbent].figure
    assert best is not None
    assert own is not None
    # Subtracted, not negated: nobody wants to read of -0.0.
    lead = Interval(0.0 - difference.high, 0.0 - difference.low)
    choice = choice._replace(lead=best - own, interval=lead)
    if switch is Switch.significant and not choice.is_significant:
        return choice._replace(chosen=incumbent)
    return choice


def choose(ranking: Sequence[TrialResult], differences: Sequence[Interval | None], prefer: Prefer) -> int:
    """Place of the chosen trial: the first, or of those not distinguishable from it the cheapest.

    Cheapest is: fewest factors (of the whole ensemble), then fewest iterations, then the better one.
    A trial that halving stopped early is not chosen.
    """
    if prefer is Prefer.best:
        return 0
    equals = [
        place
        for place, (result, difference) in enumerate(zip(ranking, differences, strict=True))
        if difference and difference.high >= 0 and result.iterations_done is None
    ]
    return min(equals, key=lambda place: (*ranking[place].hyperparameters.cost, place))
