"""The searches that place the published grids: `benchmarks.placing`."""

import pytest
import yaml

from benchmarks.placing import STAGES, Stage, configuration
from benchmarks.quality import CONFIGURATIONS, DATA_SETS
from recsys_pipeline.assets.grid_config import GridConfig
from recsys_pipeline.core.hyperparameters import Hyperparameters

BEST = Hyperparameters(
    factors=64, regularization=0.004, alpha=1.0, iterations=8, bm25_K1=10.0, bm25_B=0.45, nu=0.65
)
MAPPINGS = {"equal": {"view": 1, "buy": 1}, "buy_only": {"buy": 1}}


def test_a_stage_starts_from_what_won_the_one_before():
    stage = Stage("finer", {"factors": [256]}, {"regularization": (0.5, 1, 2)})

    trials = GridConfig(**configuration(stage, BEST, MAPPINGS)).trials()

    assert trials == [BEST.replace(factors=256, regularization=each) for each in (0.002, 0.004, 0.008)]


def test_it_tries_the_strengths_that_won_and_those_of_the_feedback():
    won = BEST.replace(strengths="equal")

    trials = GridConfig(**configuration(Stage("again"), won, MAPPINGS)).trials()

    assert set(trials) == {BEST, won}


def test_what_won_without_bm25_stays_without():
    won = BEST.replace(weighting="none", bm25_K1=0.0, bm25_B=0.0)

    assert GridConfig(**configuration(Stage("again"), won, {})).trials() == [won]


def test_every_data_set_has_its_stages():
    assert set(STAGES) == set(DATA_SETS)


@pytest.mark.parametrize("name", STAGES)
def test_the_published_lists_lie_within_those_of_the_stages(name):
    published = yaml.safe_load((CONFIGURATIONS / f"{name}.yaml").read_text())["ops"]["grid_search_results"]
    tried: dict[str, list[object]] = {}
    for stage in STAGES[name]:
        for dimension, values in stage.values.items():
            tried[dimension] = [*tried.get(dimension, []), *values]
    for dimension, values in tried.items():
        listed = published["config"].get(dimension, values[:1])
        if dimension == "weighting":
            assert set(listed) <= set(values)
        else:
            assert min(values) <= min(listed) <= max(listed) <= max(values), dimension
