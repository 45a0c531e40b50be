"""The released configuration is a trial of every search, and the start of one around it."""

import json

import numpy as np
import pytest

from recsys_pipeline.assets.grid_config import GridConfig
from recsys_pipeline.assets.incumbent import Incumbent, incumbent_of, told_start
from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.ranking import Factors
from recsys_pipeline.storage.releases import current_release
from recsys_pipeline_tests.worlds import publish_model

RELEASED = Hyperparameters(factors=2, regularization=0.1, alpha=2.0, iterations=1, bm25_K1=100.0, bm25_B=0.8)


NONE = Incumbent(None, None, "no model is released yet")


def publish(warehouse, **changes):
    """A model of these hyperparameters; its version."""
    factors = Factors(np.ones((2, 2), np.float32), np.ones((3, 2), np.float32))
    model = publish_model(
        warehouse.root,
        [[0, 1], [2]],
        factors,
        [1, 2],
        ["a", "b", "c"],
        hyperparameters=RELEASED.replace(**changes),
    )
    return model.name


@pytest.fixture
def lines():
    return []


@pytest.mark.parametrize("strategy", ["grid", "halving", "random", "around"])
def test_every_strategy_tries_the_released_configuration_though_no_list_has_it(warehouse, lines, strategy):
    version = publish(warehouse)
    config = GridConfig(strategy=strategy)
    incumbent = incumbent_of(config, warehouse, lines.append)

    assert incumbent == (version, RELEASED, "")
    assert lines == [
        f"the configuration of release {version} is a trial too: factors 2, regularization 0.1, alpha 2, "
        "iterations 1, bm25_K1 100, bm25_B 0.8"
    ]
    plan = config.plan(RELEASED)
    assert plan.incumbent == RELEASED
    assert list(plan.trials).count(RELEASED) == 1
    if strategy != "around":
        assert set(plan.trials) == {*config.plan().trials, RELEASED}


def test_one_that_the_lists_have_is_not_tried_twice():
    config = GridConfig()
    incumbent = config.trials()[7]

    assert config.trials(incumbent) == config.trials()
    assert len(config.trials()) == 64


def test_without_a_release_there_is_none(warehouse, lines):
    assert incumbent_of(GridConfig(), warehouse, lines.append) == NONE
    assert lines == []


@pytest.mark.parametrize("file", ["manifest.json", "current.json"])
def test_a_damaged_release_does_not_keep_the_search_from_making_another(warehouse, lines, file):
    publish(warehouse)
    release = current_release(warehouse.root).path
    damaged = next(path for path in (release / file, release.parent / file) if path.exists())
    damaged.write_text(json.dumps({**json.loads(damaged.read_text()), "seed": 7, "version": "1"}))
    incumbent = incumbent_of(GridConfig(), warehouse, lines.append)

    assert (incumbent.version, incumbent.hyperparameters) == (None, None)
    assert file in incumbent.why_none
    assert lines == [f"the released configuration is not tried: {incumbent.why_none}"]


def test_what_the_solver_cannot_train_is_left_out_and_told(warehouse, lines):
    publish(warehouse, nu=0.5, unobserved_weight=0.1)
    with_all = incumbent_of(GridConfig(solver="batched"), warehouse, lines.append)
    without = incumbent_of(GridConfig(solver="implicit"), warehouse, lines.append)

    assert (with_all.hyperparameters.nu, with_all.hyperparameters.unobserved_weight) == (0.5, 0.1)
    assert without.hyperparameters == RELEASED
    assert (
        "solver implicit cannot train the released nu 0.5, unobserved_weight 0.1 and tries it without"
        in lines
    )


def test_nor_does_a_search_around_it_go_where_the_solver_cannot_follow(warehouse, lines):
    publish(warehouse, factors=4096)
    on_device = GridConfig(strategy="around", solver="gpu", factors=[512, 1024])
    incumbent = incumbent_of(on_device, warehouse, lines.append).hyperparameters

    assert incumbent.factors == 1024
    assert {trial.factors for trial in on_device.plan(incumbent).trials} == {512, 1024}
    on_cpu = GridConfig(strategy="around", solver="batched", factors=[512, 1024])
    assert {trial.factors for trial in on_cpu.plan(incumbent).trials} == {512, 1024, 2048}


def test_strengths_that_are_unknown_today_give_way_to_the_default(warehouse, lines):
    publish(warehouse, strengths="equal")
    known = GridConfig(strength_mappings={"equal": {"view": 1.0}})

    assert incumbent_of(known, warehouse, lines.append).hyperparameters.strengths == "equal"
    assert incumbent_of(GridConfig(), warehouse, lines.append).hyperparameters == RELEASED
    assert any("strengths 'equal', which strength_mappings does not name" in line for line in lines)


# --- Where a search around it starts ---


def test_a_search_around_the_release_says_where_it_starts(lines):
    plan = GridConfig(strategy="around").plan(RELEASED)

    start = told_start(plan, Incumbent("20260101T000000000000Z", RELEASED), lines.append)
    assert start == {"version": "20260101T000000000000Z", "hyperparameters": RELEASED.as_dict()}
    assert lines == [
        "around the released version 20260101T000000000000Z: factors 2, regularization 0.1, alpha 2, "
        "iterations 1, bm25_K1 100, bm25_B 0.8"
    ]


def test_without_a_release_it_starts_from_the_first_value_of_each_list(lines):
    start = told_start(GridConfig(strategy="around", factors=[16, 8]).plan(), NONE, lines.append)

    assert start["version"] is None
    assert start["hyperparameters"] == Hyperparameters(16, 0.01, 10.0, 10, 50.0, 0.6).as_dict()
    assert lines[0].startswith(
        "no model is released yet; the search starts from the first value of each list: factors 16"
    )


@pytest.mark.parametrize("strategy", ["grid", "halving", "random"])
def test_other_strategies_have_no_start(lines, strategy):
    assert told_start(GridConfig(strategy=strategy).plan(RELEASED), NONE, lines.append) is None
    assert lines == []
