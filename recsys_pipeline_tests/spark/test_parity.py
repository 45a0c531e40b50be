"""The same results as on one machine: ids, weights, splits and ranks are equal, factors up to rounding."""

import numpy as np
import pyarrow as pa
import pytest

from recsys_pipeline.core.baseline_tuning import Baseline, Family
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.evaluation import LEAKING, POPULARITY, TUNED
from recsys_pipeline.core.factors import factors_in
from recsys_pipeline.core.hyperparameters import Hyperparameters, grid
from recsys_pipeline.core.metadata import with_metadata
from recsys_pipeline.core.offer import Offer
from recsys_pipeline.core.results import Winner
from recsys_pipeline.core.scale import Weighting
from recsys_pipeline.core.splitting import HoldOutMethod
from recsys_pipeline.core.strengths import Aggregate, EventRules
from recsys_pipeline.engines.engine import (
    BaselinePlan,
    EvaluationPlan,
    ExportPlan,
    HoldOutPlan,
    NothingToHoldOutError,
    SearchMethod,
    SearchPlan,
)
from recsys_pipeline.engines.local.engine import LocalEngine
from recsys_pipeline.storage.models import write_model
from recsys_pipeline.storage.warehouse import Warehouse

N_USERS, N_ITEMS = 80, 50
RULES = EventRules({"view": 1.0, "buy": 4.0}, Aggregate.sum, ["buy"], ["view", "buy"], half_lives=[3.0])
TOLD = {"keep_other_events": False, "strategy": "random"}
TRIAL = Hyperparameters(factors=8, regularization=0.05, alpha=0.3, iterations=2, bm25_K1=20.0, bm25_B=0.5)


def events(rng):
    """Users like items of their own kind; one item has a tenth of all events."""
    n = 4_000
    user = rng.integers(0, N_USERS, n)
    item = 2 * rng.integers(0, N_ITEMS // 2, n) + user % 2
    item[rng.random(n) < 0.1] = 7
    when = np.datetime64("2026-03-01", "us") + rng.integers(0, 10 * 86_400_000_000, n)
    return pa.table(
        {
            "UserID": [f"u{each:03}" for each in user],
            "ProductCode": item * 1000 + 5,
            "Event": np.where(rng.random(n) < 0.4, "buy", "view"),
            "Timestamp": pa.array(when).cast(pa.timestamp("us", tz="UTC")),
        }
    )


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory):
    """Events, strengths, matrix and split, all by the local engine."""
    warehouse = Warehouse(path=str(tmp_path_factory.mktemp("a warehouse")))
    warehouse.write_tables("raw_feedback", {"raw_feedback": events(np.random.default_rng(3))})
    local = LocalEngine()
    strengths = local.strengths(warehouse.open_table("raw_feedback"), RULES, 1 << 30)
    described = with_metadata(strengths, RULES.to_metadata())
    warehouse.write_tables("feedback_strengths", {"feedback_strengths": described})
    matrix = local.matrix(warehouse.open_table("feedback_strengths"), 100.0, 0.8)
    warehouse.write_tables("bm25_matrix", matrix.tables)
    held = local.hold_out(warehouse.open_tables("bm25_matrix"), hold_out_plan())
    warehouse.write_tables("leave_one_out_split", {"leave_one_out_split": held.table})
    return warehouse


@pytest.fixture(scope="module")
def matrix(warehouse):
    return warehouse.open_tables("bm25_matrix")


@pytest.fixture(scope="module")
def split(warehouse):
    return warehouse.read_table("leave_one_out_split")


def hold_out_plan(**changes):
    plan = HoldOutPlan(HoldOutMethod.random, 42, 3, 0, 2, None, TOLD)
    return plan._replace(**changes)


def test_strengths_are_the_same(engine, warehouse):
    events = warehouse.open_table("raw_feedback")
    rules = RULES._replace(window_days=8.0)

    of_spark = engine.strengths(events, rules, 1 << 30).read_all()
    of_local = LocalEngine().strengths(events, rules, 1 << 30).read_all()

    assert of_spark.equals(of_local)
    assert engine.window(events, 8.0, 1 << 30) == LocalEngine().window(events, 8.0, 1 << 30)
    assert engine.events_of_days(events) == LocalEngine().events_of_days(events)


