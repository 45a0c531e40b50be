"""The claims about the assets can be false; those about split and evaluation are tested beside them."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pytest
from dagster import AssetCheckSeverity

from recsys_pipeline.checks.evaluation import the_model_is_better_than_popularity
from recsys_pipeline.checks.matrix import every_weight_is_positive
from recsys_pipeline.checks.model import the_model_recommends
from recsys_pipeline.checks.search import every_score_is_a_share, the_solver_agrees_with_implicit
from recsys_pipeline.core.metadata import with_metadata
from recsys_pipeline.core.ranking import Factors
from recsys_pipeline.recommender import Recommender
from recsys_pipeline_tests.worlds import publish_model


def found(check):
    """What a check counted."""
    return {name: value.value for name, value in check.metadata.items()}


def with_column(table, name, values):
    return table.set_column(table.column_names.index(name), name, pa.array(values))


@pytest.mark.parametrize("weight", [0.0, -0.1, float("nan"), float("inf")])
def test_a_weight_that_als_would_take_for_a_dislike_is_counted(weight):
    check = every_weight_is_positive({"pairs": ds.dataset(pa.table({"weight": [1.0, weight, 2.0]}))})

    assert not check.passed
    assert found(check) == {"weights_at_or_below_zero": 1}


def scores(*of_trials):
    names = ("MAP@10", "ndcg_at_10", "hit_rate_at_10")
    return pa.table({name: pa.array(of_trials, pa.float64()) for name in names})


@pytest.mark.parametrize(
    ("results", "passed", "n_failed"),
    [
        pytest.param(scores(0.5, 0.0), True, 0, id="shares"),
        pytest.param(scores(0.5, None), True, 1, id="one trial failed"),
        pytest.param(scores(1.1, 0.5), False, 0, id="above 1"),
        pytest.param(scores(0.5, -0.1), False, 0, id="below 0"),
        pytest.param(scores(0.5, float("nan")), False, 0, id="no number"),
        pytest.param(scores(0.0, 0.0), False, 0, id="nothing was ever hit"),
        pytest.param(scores(None, None), False, 2, id="all trials failed"),
    ],
)
def test_scores_are_shares_of_the_trials_that_did_not_fail(results, passed, n_failed):
    check = every_score_is_a_share(results)

    assert check.passed == passed
    assert found(check)["failed_trials"] == n_failed


def agreeing(**changes):
    """A table whose search found that its solver agrees with `implicit`, but for the changes."""
    found = {"map": 0.1, "reference_map": 0.1, "difference": [-0.0001, 0.0001], "ranks_differing": 0.01}
    stored = {"solver": "batched", "agreement": {**found, "failure": "", **changes}}
    return with_metadata(scores(0.1), stored)


@pytest.mark.parametrize(
    ("table", "passed"),
    [
        pytest.param(agreeing(), True, id="up to rounding"),
        pytest.param(agreeing(difference=[0.0011, 0.002]), False, id="surely better by more than 1 %"),
        pytest.param(agreeing(difference=[-0.002, -0.0011]), False, id="surely worse by more than 1 %"),
        pytest.param(agreeing(difference=[-0.002, 0.002]), True, id="not surely"),
        pytest.param(agreeing(ranks_differing=0.051), False, id="more than 5 % of the ranks"),
        pytest.param(agreeing(failure="out of memory"), False, id="implicit failed"),
        pytest.param(with_metadata(scores(0.1), {"solver": "implicit"}), True, id="nothing to compare"),
    ],
)
def test_solvers_agree_within_the_stated_bound(table, passed):
    assert the_solver_agrees_with_implicit(table).passed == passed


@pytest.mark.parametrize(
    ("table", "severity"),
    [
        pytest.param(agreeing(difference=[-0.002, -0.0011]), AssetCheckSeverity.ERROR, id="other quality"),
        pytest.param(agreeing(failure="out of memory"), AssetCheckSeverity.ERROR, id="implicit failed"),
        pytest.param(agreeing(ranks_differing=0.051), AssetCheckSeverity.WARN, id="ranks alone"),
    ],
)
def test_other_ranks_of_the_same_quality_keep_nothing_from_being_released(table, severity):
    assert the_solver_agrees_with_implicit(table).severity is severity


@pytest.mark.parametrize("name", ["ndcg_at_10", "hit_rate_at_10"])
def test_every_kind_of_score_counts(name):
    assert not every_score_is_a_share(with_column(scores(0.5), name, [1.5])).passed


def test_a_model_that_may_be_no_better_than_popularity_is_a_warning(shared_warehouse):
    evaluation = shared_warehouse.read_tables("evaluation")
    models = evaluation["models"]
    assert the_model_is_better_than_popularity(evaluation).passed

    no_difference = pc.multiply(models["difference_to_tuned_high"], 0.0).combine_chunks()
    models = with_column(models, "difference_to_tuned_high", no_difference)
    check = the_model_is_better_than_popularity({**evaluation, "models": models})
    assert not check.passed
    assert check.severity is AssetCheckSeverity.WARN


# --- The published model ---


def checked(warehouse):
    check = the_model_recommends(warehouse.open_model("best_model"))
    assert str(found(check)["fewest_recommended"]) in check.description
    return check.passed, found(check).get("users_tried")


def publish_equals(warehouse, n_users, weights=None):
    """Each user viewed the first of two items."""
    factors = Factors(np.ones((n_users, 1), np.float32), np.ones((2, 1), np.float32))
    rows = [[0]] * n_users
    publish_model(warehouse.root, rows, factors, range(n_users), ["a", "b"], weights=weights)


@pytest.mark.parametrize(("n_users", "n_tried"), [(3, 3), (100, 100), (1000, 100)])
def test_a_hundred_users_at_most_are_tried(warehouse, n_users, n_tried):
    publish_equals(warehouse, n_users)

    assert checked(warehouse) == (True, n_tried)


def test_a_user_without_training_interactions_does_not_fail_the_model(warehouse):
    publish_equals(warehouse, 3, weights=[1, 0, 1])

    assert checked(warehouse) == (True, 2)


def test_a_model_that_was_trained_on_nothing_fails(warehouse):
    publish_equals(warehouse, 3, weights=[0, 0, 0])

    assert checked(warehouse) == (False, 0)


def test_a_model_that_has_nothing_to_offer_to_one_user_fails(warehouse):
    """Factors that are all 0: the fit has not learned anything of this user."""
    users = np.array([[1], [0], [1]], np.float32)
    factors = Factors(users, np.ones((2, 1), np.float32))
    publish_model(warehouse.root, [[0]] * 3, factors, range(3), ["a", "b"])

    assert checked(warehouse) == (False, 3)


def test_a_model_that_gives_nothing_by_id_fails(warehouse, monkeypatch):
    publish_equals(warehouse, 3)
    monkeypatch.setattr(Recommender, "recommend", lambda *_, **__: [])

    assert checked(warehouse) == (False, 3)
