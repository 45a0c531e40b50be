"""The memory limit: what the Launchpad sets is what the assets keep to, and what they say of it."""

import re

import pytest
from dagster import AssetSelection, Failure, build_asset_context

from recsys_pipeline.assets.evaluation import EvaluationConfig, evaluation
from recsys_pipeline.assets.grid_config import GridConfig
from recsys_pipeline.assets.search import grid_search_results
from recsys_pipeline.core.hyperparameters import DEFAULT_STRENGTHS
from recsys_pipeline.core.splitting import leave_one_out
from recsys_pipeline.engines.local.memory import data_bytes
from recsys_pipeline.storage.feedback import Feedback
from recsys_pipeline_tests.core.small_feeds import (
    baselines_of,
    interactions_of,
    shop_events,
    split_of,
    stored_matrix_of,
)
from recsys_pipeline_tests.worlds import SMALL_GRID, failure_of, run_graph

pytestmark = pytest.mark.runs

SHOP = interactions_of(shop_events())
SPLIT = split_of(SHOP, leave_one_out(SHOP.pattern, seed=1, min_interactions=3))
(OF_SPLIT,) = SHOP.splits(SPLIT, {DEFAULT_STRENGTHS: None}, weigh_all=True)
GB = 10**9


def search(warehouse, limit):
    with build_asset_context() as context:
        return grid_search_results(
            context,
            GridConfig(**SMALL_GRID, workers=2, memory_limit=limit),
            warehouse=warehouse,
            bm25_matrix=stored_matrix_of(SHOP),
            leave_one_out_split=SPLIT,
            baselines=baselines_of(SPLIT),
        )


def lines(capfd, pattern):
    """What was logged and matches, with its level."""
    told = capfd.readouterr().err.splitlines()
    return [line for line in told if re.search(pattern, line)]


def test_the_aggregation_keeps_to_the_limit_of_its_configuration(parity_csv, warehouse):
    result = run_graph(
        parity_csv,
        warehouse,
        ops={"feedback_strengths": {"config": {"memory_limit": 0.001}}},
        selection=AssetSelection.assets("raw_feedback", "feedback_strengths"),
    )

    assert failure_of(result) == (
        "feedback_strengths has too little memory: the limit is 1 MB. Raise memory_limit of "
        "feedback_strengths (RECSYS_MEMORY_LIMIT)."
    )
    assert not warehouse.has("feedback_strengths")


def test_the_search_says_what_it_has_and_takes(warehouse, capfd):
    search(warehouse, 2.0)

    (line,) = lines(capfd, "memory limit")
    assert " INFO " in line
    assert line.endswith("memory limit 2 GB: data 14.2 kB, a fit of 4 factors 7.56 kB")


def test_it_warns_where_not_even_one_fit_may_fit_and_tries(warehouse, capfd):
    result = search(warehouse, (2 * data_bytes([OF_SPLIT]) + 1) / GB)

    (line,) = lines(capfd, "memory limit")
    assert " WARNING " in line
    assert "so even one may not fit" in line
    assert result.value["grid_search_results"]["MAP@10"].null_count == 0


def test_it_refuses_data_beyond_the_limit(warehouse):
    with pytest.raises(Failure) as raised:
        search(warehouse, (2 * data_bytes([OF_SPLIT]) - 1) / GB)

    assert raised.value.description.endswith(
        "Raise memory_limit of grid_search_results (RECSYS_MEMORY_LIMIT), or lower n_splits of "
        "leave_one_out_split."
    )
    assert not raised.value.allow_retries


def test_the_evaluation_says_what_it_has(warehouse, capfd):
    with build_asset_context() as context:
        evaluation(
            context,
            EvaluationConfig(seeds=1, workers=1, compare_with=[], memory_limit=1.5),
            feedback=Feedback(path="feedback.csv"),
            warehouse=warehouse,
            bm25_matrix=stored_matrix_of(SHOP),
            leave_one_out_split=SPLIT,
            baselines=baselines_of(SPLIT)["baselines"],
            grid_search_results=search(warehouse, 0.0).value["grid_search_results"],
        )

    (line,) = lines(capfd, "models to measure")
    assert line.endswith(
        "2 models to measure on 1 seeds, 1 workers; memory limit 1.5 GB, a model up to 7.56 kB"
    )
