"""Searches that need no lists: what is tried follows from the size of the data.

Penalty and unobserved weight are relative to the data (`recsys_pipeline.core.scale`), so that one start suits
all. Narrow models choose them and the weighting; the best, fewer at each width, are tried with twice the
factors as long as that pays. This is successive halving with the number of factors as the resource.

Source of successive halving: Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and
Hyperparameter Optimization" (2016).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import NamedTuple

from recsys_pipeline.core.hyperparameters import BM25, NO_WEIGHTING, Hyperparameters
from recsys_pipeline.core.scale import USUAL_PENALTY, Relative, Scale, Weighting
from recsys_pipeline.core.search import TrialResult

_START = Relative(penalty=USUAL_PENALTY, unobserved_weight=0.05)
_STEP = 2.0
_NU = 0.85
_FIRST_FACTORS = 64
_FEWEST_FACTORS = 8
# Twice the factors cost twice as much to serve: they have to bring at least this share of MAP@10.
_LEAST_GAIN = 0.01
# All of one fit. Wide models are as good with fewer, and cost more.
_ITERATIONS, _ITERATIONS_OF_WIDE = (4, 8, 16), (4, 8)
_WIDE = 256


class Preset(Enum):
    """Who chooses what is tried: the lists, or one of the searches planned here."""

    notebook = "notebook"
    quick = "quick"
    thorough = "thorough"


def preset_to_try_next(preset: Preset) -> Preset | None:
    """The preset that looks further; None where none does."""
    return {Preset.notebook: Preset.quick, Preset.quick: Preset.thorough}.get(preset)


class Recipe(NamedTuple):
    """How far a preset looks.

    Attributes:
        bm25: K1 and B of the BM25 weights that are tried beside the strengths themselves.
        n_weightings: how many weightings are followed up.
        corners: whether penalty and unobserved weight are also moved together.
        n_moves: how often the best may move on from its neighbours.
        nus: tried beside the usual one.
        beam: how many of the best go on to the next width; the last number holds for all further ones.
        polish: whether the best of all widths is compared with its neighbours again.
        ensemble_sizes: tried of the best.
        most_factors: of a single model.
        most_seconds: of CPU that a fit may take by `fit_seconds`.
    """

    bm25: tuple[tuple[float, float], ...]
    n_weightings: int
    corners: bool
    n_moves: int
    nus: tuple[float, ...]
    beam: tuple[int, ...]
    polish: bool
    ensemble_sizes: tuple[int, ...]
    most_factors: int
    most_seconds: float


RECIPES = {
    Preset.quick: Recipe(
        bm25=((10.0, 0.45),),
        n_weightings=1,
        corners=False,
        n_moves=1,
        nus=(),
        beam=(2,),
        polish=False,
        ensemble_sizes=(),
        most_factors=1024,
        most_seconds=600.0,
    ),
    Preset.thorough: Recipe(
        bm25=((10.0, 0.45), (2.0, 0.2), (100.0, 0.8)),
        n_weightings=2,
        corners=True,
        n_moves=2,
        nus=(0.5, 1.0),
        beam=(4, 3, 2),
        polish=True,
        ensemble_sizes=(3,),
        most_factors=2048,
        most_seconds=3600.0,
    ),
}


class Point(NamedTuple):
    """What is tried, relative to the data; one fit."""

    weighting: Weighting
    factors: int
    relative: Relative = _START
    nu: float = _NU
    ensemble_size: int = 1

    @property
    def iterations(self) -> tuple[int, ...]:
        """Numbers of iterations that are scored."""
        return _ITERATIONS if self.factors < _WIDE else _ITERATIONS_OF_WIDE

    def moved(self, penalty: int, unobserved_weight: int) -> "Point":
        """So many steps further."""
        relative = Relative(
            self.relative.penalty * _STEP**penalty, self.relative.unobserved_weight * _STEP**unobserved_weight
        )
        return self._replace(relative=relative)


def weightings(
    preset: Preset, strengths: Iterable[str], half_lives: Sequence[float] = (0.0,)
) -> list[Weighting]:
    """What a preset tries to make weights by, of each mapping from events to strengths and each half-life."""
    return [
        weighting
        for name in strengths
        for half_life in half_lives
        for weighting in (
            Weighting(name, NO_WEIGHTING, 0.0, 0.0, half_life),
            *(Weighting(name, BM25, k1, b, half_life) for k1, b in RECIPES[preset].bm25),
        )
    ]


def fit_seconds(scale: Scale, width: int, iterations: int) -> float:
    """CPU seconds of a fit by `batched`, roughly: measured on the machine of docs/search.md."""
    n_rows = scale.n_users + scale.n_items
    of_rows = 5e-9 * n_rows * width + 3e-11 * n_rows * width * width
    return iterations * (1.2e-9 * scale.n_interactions * width + of_rows)


def fit_bytes(scale: Scale, width: int) -> int:
    """Memory of a fit and its scoring, roughly: the factors, their copies and the matrices."""
    return 12 * width * (scale.n_users + scale.n_items) + 20 * scale.n_interactions


class PresetCourse(NamedTuple):
    """The rounds of a preset on data of a certain size; a `Course`.

    Attributes:
        recipe: how far it looks.
        scales: of the data under each weighting that may be tried; one at least.
        most_bytes: that a fit may take.
        as_implicit: try only what `implicit` can train.
        incumbent: tried in the first round; None for no such trial.
    """

    recipe: Recipe
    scales: Mapping[Weighting, Scale]
    most_bytes: float
    as_implicit: bool = False
    incumbent: Hyperparameters | None = None

    @property
    def widest(self) -> int:
        """Most factors of a single model: a power of 2, bounded by the data and by what a fit may take.

        No more than half of the users and of the items: factors beyond the smaller side change nothing.
        """
        first = next(iter(self.scales.values()))
        factors = _FEWEST_FACTORS
        while 2 * factors <= min(
            self.recipe.most_factors, first.n_users // 2, first.n_items // 2
        ) and self._is_affordable(2 * factors):
            factors *= 2
        return factors

    @property
    def narrowest(self) -> int:
        """Factors of the first round."""
        return min(_FIRST_FACTORS, self.widest)

    @property
    def most_fits(self) -> int:
        """Upper bound of the number of fits, that of the incumbent not counted."""
        recipe = self.recipe
        neighbours = (8 if recipe.corners else 4) * min(recipe.n_weightings, len(self.scales))
        nus = 0 if self.as_implicit else len(recipe.nus)
        n_doublings = len(self._widths(self.narrowest, up=True))
        wider = sum(self._beam(n) for n in range(n_doublings))
        narrower = len(self._widths(self.narrowest, up=False))
        first_of_both = self._beam(0) if n_doublings and narrower else 0
        polish = 4 if recipe.polish else 0
        return (
            len(self.scales)
            + neighbours
            + 3 * recipe.n_moves
            + nus
            + max(wider + min(1, narrower), first_of_both + narrower)
            + polish
            + len(recipe.ensemble_sizes)
        )

    @property
    def most_rounds(self) -> int:
        """Upper bound of the number of rounds."""
        widths = max(len(self._widths(self.narrowest, up=up)) for up in (True, False))
        return 5 + self.recipe.n_moves + widths

    @property
    def most_seconds_of_fit(self) -> float:
        """CPU seconds of the widest single model, roughly."""
        return self._seconds(self.widest)

    def first_round(self) -> list[Hyperparameters]:
        """See `recsys_pipeline.core.course.Course`."""
        return self._untried(next(self._rounds({})), {})

    def next_round(self, results: Sequence[TrialResult]) -> list[Hyperparameters]:
        """See `recsys_pipeline.core.course.Course`."""
        known = {result.hyperparameters: result for result in results}
        for points in self._rounds(known):
            if trials := self._untried(points, known):
                return trials
        return []

    def _untried(
        self, points: Sequence[Point], known: Mapping[Hyperparameters, TrialResult]
    ) -> list[Hyperparameters]:
        trials = [trial for point in points for trial in self.trials_of(point)]
        # After those of the preset: what they vary in is what is told of each.
        trials += [self.incumbent] if self.incumbent else []
        return [trial for trial in dict.fromkeys(trials) if trial not in known]

    def trials_of(self, point: Point) -> list[Hyperparameters]:
        """The trials that a fit answers."""
        nu = 0.0 if self.as_implicit else point.nu
        trial = point.weighting.trial(point.factors, nu, point.ensemble_size)
        scale = self.scales[point.weighting]
        scaled = scale.with_relative(trial, point.relative, as_implicit=self.as_implicit)
        return [scaled.replace(iterations=n) for n in point.iterations]

    def _rounds(self, known: Mapping[Hyperparameters, TrialResult]) -> Iterator[list[Point]]:
        """The rounds; when one is taken up after it was yielded, `known` has the results of its trials."""
        recipe, tried = self.recipe, _Tried(self, known)
        yield tried.adding(Point(weighting, self.narrowest) for weighting in self.scales)
        steps = _AROUND if recipe.corners else _BESIDE
        yield tried.adding(point.moved(*step) for point in tried.best(recipe.n_weightings) for step in steps)
        for _ in range(recipe.n_moves):
            yield tried.adding(tried.best()[0].moved(*step) for step in _BESIDE)
        if not self.as_implicit:
            yield tried.adding(tried.best()[0]._replace(nu=nu) for nu in recipe.nus)
        yield from self._widths_tried(tried)
        if recipe.polish:
            yield tried.adding(tried.best()[0].moved(*step) for step in _BESIDE)
        (best,) = tried.best()
        sizes = [n for n in recipe.ensemble_sizes if self._is_affordable(n * best.factors)]
        yield tried.adding(best._replace(ensemble_size=n) for n in sizes)

    def _widths_tried(self, tried: "_Tried") -> Iterator[list[Point]]:
        """Twice the factors as long as that pays; else half, as long as that is better."""
        wider, narrower = (self._widths(self.narrowest, up=up) for up in (True, False))
        going_on = tried.best(self._beam(0))
        lead = tried.score(going_on[0])
        up = tried.adding(point._replace(factors=factors) for factors in wider[:1] for point in going_on)
        down = tried.adding(going_on[0]._replace(factors=factors) for factors in narrower[:1])
        yield [*up, *down]
        if up and _pays(tried.score(tried.best(of=up)[0]), lead):
            for n, factors in enumerate(wider[1:], start=1):
                going_on = tried.best(self._beam(n), of=up)
                lead = tried.score(going_on[0])
                up = tried.adding(point._replace(factors=factors) for point in going_on)
                yield up
                if not _pays(tried.score(tried.best(of=up)[0]), lead):
                    return
        elif down and tried.score(down[0]) > lead:
            for factors in narrower[1:]:
                lead = tried.score(down[0])
                down = tried.adding([down[0]._replace(factors=factors)])
                yield down
                if tried.score(down[0]) <= lead:
                    return

    def _beam(self, n: int) -> int:
        return self.recipe.beam[min(n, len(self.recipe.beam) - 1)]

    def _widths(self, start: int, *, up: bool) -> list[int]:
        """The widths beyond a start, the next one first."""
        found = []
        factors = 2 * start if up else start // 2
        while _FEWEST_FACTORS <= factors <= self.widest:
            found.append(factors)
            factors = 2 * factors if up else factors // 2
        return found

    def _seconds(self, width: int) -> float:
        iterations = (_ITERATIONS if width < _WIDE else _ITERATIONS_OF_WIDE)[-1]
        return max(fit_seconds(scale, width, iterations) for scale in self.scales.values())

    def _is_affordable(self, width: int) -> bool:
        in_memory = max(fit_bytes(scale, width) for scale in self.scales.values()) <= self.most_bytes
        return in_memory and self._seconds(width) <= self.recipe.most_seconds


class _Tried:
    """The points of a course that were tried, and what they are worth."""

    def __init__(self, course: PresetCourse, known: Mapping[Hyperparameters, TrialResult]) -> None:
        self._course, self._known = course, known
        self._points: dict[Point, None] = {}

    def adding(self, points: Iterable[Point]) -> list[Point]:
        """Those that are new; they have been tried from now on."""
        new = [point for point in dict.fromkeys(points) if point not in self._points]
        self._points.update(dict.fromkeys(new))
        return new

    def score(self, point: Point) -> float:
        """MAP@10 of its best trial, below 0 where all failed."""
        results = [self._known[trial] for trial in self._course.trials_of(point)]
        return max((result.figure for result in results if result.figure is not None), default=-1.0)

    def best(self, n: int = 1, of: Iterable[Point] | None = None) -> list[Point]:
        """The best n of these points, or of all."""
        return sorted(self._points if of is None else of, key=lambda point: -self.score(point))[:n]


def _pays(score: float, lead: float) -> bool:
    return score > max(0.0, (1 + _LEAST_GAIN) * lead)


_BESIDE = ((-1, 0), (1, 0), (0, -1), (0, 1))
_AROUND = (*_BESIDE, (-1, -1), (-1, 1), (1, -1), (1, 1))
