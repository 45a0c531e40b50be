"""What a search around a known configuration tries."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Self

from recsys_pipeline.core.hyperparameters import (
    BM25,
    DIMENSIONS,
    Dimension,
    Hyperparameters,
    tried_values,
    without_unused,
)
from recsys_pipeline.core.search import TrialResult, best_first

# Of a dimension on a logarithmic scale whose list gives no ratio, for it has a zero.
_FACTOR = 2
# Their values are all tried in the first round, as those of texts are.
_LISTED = {dimension.name for dimension in DIMENSIONS if dimension.listed}


class Neighbourhood(NamedTuple):
    """The configurations around a start.

    Attributes:
        start: where the search begins.
        lists: by dimension, the values as configured.
        ladders: by dimension, the values that may be tried; numbers ascending.
    """

    start: Hyperparameters
    lists: Mapping[str, Sequence[Any]]
    ladders: Mapping[str, Sequence[Any]]

    @classmethod
    def around(
        cls,
        start: Hyperparameters,
        lists: Mapping[str, Sequence[Any]],
        steps_beyond: int,
        solvable: Callable[[Hyperparameters], bool] = lambda _: True,
    ) -> Self:
        """The neighbourhood that the lists span, and so many solvable steps beyond their ends."""
        ladders = {
            d.name: [
                value
                for value in ladder(d, lists[d.name], steps_beyond)
                if value in lists[d.name] or solvable(start.replace(**{d.name: value}))
            ]
            for d in DIMENSIONS
            if d.name in lists
        }
        return cls(without_unused(start), lists, ladders)

    def first_round(self) -> list[Hyperparameters]:
        """The start and, of each dimension, the next values to either side; of texts, all others."""
        trials = [self.start]
        for name, values in self.ladders.items():
            here = getattr(self.start, name)
            if isinstance(here, str) or name in _LISTED:
                trials += [self._moved(self.start, name, value) for value in values if value != here]
            else:
                trials += [
                    self._moved(self.start, name, v) for v in _neighbours(values, here) if v is not None
                ]
        return list(dict.fromkeys(trials))

    def next_round(self, results: Sequence[TrialResult]) -> list[Hyperparameters]:
        """What else to try after these results, in whatever order they came; nothing where nothing is left.

        The best goes on, one step, on each dimension on which it lies at the end of what was tried. It also
        takes over what has improved on the start on the other dimensions.

        Source: the exploratory and pattern moves of Hooke and Jeeves, "Direct Search Solution of Numerical
        and Statistical Problems" (1961).
        """
        ranking = best_first(results)
        if not ranking or ranking[0].figure is None:
            return []
        best = ranking[0].hyperparameters
        tried = [result.hyperparameters for result in results]
        proposed = [self._combined(ranking)]
        for name, values in tried_values(best, tried).items():
            if name in _LISTED:
                continue
            here = getattr(best, name)
            below, above = _neighbours(self.ladders.get(name, ()), here)
            if below is not None and here == min(values):
                proposed.append(self._moved(best, name, below))
            if above is not None and here == max(values):
                proposed.append(self._moved(best, name, above))
        return [trial for trial in dict.fromkeys(proposed) if trial not in tried]

    def _combined(self, ranking: Sequence[TrialResult]) -> Hyperparameters:
        """The best, with what improved on the start on the dimensions that the best has not left."""
        places = {result.hyperparameters: place for place, result in enumerate(ranking)}
        neighbours = set(self.first_round())
        better = [
            result.hyperparameters
            for result in ranking[: places[self.start]]
            if result.scores and result.hyperparameters in neighbours
        ]
        changes: dict[str, Any] = {}
        for trial in [*reversed(better), ranking[0].hyperparameters]:
            changes |= self._changes(trial)
        return without_unused(self.start.replace(**changes))

    def _changes(self, trial: Hyperparameters) -> dict[str, Any]:
        start = self.start.as_dict()
        return {name: value for name, value in trial.told().items() if value != start[name]}

    def _moved(self, trial: Hyperparameters, name: str, value: Any) -> Hyperparameters:
        moved = trial.replace(**{name: value})
        if moved.weighting == BM25 != trial.weighting:
            # A configuration without BM25 has no K1 and B to start from.
            moved = moved.replace(bm25_K1=self.lists["bm25_K1"][0], bm25_B=self.lists["bm25_B"][0])
        return without_unused(moved)


def first_values(lists: Mapping[str, Sequence[Any]]) -> Hyperparameters:
    """The configuration of the first value of each list."""
    return without_unused(Hyperparameters(**{name: values[0] for name, values in lists.items()}))


def ladder(dimension: Dimension, values: Sequence[Any], steps_beyond: int) -> list[Any]:
    """The values of a list, ascending, with so many more beyond either end, within the declared bounds.

    The steps beyond an end are as large as the last one of the list: its ratio where the dimension is
    logarithmic, else its difference. A list of one value is not continued, nor one of texts or of numbers
    that only the list has.
    """
    if dimension.type is str or dimension.listed:
        return list(dict.fromkeys(values))
    steps = sorted(set(values))
    for _ in range(steps_beyond if len(steps) > 1 else 0):
        below, above = (_beyond(dimension, *inner_and_end) for inner_and_end in (steps[1::-1], steps[-2:]))
        steps = [*([below] if below is not None else []), *steps, *([above] if above is not None else [])]
    return steps


def _beyond(dimension: Dimension, inner: float, end: float) -> Any:
    """The value one step beyond the end of a list; None where the bounds allow none."""
    if not dimension.logarithmic:
        value = 2 * end - inner
    elif inner > 0 and end > 0:
        value = end * end / inner
    else:
        value = _FACTOR * end
    if dimension.minimum is not None:
        value = max(value, dimension.minimum)
    if dimension.maximum is not None:
        value = min(value, dimension.maximum)
    value = round(value) if dimension.type is int else float(f"{value:.4g}")
    refused = dimension.above_minimum and value == dimension.minimum
    return None if refused or (value >= end) == (end < inner) or value == end else value


def _neighbours(values: Sequence[Any], here: Any) -> tuple[Any, Any]:
    """The next smaller and the next larger value; None where there is none."""
    return (
        max((value for value in values if value < here), default=None),
        min((value for value in values if value > here), default=None),
    )