def test_ids_weights_and_what_is_known_of_them_are_the_same(engine, warehouse):
    strengths = warehouse.open_table("feedback_strengths")

    of_spark, of_local = (each.matrix(strengths, 30.0, 0.6) for each in (engine, LocalEngine()))
    facts, of_local_facts = (each.strengths_facts(strengths) for each in (engine, LocalEngine()))

    for name, table in of_local.tables.items():
        assert of_spark.tables[name].read_all().equals(table, check_metadata=True)
    assert of_spark[1:5] == of_local[1:5]
    assert of_spark.weight.mean == pytest.approx(of_local.weight.mean)
    assert of_spark.weight.median == pytest.approx(of_local.weight.median, rel=0.05)
    for name in ("per_user", "per_item"):
        for ours, theirs in zip(getattr(facts, name), getattr(of_local_facts, name), strict=True):
            assert ours.tolist() == theirs.tolist()


def test_strengths_in_another_order_are_refused(engine, warehouse):
    strengths = warehouse.read_table("feedback_strengths")
    turned = strengths.take(np.arange(strengths.num_rows)[::-1])
    warehouse.write_tables("turned", {"turned": turned})

    with pytest.raises(InputError, match=r"not ordered by user and item: materialize it again"):
        engine.matrix(warehouse.open_table("turned"), 30.0, 0.6)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"max_users": 20},
        {"method": HoldOutMethod.last, "n_splits": 1},
        {"told": {"keep_other_events": False, "strategy": "random"}, "min_interactions": 20},
    ],
    ids=["random", "some users", "last", "active users"],
)
def test_what_is_held_out_is_the_same(engine, matrix, changes):
    plan = hold_out_plan(**changes)

    of_spark, of_local = (each.hold_out(matrix, plan) for each in (engine, LocalEngine()))

    assert of_spark.table.equals(of_local.table, check_metadata=True)
    assert of_spark[1:] == of_local[1:]


def test_what_a_file_holds_out_is_the_same(engine, matrix, split):
    users, items = ([*split[name].to_pylist()[:9]] for name in ("UserID", "ProductCode"))
    strangers = ["stranger", "other", "stranger"]
    given = pa.table({"UserID": [*users, *strangers], "ProductCode": [*items, 5, 1, 2005]})
    plan = hold_out_plan(method=HoldOutMethod.file, given=given, never=split)

    of_spark, of_local = (each.hold_out(matrix, plan) for each in (engine, LocalEngine()))

    assert of_spark.table.equals(of_local.table)
    assert of_spark[1:] == of_local[1:]


def test_nothing_to_hold_out_is_told_alike(engine, matrix):
    told = []
    for each in (engine, LocalEngine()):
        with pytest.raises(NothingToHoldOutError) as caught:
            each.hold_out(matrix, hold_out_plan(min_interactions=1000))
        told.append(str(caught.value))

    assert told[0] == told[1]


def test_a_search_ranks_as_on_one_machine(engine, matrix, split):
    """Two settings of weights, ensembles, a half-life and nu side by side; and both reach the same loss."""
    trials = [
        *grid({"factors": [8, 16], "regularization": [0.05], "alpha": [0.3], "iterations": [1, 2],
               "bm25_K1": [20.0], "bm25_B": [0.5]}),
        TRIAL.replace(nu=1.0, unobserved_weight=0.1, confidence="1 + alpha * w", weighting="none"),
        TRIAL.replace(ensemble_size=2, half_life_days=3.0),
    ]  # fmt: skip
    plan = SearchPlan(
        trials, {"default": None}, "batched", 7, SearchMethod.grid, None, 0, 1, 1, 600.0, half_lives=[3.0]
    )
    of_spark, of_local = (
        {
            result.hyperparameters: result
            for result in each.search(matrix, split, plan).run(lambda _: (), lambda _: None)
        }
        for each in (engine, LocalEngine())
    )

    assert set(of_spark) == set(of_local) == set(trials)
    for trial, result in of_local.items():
        assert not of_spark[trial].failure
        assert np.mean(np.abs(of_spark[trial].ranks.astype(int) - result.ranks) > 1) < 0.03
        assert of_spark[trial].scores.map == pytest.approx(result.scores.map, rel=0.02)


def test_weights_have_the_same_scale(engine, matrix):
    weightings = [
        Weighting("default", "bm25", 20.0, 0.5),
        Weighting("default", "none", 0.0, 0.0, 3.0),
        Weighting("buys", "bm25", 5.0, 1.0),
    ]
    mappings = {"default": None, "buys": {"buy": 2.5}}

    of_spark, of_local = (each.scales(matrix, mappings, weightings) for each in (engine, LocalEngine()))

    for weighting in weightings:
        assert of_spark[weighting] == pytest.approx(of_local[weighting], rel=1e-6)


