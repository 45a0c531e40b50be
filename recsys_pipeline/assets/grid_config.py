"""The configuration of the search: its lists follow from the declared hyperparameters."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, create_model, model_validator

from recsys_pipeline import settings
from recsys_pipeline.assets.tuning_config import TuningConfig
from recsys_pipeline.core.comparison import Prefer, Switch
from recsys_pipeline.core.holdout import Weights
from recsys_pipeline.core.hyperparameters import (
    DIMENSIONS,
    Dimension,
    Hyperparameters,
    draw,
    grid,
)
from recsys_pipeline.core.neighbourhood import Neighbourhood, first_values
from recsys_pipeline.core.presets import RECIPES, Preset, PresetCourse, weightings
from recsys_pipeline.core.scale import Scale, Weighting
from recsys_pipeline.core.solver import Solver
from recsys_pipeline.engines.chosen import chosen_engine
from recsys_pipeline.engines.engine import SearchMethod, SearchPlan
from recsys_pipeline.machine.memory import memory_limit

MEMORY_LIMIT = (
    "GB that the asset may use with all its workers, Python itself not counted; 0: three quarters of what "
    "the machine or its control group has (RECSYS_MEMORY_LIMIT). It decides how many fits run side by side."
)
_STRENGTHS = "strengths"
_ENSEMBLE_SIZE = "ensemble_size"
_HALF_LIFE = "half_life_days"
_DEFAULTS = {dimension.name: dimension.values for dimension in DIMENSIONS}


class SearchConfig(TuningConfig):
    """What is searched and how, and what becomes of the results."""

    preset: Preset = Field(
        default=Preset.notebook,
        description="`notebook`: the lists; `quick`, some 20 fits, and `thorough`, some 50, choose what to "
        "try from the size of the data. Leave the lists out then; strength_mappings and half_life_days are "
        "tried as always.",
    )
    starts: list[Annotated[int, Field(ge=1, le=64)]] = Field(
        default=[], description="The former name of ensemble_size; use that."
    )
    prefer: Prefer = Field(
        default=Prefer.best,
        description="`best`: the best by `select_by`; `simplest`: the cheapest trial, by factors, then "
        "iterations, that is not significantly worse than the best.",
    )
    switch: Switch = Field(
        default=Switch.always,
        description="When the configuration of the released model, which is always a trial, gives way: "
        "`always` to what `prefer` takes, or only where the best trial is `significant`ly better.",
    )
    weights: Weights = Field(
        default=Weights.training,
        description="From which interactions BM25 takes idf and lengths: `training`, those that are not held "
        "out; or, in the notebook's order, `all`, which lets what is held out shape the weights.",
    )
    blend: bool = Field(
        default=False,
        description="Also fit a blend of ALS score, own history and popularity to the held-out "
        "interactions, for `recommend(blend=True)`; worth it where `seen_events` leave the user's own items "
        "to recommend.",
    )
    seed: int = Field(default=42, ge=0, lt=2**32, description="Seed of every fit, including the final one.")
    strategy: SearchMethod = Field(
        default=SearchMethod.grid,
        description="`grid`: train every trial to its end; `halving`: all fits advance together, and the "
        "better half goes on; `random`: n_trials drawn between the least and the greatest value of each "
        "list; `around`: the configuration of the released model and its neighbours on each list.",
    )
    n_trials: int = Field(default=32, ge=1, description="Number of trials of the strategy `random`.")
    most_steps: int = Field(
        default=3,
        ge=0,
        description="How many times at most `around` goes on after its first round, from the best so far.",
    )
    steps_beyond: int = Field(
        default=2,
        ge=0,
        description="How many steps beyond either end of a list of several numbers `around` may go; a step "
        "is as large as the last one of the list. A list of one value is not left.",
    )
    first_rung: int = Field(
        default=5,
        ge=1,
        description="Least number of iterations before `halving` compares for the first time.",
    )
    solver: Solver = Field(
        default=Solver.batched,
        description="`batched`; the reference, `implicit`: the same results up to rounding, slower; or "
        "`gpu`, `implicit` on an NVIDIA device.",
    )
    compare_with_implicit: bool = Field(
        default=True,
        description="Train the chosen trial by `implicit` too and compare, where the solver is another and "
        "`implicit` can train it. Costs one fit.",
    )
    workers: int = Field(default=0, ge=0, description="Fits side by side, one core each; 0 takes all cores.")
    memory_limit: float = Field(default=settings.MEMORY_LIMIT, ge=0, description=MEMORY_LIMIT)
    patience_hours: float = Field(
        default=4.0,
        gt=0,
        description="A worker that says nothing for so long is ended, and its trials fail. Once the speed of "
        "the fits is known, the limit is 20 times what an answer should take, and 5 minutes at least.",
    )
    reuse_finished_trials: bool = Field(
        default=True,
        description="Reuse results of earlier searches, for identical data, weights, solver, seed and "
        "versions only.",
    )

    @model_validator(mode="after")
    def _names_are_known(self) -> "SearchConfig":
        for dimension in DIMENSIONS:
            if dimension.choices and (unknown := set(getattr(self, dimension.name)) - set(dimension.choices)):
                raise ValueError(
                    f"{dimension.name}: {', '.join(map(repr, sorted(unknown)))} is none of "
                    f"{' and '.join(map(repr, dimension.choices))}"
                )
        if self.preset is not Preset.notebook and (chosen := self._chosen_by_lists()):
            raise ValueError(
                f"preset {self.preset.value} chooses itself what to try: leave out {', '.join(chosen)}, "
                f"or set preset {Preset.notebook.value}, which tries the lists"
            )
        sizes = getattr(self, _ENSEMBLE_SIZE)
        if self.starts and sizes != list(_DEFAULTS[_ENSEMBLE_SIZE]) and sizes != self.starts:
            raise ValueError("starts is the former name of ensemble_size: give ensemble_size alone")
        return self

    def _chosen_by_lists(self) -> list[str]:
        """The lists that are set, and a strategy that goes through them."""
        lists = [name for name in _DEFAULTS if name not in (_STRENGTHS, _HALF_LIFE)]
        return [
            *(name for name in lists if list(getattr(self, name)) != list(_DEFAULTS[name])),
            *(["starts"] if self.starts else []),
            *(["strategy"] if self.strategy is not SearchMethod.grid else []),
        ]

    @property
    def method(self) -> str:
        """How it is searched, for people."""
        if self.preset is Preset.notebook:
            return self.strategy.value
        return f"preset {self.preset.value}"

    def half_lives(self) -> list[float]:
        """In days, those that are tried; 0 stands for events that do not fade."""
        tried: list[float] = getattr(self, _HALF_LIFE)
        return list(dict.fromkeys(tried))

    def lists(self) -> dict[str, list[Any]]:
        """The values of each dimension, by name."""
        lists = {d.name: getattr(self, d.name) for d in DIMENSIONS if d.name != _STRENGTHS}
        lists[_STRENGTHS] = list(self.mappings())
        if self.starts:
            lists[_ENSEMBLE_SIZE] = self.starts
        return lists

    def trials(self, incumbent: Hyperparameters | None = None) -> list[Hyperparameters]:
        """What a search that knows its trials beforehand is to try, the incumbent too."""
        lists = self.lists()
        random = self.strategy is SearchMethod.random
        asked = draw(self.n_trials, self.seed, lists) if random else grid(lists)
        return list(dict.fromkeys([*asked, *([incumbent] if incumbent else [])]))

    def weightings(self, incumbent: Hyperparameters | None = None) -> list[Weighting]:
        """Of what weightings the scale is to be known: those of the first round."""
        if self.preset is not Preset.notebook:
            return weightings(self.preset, self.mappings(), self.half_lives())
        return list(dict.fromkeys(map(Weighting.of, self.plan(incumbent).trials)))

    def course(
        self, scales: Mapping[Weighting, Scale], incumbent: Hyperparameters | None = None
    ) -> PresetCourse | None:
        """The rounds of the preset on data of this size; None for the lists.

        Weights at or below 0, which BM25 gives on small data, are left out where others are there.
        """
        if self.preset is Preset.notebook:
            return None
        mapped = weightings(self.preset, self.mappings(), self.half_lives())
        positive = {each: scales[each] for each in mapped if scales[each].least_weight > 0}
        return PresetCourse(
            RECIPES[self.preset],
            positive,
            memory_limit(self.memory_limit) / 2,
            as_implicit=self.solver is not Solver.batched,
            incumbent=incumbent,
        )

    def plan(
        self, incumbent: Hyperparameters | None = None, scales: Mapping[Weighting, Scale] | None = None
    ) -> SearchPlan:
        """What the engine is asked to do; without an incumbent `around` begins at the first of each list.

        Args:
            incumbent: a trial too.
            scales: of the data; a preset needs those of `weightings`.
        """
        preset = self.course(scales or {}, incumbent)
        around = None
        if self.strategy is SearchMethod.around:
            lists = self.lists()
            around = Neighbourhood.around(
                incumbent or first_values(lists),
                lists,
                self.steps_beyond,
                lambda trial: chosen_engine().nearest_solvable(self.solver, trial) == trial,
            )
        course = preset or around
        return SearchPlan(
            trials=course.first_round() if course else self.trials(incumbent),
            mappings=self.mappings(),
            solver=self.solver.value,
            seed=self.seed,
            weights=self.weights,
            method=self.strategy,
            course=course,
            most_steps=preset.most_rounds - 1 if preset else self.most_steps,
            first_rung=self.first_rung,
            workers=self.workers,
            most_silent_seconds=3600 * self.patience_hours,
            memory_limit=self.memory_limit,
            incumbent=incumbent,
            blend=self.blend,
            selection=self.selection(),
            half_lives=[days for days in self.half_lives() if days],
        )


def _list_field(dimension: Dimension) -> tuple[Any, Any]:
    """Type and field of the list of values of a hyperparameter."""
    bounds: dict[str, Any] = {}
    if dimension.minimum is not None:
        bounds["gt" if dimension.above_minimum else "ge"] = dimension.minimum
    if dimension.maximum is not None:
        bounds["le"] = dimension.maximum
    if dimension.type is float:
        bounds["allow_inf_nan"] = False
    value = Annotated[dimension.type, Field(**bounds)] if bounds else dimension.type
    default = Field(default=list(dimension.values), min_length=1, description=dimension.meaning)
    return list[value], default  # type: ignore[valid-type]


_LISTS: dict[str, Any] = {d.name: _list_field(d) for d in DIMENSIONS if d.name != _STRENGTHS}

GridConfig = create_model(
    "GridConfig",
    __base__=SearchConfig,
    __doc__="The lists whose every combination is a trial, by default the notebook's 64.",
    **_LISTS,
)
