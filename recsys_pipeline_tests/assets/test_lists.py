"""The tables that shops read: whole, by raw ids, and what the materialization says of them."""

import pytest
from dagster import AssetSelection
from pydantic import ValidationError

from recsys_pipeline.assets.lists import PopularItemsConfig, RecommendationsConfig, SimilarItemsConfig
from recsys_pipeline.core.lineage import Lineage
from recsys_pipeline.core.metadata import stored_metadata
from recsys_pipeline_tests.worlds import N_ITEMS, N_USERS, failure_of, item_code, metadata_of, run_graph


@pytest.fixture
def run(parity_csv, own_warehouse):
    def run_with(asset, **config):
        selection = AssetSelection.assets(asset)
        return run_graph(parity_csv, own_warehouse, selection=selection, ops={asset: {"config": config}})

    return run_with


def test_every_user_is_recommended_what_is_new_to_them(shared_warehouse):
    """Even users like even items: the first ten are of the user's parity, and none was touched."""
    table = shared_warehouse.read_table("recommendations").to_pandas()
    touched = shared_warehouse.read_table("feedback_strengths").to_pandas()

    assert table["UserID"].unique().tolist() == list(range(N_USERS))
    assert table.groupby("UserID")["rank"].apply(list).tolist() == [list(range(1, 21))] * N_USERS
    assert table.merge(touched, on=["UserID", "ProductCode"]).empty
    first = table[table["rank"] <= 10]
    assert (first["ProductCode"].astype(int) % 2 == first["UserID"] % 2).mean() > 0.9
    assert set(table["source"]) == {"als"}


def test_lists_end_where_there_is_nothing_left(run, own_warehouse):
    """Of 60 items a user has touched 10, and 50 are to be had."""
    result = run("recommendations", n=55)

    assert own_warehouse.read_table("recommendations").num_rows == 50 * N_USERS
    metadata = metadata_of(result, "recommendations")
    assert (metadata["Users"], metadata["Users with a full list"]) == (N_USERS, 0)


def test_the_materialization_says_who_gets_what(shared_result):
    metadata = metadata_of(shared_result, "recommendations")

    assert metadata["dagster/row_count"] == 20 * N_USERS
    assert metadata["At a glance"].startswith(f"{N_USERS} of {N_USERS} users have a full list of 20; ")
    assert (metadata["Users"], metadata["Users with a full list"]) == (N_USERS, N_USERS)
    assert (metadata["Users filled up"], metadata["Users without a list"]) == (0, 0)
    assert metadata["by source"].splitlines()[2:] == ["| als | 100.0 % |"]
    assert metadata["Coverage"] == pytest.approx(metadata["Items listed"] / N_ITEMS, rel=1e-3)


def test_similar_items_are_of_the_same_kind(shared_warehouse):
    table = shared_warehouse.read_table("similar_items").to_pandas()

    assert table["ProductCode"].unique().tolist() == [item_code(item) for item in range(N_ITEMS)]
    first = table[table["rank"] <= 5]
    same = first["ProductCode"].astype(int) % 2 == first["SimilarProductCode"].astype(int) % 2
    assert same.mean() > 0.9
    assert not (table["ProductCode"] == table["SimilarProductCode"]).any()


def test_popular_items_are_those_of_most_users(shared_warehouse):
    table = shared_warehouse.read_table("popular_items").to_pandas()
    touched = shared_warehouse.read_table("feedback_strengths").to_pandas()

    users = touched.groupby("ProductCode").size()
    assert table["score"].to_numpy() == pytest.approx(users[table["ProductCode"]].to_numpy() / N_USERS)
    assert table["score"].tolist() == sorted(table["score"], reverse=True)
    assert users.drop(table["ProductCode"]).max() <= users[table["ProductCode"]].min()


@pytest.mark.parametrize("asset", ["recommendations", "similar_items", "popular_items"])
def test_a_table_says_what_it_was_made_from_and_how_long_its_lists_are(asset, shared_warehouse):
    table = shared_warehouse.open_table(asset)

    assert {"best_model", "catalogue", "bm25_matrix"} <= set(Lineage.of(table).ancestors)
    assert stored_metadata(table)["n"] == 20


@pytest.mark.parametrize("config", [RecommendationsConfig, SimilarItemsConfig, PopularItemsConfig])
@pytest.mark.parametrize("n", [0, 1001])
def test_lists_have_a_length_that_makes_sense(config, n):
    with pytest.raises(ValidationError, match="n\n  Input should be"):
        config(n=n)


def test_a_blend_that_was_never_fitted_is_refused(run):
    assert "Set `blend` of grid_search_results to true" in failure_of(run("recommendations", scorer="blend"))


def test_the_evidence_does_not_choose_a_blend_that_was_never_fitted(run, own_warehouse):
    metadata = metadata_of(run("recommendations", scorer="auto"), "recommendations")
    stored = stored_metadata(own_warehouse.open_table("recommendations"))

    assert stored["scorer"] == "als"
    assert metadata["scorer"] == "scored by ALS: the search has fitted no blend"
    assert stored["scorer_asked_for"] == "auto"


@pytest.mark.runs
def test_lists_of_another_models_catalogue_are_refused(parity_csv, own_warehouse):
    """The catalogue is of the model before."""
    ops = {"grid_search_results": {"config": {"factors": [5], "iterations": [2]}}}
    again = AssetSelection.assets("grid_search_results", "evaluation", "best_model")
    assert run_graph(parity_csv, own_warehouse, selection=again, ops=ops).success
    result = run_graph(parity_csv, own_warehouse, selection=AssetSelection.assets("recommendations"))

    assert "catalogue was made from another best_model than the one at hand" in failure_of(result)
