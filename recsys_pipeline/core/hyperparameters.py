"""The hyperparameters of a trial, each declared once: its values, bounds, meaning and how it is drawn.

The configuration of the search, the columns of its results, the draw of a random search and the manifest of a
model all follow from the declarations in `Hyperparameters`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import product
from random import Random
from typing import Any, Self

# The confidence in an interaction of weight w: `implicit`'s, and that of Hu et al. (2008) and Spark.
ALPHA_W = "alpha * w"
ONE_PLUS_ALPHA_W = "1 + alpha * w"
# The weight of an interaction: BM25 of its strength, or the strength itself.
BM25 = "bm25"
NO_WEIGHTING = "none"
# Name of the mapping from events to strengths that the feedback is configured with.
DEFAULT_STRENGTHS = "default"

_METADATA = "dimension"


@dataclass(frozen=True)
class Dimension:
    """What is known of a hyperparameter.

    Attributes:
        name: of the attribute of `Hyperparameters`, of the configuration field and of the column.
        meaning: for people.
        values: what the search tries by default.
        minimum: least value of a number.
        maximum: greatest value of a number.
        above_minimum: whether the minimum itself is refused.
        choices: the values of a text.
        logarithmic: whether a random search draws on a logarithmic scale.
        of_implicit: the one value that `implicit` can train; None where it can train all.
        listed: whether the values of the list alone can be tried, and none between or beyond them.
    """

    name: str
    meaning: str
    values: tuple[Any, ...]
    minimum: float | None = None
    maximum: float | None = None
    above_minimum: bool = False
    choices: tuple[str, ...] = ()
    logarithmic: bool = True
    of_implicit: Any = None
    listed: bool = False

    @property
    def type(self) -> type:
        """int, float or str."""
        return type(self.values[0])


def _dimension(values: Sequence[Any], meaning: str, *, has_default: bool = False, **rest: Any) -> Any:
    """A field of `Hyperparameters`; with a default, its first value is what older tables without it mean."""
    metadata = {_METADATA: {"values": tuple(values), "meaning": meaning, **rest}}
    return field(metadata=metadata, **({"default": values[0]} if has_default else {}))


@dataclass(frozen=True, order=True)
class Hyperparameters:
    """One configuration of the model: what a trial tries."""

    factors: int = _dimension([32, 64], "Number of latent factors.", minimum=1, maximum=4096)
    regularization: float = _dimension(
        [0.01, 0.05], "Penalty on the squared length of the factors.", minimum=0
    )
    alpha: float = _dimension(
        [10.0, 20.0], "Confidence in an interaction is alpha * weight.", minimum=0, above_minimum=True
    )
    iterations: int = _dimension(
        [10, 20], "ALS iterations; all values of the list come out of one fit.", minimum=1, maximum=4096
    )
    bm25_K1: float = _dimension(
        [50.0, 100.0],
        "K1 of the BM25 weights, in strengths: the larger, the longer repeats keep counting.",
        minimum=0,
        above_minimum=True,
    )
    bm25_B: float = _dimension(
        [0.6, 0.8],
        "B of the BM25 weights: 0 ignores an item's popularity, 1 discounts it fully.",
        minimum=0,
        maximum=1,
        logarithmic=False,
    )
    nu: float = _dimension(
        [0.0],
        "Power of a row's frequency by which its penalty grows; other than 0 needs solver `batched`.",
        has_default=True,
        minimum=0,
        maximum=1,
        logarithmic=False,
        of_implicit=0.0,
    )
    unobserved_weight: float = _dimension(
        [1.0],
        "Confidence of unobserved interactions; other than 1 needs solver `batched`.",
        has_default=True,
        minimum=0,
        above_minimum=True,
        of_implicit=1.0,
    )
    confidence: str = _dimension(
        [ALPHA_W],
        f"Confidence of an interaction of weight w: `{ALPHA_W}` (implicit) or `{ONE_PLUS_ALPHA_W}` "
        "(Hu et al., Spark; needs solver `batched`).",
        has_default=True,
        choices=(ALPHA_W, ONE_PLUS_ALPHA_W),
        of_implicit=ALPHA_W,
    )
    weighting: str = _dimension(
        [BM25],
        f"`{BM25}`, or `{NO_WEIGHTING}`: the strengths themselves, for which K1 and B mean nothing.",
        has_default=True,
        choices=(BM25, NO_WEIGHTING),
    )
    strengths: str = _dimension(
        [DEFAULT_STRENGTHS], "Name of the mapping from events to strengths.", has_default=True
    )
    ensemble_size: int = _dimension(
        [1],
        "Models with different random starts whose scores are added; cost grows linearly.",
        has_default=True,
        minimum=1,
        maximum=64,
    )
    half_life_days: float = _dimension(
        [0.0],
        "Days after which an event counts half; 0: events do not fade. Any other value must be among the "
        "half_lives of feedback_strengths.",
        has_default=True,
        minimum=0,
        listed=True,
    )

    @property
    def strengths_name(self) -> str:
        """By which a `Split` knows the strengths of this configuration."""
        return faded_name(self.strengths, self.half_life_days)

    @property
    def width(self) -> int:
        """Factors of all models of the ensemble."""
        return self.factors * self.ensemble_size

    @property
    def cost(self) -> tuple[int, int]:
        """Orders by the cost to serve, then to train: width, iterations."""
        return self.width, self.iterations

    def replace(self, **changes: Any) -> Self:
        """The same with some values changed."""
        return replace(self, **changes)

    def as_dict(self) -> dict[str, Any]:
        """By name, as JSON."""
        return asdict(self)

    def told(self) -> dict[str, Any]:
        """By name, without what this configuration does not use."""
        unused = [] if self.weighting == BM25 else ["bm25_K1", "bm25_B"]
        unused += [] if self.half_life_days else ["half_life_days"]
        return {name: value for name, value in self.as_dict().items() if name not in unused}

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """From a row or from JSON; other keys do not count, and what is null is 0, which is not used."""
        known = {dimension.name: dimension.type for dimension in DIMENSIONS if dimension.name in values}
        return cls(
            **{
                name: kind(values[name] or 0) if kind is not str else values[name]
                for name, kind in known.items()
            }
        )


def faded_name(mapping: str, half_life_days: float) -> str:
    """The name of a mapping from events to strengths that fade by a half-life; its own where they do not."""
    return f"{mapping}, half-life {half_life_days:g} d" if half_life_days else mapping


DIMENSIONS: tuple[Dimension, ...] = tuple(
    Dimension(name=each.name, **each.metadata[_METADATA]) for each in fields(Hyperparameters)
)


def varying(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the hyperparameters in which the rows differ; of the first one where they differ in none."""
    return [d.name for d in DIMENSIONS if len({row.get(d.name) for row in rows}) > 1] or [DIMENSIONS[0].name]