@pytest.fixture(scope="module")
def refitted(engine, matrix):
    """By both engines."""
    winner = Winner(TRIAL, 7, "batched", None, {}, None)
    of_spark = engine.refit(matrix, winner)
    users, items = (rows.read_all() for rows in of_spark.factors[:2])
    factors = of_spark.factors._replace(users=users, items=items)
    of_spark = of_spark._replace(factors=factors, interactions=of_spark.interactions.read_all())
    return of_spark, LocalEngine().refit(matrix, winner)


def test_the_final_model_is_the_same_up_to_rounding(refitted):
    of_spark, of_local = refitted

    assert of_spark.interactions.equals(of_local.interactions)
    scores = []
    for made in refitted:
        assert made.factors.users["UserID"].equals(of_local.factors.users["UserID"])
        scores.append(factors_in(made.factors.users) @ factors_in(made.factors.items).T)
    assert np.abs(scores[0] - scores[1]).max() < 0.02
    assert of_spark.train.map == pytest.approx(of_local.train.map, rel=0.02)
    assert of_spark[2:6] == of_local[2:6]
    assert of_spark.n_scored == of_local.n_scored
    assert of_spark.user_lengths.mean == pytest.approx(of_local.user_lengths.mean, rel=0.001)


def manifest_of(trial):
    return {
        "hyperparameters": trial.as_dict(), "seed": 7, "solver": "batched", "strengths": {}, "inputs": {},
        "target_events": ["buy"], "seen_events": ["view", "buy"], "metrics": {}, "counts": {},
    }  # fmt: skip


def test_lists_are_the_same(engine, warehouse, refitted):
    _, of_local = refitted
    with warehouse.replacing("best_model") as folder:
        write_model(folder, of_local.factors, of_local.interactions, manifest_of(TRIAL))
    model = warehouse.open_model("best_model")
    allowed = np.arange(len(model.items)) % 5 != 0
    offer = Offer(allowed, (np.arange(len(model.items)) % 7).astype(np.int32), 2)

    for name in ("recommendations", "similar_items"):
        of_both = [
            getattr(each, name)(model, offer, ExportPlan(6)).read_all() for each in (engine, LocalEngine())
        ]
        assert of_both[0].equals(of_both[1])
        assert of_both[0].num_rows > 0


def test_popularity_is_ranked_the_same(engine, matrix, split):
    plan = BaselinePlan(
        [Baseline(Family.popularity), Baseline(Family.item_knn, "default", "presence", 5, 1.0)],
        {"default": None}, 100, 10**6, 0, 1, 600.0,
    )  # fmt: skip
    of_spark, of_local = (
        each.baselines(matrix, split, plan, lambda _: None) for each in (engine, LocalEngine())
    )

    ours, theirs = (
        next(each for each in results if each.baseline.family is Family.popularity)
        for results in (of_spark, of_local)
    )
    assert ours.ranks.tolist() == theirs.ranks.tolist()
    assert ours.scores == theirs.scores
    (left_out,) = (each for each in of_spark if each.baseline.family is Family.item_knn)
    assert "does not measure" in left_out.failure


def test_the_evaluation_ranks_as_on_one_machine(engine, matrix, split):
    held = LocalEngine().hold_out(matrix, hold_out_plan(seed=99, never=split)).table
    plan = EvaluationPlan(
        winner=Winner(TRIAL.replace(iterations=1), 7, "batched", None, {}, None),
        models=[[TUNED, POPULARITY, LEAKING], [TUNED, POPULARITY]],
        k=10, seed=5, baselines={POPULARITY: Baseline(Family.popularity)}, mappings={"default": None},
        unknown_to_training=split, workers=1, most_silent_seconds=600.0,
    )  # fmt: skip
    of_spark, of_local = (
        each.evaluate(matrix, held, plan, lambda _: None) for each in (engine, LocalEngine())
    )

    assert of_spark.head == of_local.head
    assert list(of_spark.ranks.ranks) == list(of_local.ranks.ranks)
    for name in ("interactions_of_user", "popularity_of_item", "users", "items", "seed"):
        assert getattr(of_spark.ranks, name).tolist() == getattr(of_local.ranks, name).tolist()
    assert of_spark.ranks.ranks[POPULARITY].tolist() == of_local.ranks.ranks[POPULARITY].tolist()
    for name, ranks in of_spark.ranks.ranks.items():
        assert np.mean(np.abs(ranks - of_local.ranks.ranks[name]) > 1) < 0.03
    for name in (TUNED, POPULARITY):
        assert of_spark.lists[name] == pytest.approx(of_local.lists[name], rel=0.02)
