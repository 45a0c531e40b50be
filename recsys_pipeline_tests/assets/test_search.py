"""A search and baselines that go by another metric than MAP@10, from configuration to what readers see."""

import numpy as np
import pytest
from click.testing import CliRunner
from dagster import DagsterInvalidConfigError, validate_run_config
from pydantic import ValidationError

from recsys_pipeline.__main__ import summary
from recsys_pipeline.assets.baselines import BaselinesConfig
from recsys_pipeline.assets.grid_config import GridConfig
from recsys_pipeline.command_line import main
from recsys_pipeline.core.selecting import MAP_AT_10, SelectBy, Selection
from recsys_pipeline.definitions import defs
from recsys_pipeline_tests.worlds import SMALL_GRID, alone, metadata_of, run_graph

BY_NDCG_AT_20 = {"select_by": "NDCG", "k": 20}
OPS = {
    "grid_search_results": {"config": {**SMALL_GRID, **BY_NDCG_AT_20}},
    "baselines": {"config": {"families": ["popularity", "graph_filter"], "workers": 1, **BY_NDCG_AT_20}},
    "release": {"config": {"must_beat_popularity": False}},
}


@pytest.mark.parametrize("config", [GridConfig, BaselinesConfig])
def test_map_at_10_selects_unless_something_else_is_asked_for(config):
    assert config().selection() == MAP_AT_10
    assert config(select_by="Recall", k=50).selection() == Selection(SelectBy.Recall, 50)


@pytest.mark.parametrize("config", [GridConfig, BaselinesConfig])
@pytest.mark.parametrize("k", [0, 201])
def test_a_k_that_does_not_fit_a_byte_is_refused(config, k):
    with pytest.raises(ValidationError, match=r"\nk\n"):
        config(k=k)


@pytest.mark.parametrize("asset", ["grid_search_results", "baselines"])
def test_a_metric_that_there_is_not_is_refused_before_the_run(asset):
    with pytest.raises(DagsterInvalidConfigError, match="not in enum type SelectBy got AUC"):
        validate_run_config(
            defs.resolve_job_def("retrain"), {"ops": {asset: {"config": {"select_by": "AUC"}}}}
        )


@pytest.mark.runs
def test_all_that_compares_goes_by_the_metric_that_selects(parity_csv, own_warehouse):
    run = run_graph(parity_csv, own_warehouse, ops=OPS, evaluate=True)
    assert run.success
    table = own_warehouse.read_table("grid_search_results")
    ranks = own_warehouse.read_table("grid_search_results", "trial_ranks").to_pylist()
    best = table.to_pylist()[0]

    # The search itself.
    figures = table["ndcg_at_20"].to_pylist()
    assert figures == sorted(figures, reverse=True)
    of_best = np.array(ranks[0]["ranks"])
    assert of_best.max() in range(12, 22)
    assert best["ndcg_at_20"] == pytest.approx(np.where(of_best <= 20, 1 / np.log2(of_best + 1), 0).mean())
    assert best["MAP@10"] == pytest.approx(np.where(of_best <= 10, 1 / of_best, 0).mean())
    metadata = metadata_of(run, "grid_search_results")
    assert "| compared by | NDCG@20 |" in metadata["settings"]
    assert metadata["NDCG@20"] == pytest.approx(best["ndcg_at_20"], rel=1e-3)
    assert metadata["MAP@10 (search)"] == pytest.approx(best["MAP@10"], rel=1e-3)
    # The trials of the search before have ranks up to 10 alone.
    assert metadata["earlier searches"].startswith("4 trials are known over the same data that are not in ")
    assert "| NDCG@20 | MAP@10 | weights |" in metadata["earlier searches"]

    # Beside the baselines, which are tuned by it too.
    strongest = own_warehouse.read_table("baselines").to_pylist()[0]
    assert (
        f"the strongest baseline (NDCG@20 {strongest['ndcg_at_20']:.4f})" in metadata["beside the baselines"]
    )
    assert "| compared by | NDCG@20 |" in metadata_of(run, "baselines")["settings"]

    # The model and its readers.
    told = f"NDCG@20 {best['ndcg_at_20']:.4f} +- {best['ndcg_at_20_standard_error']:.4f}"
    of_model = metadata_of(run, "best_model")
    assert of_model["NDCG@20 (search)"] == pytest.approx(best["ndcg_at_20"], rel=1e-3)
    assert f"in the search    {told} (MAP@10 {best['MAP@10']:.4f}, NDCG@10 " in summary(own_warehouse.path)
    assert told in metadata_of(run, "model_card")["card"]
    (check,) = [
        each for each in run.get_asset_check_evaluations() if each.check_name == "every_score_is_a_share"
    ]
    assert "best NDCG@20" in check.metadata

    # And the list of trials.
    told_trials = CliRunner().invoke(main, ["--warehouse", own_warehouse.path, "trials"]).stdout
    header, *lines = told_trials.splitlines()
    assert header.split()[:3] == ["NDCG@20", "MAP@10", "+-"]
    assert [line.startswith("last table") for line in lines] == [True] * 4 + [False] * 4


def test_baselines_whose_ranks_are_short_are_not_compared_with(parity_csv, own_warehouse):
    ops = {"grid_search_results": OPS["grid_search_results"]}
    run = run_graph(parity_csv, own_warehouse, ops=ops, selection=alone("grid_search_results"))

    assert run.success
    assert metadata_of(run, "grid_search_results")["beside the baselines"].startswith(
        "the best trial is not compared with the baselines: their ranks are known up to 10, and NDCG@20 needs"
    )


def test_no_trial_is_computed_again_for_another_metric_that_its_ranks_reach_for(parity_csv, own_warehouse):
    before = own_warehouse.read_table("grid_search_results")
    ops = {"grid_search_results": {"config": {**SMALL_GRID, "select_by": "Recall", "k": 5}}}
    run = run_graph(parity_csv, own_warehouse, ops=ops, selection=alone("grid_search_results"))
    after = own_warehouse.read_table("grid_search_results")

    assert run.success
    figures = after["recall_at_5"].to_pylist()
    assert figures == sorted(figures, reverse=True)
    # As the journal has them, to the digit.
    assert sorted(after["fit_seconds"].to_pylist()) == sorted(before["fit_seconds"].to_pylist())
    assert metadata_of(run, "grid_search_results")["earlier searches"] == "nothing else is known of this data"