def tried_values(chosen: Hyperparameters, tried: Iterable[Hyperparameters]) -> dict[str, set[Any]]:
    """The numbers that were tried, of each dimension that the chosen configuration uses."""
    rows = [trial.told() for trial in tried]
    used = chosen.told()
    return {
        d.name: {row[d.name] for row in rows if d.name in row}
        for d in DIMENSIONS
        if d.type is not str and d.name in used
    }


def ends(chosen: Hyperparameters, tried: Iterable[Hyperparameters]) -> dict[str, str]:
    """Where several values were tried and the chosen one is the smallest or the largest, which; by dimension.

    A value at a declared bound does not count: there is nothing beyond it.
    """
    by_name = {dimension.name: dimension for dimension in DIMENSIONS}
    found = {}
    for name, values in tried_values(chosen, tried).items():
        here, dimension = getattr(chosen, name), by_name[name]
        if len(values) > 1 and here == min(values) and here != dimension.minimum:
            found[name] = "smallest"
        if len(values) > 1 and here == max(values) and here != dimension.maximum:
            found[name] = "largest"
    return found


def grid(lists: Mapping[str, Sequence[Any]]) -> list[Hyperparameters]:
    """Every combination of the lists once, in their order."""
    combinations = product(*lists.values())
    made = (Hyperparameters(**dict(zip(lists, values, strict=True))) for values in combinations)
    return list(dict.fromkeys(without_unused(each) for each in made))


def without_unused(hyperparameters: Hyperparameters) -> Hyperparameters:
    """Configurations that differ only in what they do not use are one."""
    if hyperparameters.weighting == BM25:
        return hyperparameters
    return hyperparameters.replace(bm25_K1=0.0, bm25_B=0.0)


def draw(n_trials: int, seed: int, lists: Mapping[str, Sequence[Any]]) -> list[Hyperparameters]:
    """Distinct configurations drawn between the least and the greatest value of each list.

    Numbers are drawn evenly, on a logarithmic scale where their dimension says so and the list is above 0;
    texts, and numbers that only a list has, are drawn from it. Fewer than `n_trials` come back where the
    lists have no more to offer.
    """
    rng = Random(seed)
    drawn: dict[Hyperparameters, None] = {}
    # A draw that was there before is drawn again, but not for ever: short lists of integers run out.
    for _ in range(100 * n_trials):
        values = {d.name: _draw_value(rng, d, lists[d.name]) for d in DIMENSIONS if d.name in lists}
        drawn[without_unused(Hyperparameters(**values))] = None
        if len(drawn) == n_trials:
            break
    return list(drawn)


def _draw_value(rng: Random, dimension: Dimension, values: Sequence[Any]) -> Any:
    share = rng.random()
    if dimension.type is str or dimension.listed:
        return values[int(share * len(values))]
    low, high = min(values), max(values)
    if dimension.logarithmic and low > 0:
        value = low * math.exp(share * math.log(high / low))
    else:
        value = low + share * (high - low)
    return round(value) if dimension.type is int else float(f"{value:.4g}")
