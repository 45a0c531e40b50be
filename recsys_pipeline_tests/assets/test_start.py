"""Where a search around the published model starts."""

import json

import numpy as np
import pytest

from recsys_pipeline.assets.grid_config import GridConfig
from recsys_pipeline.assets.start import start_of
from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.ranking import Factors
from recsys_pipeline.storage.releases import current_release
from recsys_pipeline_tests.worlds import publish_model

PUBLISHED = Hyperparameters(factors=2, regularization=0.1, alpha=2.0, iterations=1, bm25_K1=100.0, bm25_B=0.8)


def config(**changes):
    return GridConfig(strategy="around", **changes)


def publish(warehouse, **changes):
    """A model of these hyperparameters; its version."""
    factors = Factors(np.ones((2, 2), np.float32), np.ones((3, 2), np.float32))
    model = publish_model(
        warehouse.root,
        [[0, 1], [2]],
        factors,
        [1, 2],
        ["a", "b", "c"],
        hyperparameters=PUBLISHED.replace(**changes),
    )
    return model.name


@pytest.fixture
def lines():
    return []


def test_it_is_the_configuration_of_the_published_model_though_no_list_has_it(warehouse, lines):
    version = publish(warehouse)
    start = start_of(config(), warehouse, lines.append)

    assert start == (version, PUBLISHED)
    assert lines == [
        f"around the published version {version}: factors 2, regularization 0.1, alpha 2, iterations 1, "
        "bm25_K1 100, bm25_B 0.8"
    ]


def test_without_a_model_it_is_the_first_value_of_each_list(warehouse, lines):
    start = start_of(config(factors=[16, 8]), warehouse, lines.append)

    assert start == (None, Hyperparameters(16, 0.01, 10.0, 10, 50.0, 0.6))
    assert lines[0].startswith(
        "no model is published yet; the search starts from the first value of each list: factors 16"
    )


def test_a_damaged_model_does_not_keep_the_search_from_making_another(warehouse, lines):
    publish(warehouse)
    manifest = current_release(warehouse.root).path / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "seed": 7}))

    assert start_of(config(), warehouse, lines.append).version is None
    assert "is not the manifest that was published" in lines[0]


def test_what_the_solver_cannot_train_is_left_out_and_told(warehouse, lines):
    publish(warehouse, nu=0.5, unobserved_weight=0.1)
    with_all = start_of(config(solver="batched"), warehouse, lines.append)
    without = start_of(config(solver="implicit"), warehouse, lines.append)

    assert (with_all.hyperparameters.nu, with_all.hyperparameters.unobserved_weight) == (0.5, 0.1)
    assert without.hyperparameters == PUBLISHED
    assert (
        "solver implicit cannot train the published nu 0.5, unobserved_weight 0.1 and starts without" in lines
    )


def test_nor_does_it_go_where_the_solver_cannot_follow(warehouse, lines):
    publish(warehouse, factors=4096)
    on_device = config(solver="gpu", factors=[512, 1024])
    start = start_of(on_device, warehouse, lines.append).hyperparameters

    assert start.factors == 1024
    assert {trial.factors for trial in on_device.plan(start).trials} == {512, 1024}
    on_cpu = config(solver="batched", factors=[512, 1024])
    assert {trial.factors for trial in on_cpu.plan(start).trials} == {512, 1024, 2048}


def test_strengths_that_are_unknown_today_give_way_to_the_default(warehouse, lines):
    publish(warehouse, strengths="equal")
    known = config(strength_mappings={"equal": {"view": 1.0}})

    assert start_of(known, warehouse, lines.append).hyperparameters.strengths == "equal"
    assert start_of(config(), warehouse, lines.append).hyperparameters == PUBLISHED
    assert any("strengths 'equal', which strength_mappings does not name" in line for line in lines)


@pytest.mark.parametrize("strategy", ["grid", "halving", "random"])
def test_other_strategies_have_no_start(warehouse, lines, strategy):
    publish(warehouse)

    assert start_of(GridConfig(strategy=strategy), warehouse, lines.append) is None
    assert lines == []
