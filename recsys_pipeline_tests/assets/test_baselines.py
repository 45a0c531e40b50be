"""The asset `baselines`, alone and in the graph."""

import pytest
from dagster import DagsterInvalidConfigError, validate_run_config
from pydantic import ValidationError

from recsys_pipeline.assets.baselines import BaselinesConfig
from recsys_pipeline.core.baseline_tuning import Baseline, Family
from recsys_pipeline.core.metadata import stored_metadata
from recsys_pipeline.definitions import defs
from recsys_pipeline_tests.worlds import N_USERS, metadata_of


def test_every_combination_of_a_familys_lists_is_tried():
    config = BaselinesConfig(
        families=["item_knn", "graph_filter", "ease", "popularity", "repeat_consumption"],
        strength_mappings={"buys": {"buy": 1.0}},
        neighbours=[20, 100],
        shrinkage=[10.0],
        similarity_weighting=["presence"],
        user_exponent=[0.5],
        item_exponent=[0.25],
        graph_weighting=["strengths"],
        penalty=[1.0],
    )

    assert config.baselines() == [
        Baseline(Family.item_knn, "default", "presence", neighbours=20, shrinkage=10.0),
        Baseline(Family.item_knn, "default", "presence", neighbours=100, shrinkage=10.0),
        Baseline(Family.item_knn, "buys", "presence", neighbours=20, shrinkage=10.0),
        Baseline(Family.item_knn, "buys", "presence", neighbours=100, shrinkage=10.0),
        Baseline(Family.graph_filter, "default", "strengths", user_exponent=0.5, item_exponent=0.25),
        Baseline(Family.graph_filter, "buys", "strengths", user_exponent=0.5, item_exponent=0.25),
        Baseline(Family.ease, "default", "presence", penalty=1.0),
        Baseline(Family.ease, "buys", "presence", penalty=1.0),
        Baseline(Family.popularity),
        Baseline(Family.repeat_consumption, "default"),
        Baseline(Family.repeat_consumption, "buys"),
    ]
    assert config.mappings() == {"default": None, "buys": {"buy": 1.0}}


def test_every_family_is_measured_by_default():
    assert {baseline.family for baseline in BaselinesConfig().baselines()} == set(Family)


@pytest.mark.parametrize(
    "config",
    [
        {"neighbours": [0]},
        {"neighbours": []},
        {"shrinkage": [-1.0]},
        {"similarity_weighting": ["jaccard"]},
        {"user_exponent": [1.5]},
        {"penalty": [0.0]},
    ],
    ids=lambda config: f"{config}",
)
def test_what_means_nothing_is_refused(config):
    with pytest.raises(ValidationError, match=next(iter(config))):
        BaselinesConfig(**config)


def test_a_family_that_there_is_not_is_refused_before_the_run():
    config = {"ops": {"baselines": {"config": {"families": ["ease", "svd"]}}}}

    with pytest.raises(DagsterInvalidConfigError, match="not in enum type Family got svd"):
        validate_run_config(defs.resolve_job_def("retrain"), config)


def test_the_table_has_the_best_first_and_says_what_was_not_measured(shared_result, shared_warehouse):
    table = shared_warehouse.read_table("baselines")
    rows = table.to_pylist()
    measured = [row["MAP@10"] for row in rows if row["MAP@10"] is not None]
    metadata = metadata_of(shared_result, "baselines")

    assert measured == sorted(measured, reverse=True)
    assert all(0 <= score <= 1 for score in measured)
    assert {row["family"] for row in rows if row["chosen"]} == {
        *("item_knn", "graph_filter", "ease", "popularity")
    }
    assert [row["family"] for row in rows if row["failure"]] == ["repeat_consumption"]
    assert metadata["At a glance"].startswith("the strongest baseline is ")
    assert metadata["Held-out interactions"] == N_USERS
    assert stored_metadata(table)["ranked_interactions"] == N_USERS


def test_the_ranks_of_the_chosen_give_their_scores(shared_warehouse):
    chosen = [row for row in shared_warehouse.read_table("baselines").to_pylist() if row["chosen"]]
    ranks = shared_warehouse.read_table("baselines", "baseline_ranks").to_pylist()

    assert [row["family"] for row in ranks] == [row["family"] for row in chosen]
    for row, ranked in zip(chosen, ranks, strict=True):
        assert row["MAP@10"] == pytest.approx(
            sum(1 / rank for rank in ranked["ranks"] if rank <= 10) / N_USERS
        )


def test_the_search_says_how_its_best_trial_compares(shared_result, shared_warehouse):
    strongest = shared_warehouse.read_table("baselines").to_pylist()[0]
    told = metadata_of(shared_result, "grid_search_results")["beside the baselines"]

    assert told.startswith(("the best trial is better than ", "the best trial is not better than "))
    assert f"the strongest baseline (MAP@10 {strongest['MAP@10']:.4f})" in told


@pytest.mark.parametrize("mapping", [{"default": {"buy": 1.0}}, {"of views": {}}, {"zero": {"buy": 0.0}}])
def test_mappings_that_cannot_be_tried_are_refused_before_the_run(mapping):
    with pytest.raises(ValueError, match="strength_mappings: "):
        BaselinesConfig(strength_mappings=mapping)
