"""What the configuration of the search asks for."""

import pytest
from pydantic import ValidationError

from recsys_pipeline.assets.grid_config import GridConfig
from recsys_pipeline.core.neighbourhood import Neighbourhood
from recsys_pipeline.core.presets import PresetCourse
from recsys_pipeline.core.scale import Scale, Weighting
from recsys_pipeline.engines.engine import SearchMethod

PLAIN = Scale(2000, 1000, 40_000, mean_weight=1.0, rms_weight=1.0, least_weight=1.0)
NEGATIVE = PLAIN._replace(least_weight=-0.1)


def scales_of(config, of_bm25=PLAIN):
    return {each: of_bm25 if each.weighting == "bm25" else PLAIN for each in config.weightings()}


def test_by_default_the_lists_are_tried():
    plan = GridConfig().plan()

    assert (len(plan.trials), plan.course, plan.method) == (64, None, SearchMethod.grid)
    assert GridConfig().course({}) is None


@pytest.mark.parametrize("preset", ["quick", "thorough"])
@pytest.mark.parametrize(
    ("lists", "named"),
    [
        ({"factors": [128]}, "leave out factors, or"),
        ({"nu": [0.5], "regularization": [0.1]}, "leave out regularization, nu, or"),
        ({"starts": [2]}, "leave out starts, or"),
        ({"strategy": "halving"}, "leave out strategy, or"),
    ],
)
def test_a_preset_refuses_lists_beside_it_and_names_them(preset, lists, named):
    with pytest.raises(ValidationError, match=f"preset {preset} chooses itself what to try: {named}"):
        GridConfig(preset=preset, **lists)


def test_a_preset_tries_the_mappings_from_events_to_strengths():
    config = GridConfig(preset="quick", strength_mappings={"equal": {"view": 1.0}})

    assert config.weightings() == [
        Weighting(strengths, *rest)
        for strengths in ("default", "equal")
        for rest in (("none", 0.0, 0.0), ("bm25", 10.0, 0.45))
    ]


def test_the_plan_of_a_preset_is_its_first_round_and_all_that_may_follow():
    config = GridConfig(preset="quick", seed=7)
    plan = config.plan(scales=scales_of(config))

    assert isinstance(plan.course, PresetCourse)
    assert plan.trials == plan.course.first_round()
    assert plan.most_steps == plan.course.most_rounds - 1
    assert (plan.seed, config.method) == (7, "preset quick")


def test_bm25_is_left_out_where_it_would_give_dislikes():
    config = GridConfig(preset="quick")

    def tried(of_bm25):
        return {trial.weighting for trial in config.plan(scales=scales_of(config, of_bm25)).trials}

    assert tried(PLAIN) == {"none", "bm25"}
    assert tried(NEGATIVE) == {"none"}


def test_other_solvers_get_what_they_can_train():
    config = GridConfig(preset="quick", solver="implicit")
    trials = config.plan(scales=scales_of(config)).trials

    assert {(trial.nu, trial.unobserved_weight) for trial in trials} == {(0.0, 1.0)}


def test_a_small_memory_bounds_the_factors():
    def widest(gigabytes):
        config = GridConfig(preset="quick", memory_limit=gigabytes)
        return config.plan(scales=scales_of(config)).course.widest

    # Half of the items, and 12 bytes a factor of 3,000 rows beside the interactions.
    assert widest(1.0) == 256
    assert widest(0.01) == 64


def test_a_search_around_a_start_is_a_course_too():
    plan = GridConfig(strategy="around").plan()

    assert isinstance(plan.course, Neighbourhood)
    assert plan.most_steps == 3
