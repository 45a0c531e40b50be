"""Nothing that grows with the data comes to the process of the run; a sample does, where it is asked for."""

import numpy as np
import pyarrow as pa
import pytest

from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.interactions import Interactions
from recsys_pipeline.core.metadata import with_metadata
from recsys_pipeline.core.results import Winner
from recsys_pipeline.core.splitting import HoldOutMethod
from recsys_pipeline.core.strengths import Aggregate, EventRules
from recsys_pipeline.engines.engine import HoldOutPlan, SearchMethod, SearchPlan
from recsys_pipeline.engines.local.engine import LocalEngine
from recsys_pipeline.storage.warehouse import Warehouse

RULES = EventRules({"view": 1.0}, Aggregate.sum, ["view"], ["view"])
TRIAL = Hyperparameters(factors=8, regularization=0.1, alpha=3.0, iterations=1, bm25_K1=10.0, bm25_B=0.5)
N_USERS, N_EVENTS = 30_000, 80_000
PLAN = HoldOutPlan(
    HoldOutMethod.random, 42, 2, 300, 1, None, {"keep_other_events": False, "strategy": "random"}
)


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory):
    """More users than the driver may be told of."""
    rng = np.random.default_rng(11)
    warehouse = Warehouse(path=str(tmp_path_factory.mktemp("warehouse")))
    ids = rng.integers(1, 2**62, N_USERS)
    table = {
        "UserID": ids[rng.integers(0, N_USERS, N_EVENTS)],
        "ProductCode": (2_000 * rng.random(N_EVENTS) ** 2).astype(np.int64),
        "Event": pa.array(["view"]).take(pa.array(np.zeros(N_EVENTS, np.int32))),
    }
    warehouse.write_tables("raw_feedback", {"raw_feedback": pa.table(table)})
    return warehouse


@pytest.fixture
def small_driver(engine):
    """A driver that refuses results of more than 200 kilobytes: the ids of the users are more."""
    with engine._scratch() as scratch:
        spark = scratch.spark
    conf = spark.sparkContext._conf
    assert conf.get("spark.driver.maxResultSize") == "200k"
    with pytest.raises(Exception, match="maxResultSize"):
        spark.range(1_000_000).selectExpr("xxhash64(id) AS h").toArrow()
    return engine


def test_a_driver_that_cannot_hold_them_trains_on_them(small_driver, warehouse, monkeypatch):
    # Of these users the interactions are collected, of whatever size the data are.
    monkeypatch.setattr("recsys_pipeline.engines.local.refitting.TRAIN_USERS", 1_000)
    engine = small_driver
    strengths = with_metadata(
        engine.strengths(warehouse.open_table("raw_feedback"), RULES, 0), RULES.to_metadata()
    )
    warehouse.write_tables("feedback_strengths", {"feedback_strengths": strengths})
    table = warehouse.open_table("feedback_strengths")
    assert table.count_rows() > 78_000
    warehouse.write_tables("bm25_matrix", engine.matrix(table, 100.0, 0.8).tables)
    matrix = warehouse.open_tables("bm25_matrix")
    held = engine.hold_out(matrix, PLAN)
    assert held.table.num_rows == 300

    plan = SearchPlan([TRIAL], {"default": None}, "batched", 7, SearchMethod.grid, None, 0, 1, 1, 600.0)
    (result,) = engine.search(matrix, held.table, plan).run(lambda _: (), lambda _: None)
    assert len(result.ranks) == 300

    refitted = engine.refit(matrix, Winner(TRIAL, 7, "batched", None, {}, None))
    n_vectors = sum(batch.num_rows for batch in refitted.factors.users)
    assert n_vectors == refitted.n_users > 25_000
    assert sum(batch.num_rows for batch in refitted.interactions) == refitted.n_interactions


def test_a_sample_for_a_search_here_has_every_held_out_interaction(small_driver, warehouse):
    from recsys_pipeline.engines.spark.sampling import sampled

    local = LocalEngine()
    strengths = local.strengths(warehouse.open_table("raw_feedback"), RULES, 1 << 30)
    warehouse.write_tables("strengths", {"strengths": with_metadata(strengths, RULES.to_metadata())})
    warehouse.write_tables("matrix", local.matrix(warehouse.open_table("strengths"), 100.0, 0.8).tables)
    matrix = warehouse.open_tables("matrix")
    split = local.hold_out(matrix, PLAN).table

    with small_driver._scratch() as scratch:
        tables, of_sample = sampled(scratch, matrix, split, 2_000)

    whole, some = Interactions.from_tables(matrix), Interactions.from_tables(tables)
    assert len(some.users) == 2_000
    assert some.users.take(of_sample["user_index"].combine_chunks()).equals(split["UserID"].combine_chunks())
    assert some.items.take(of_sample["item_index"].combine_chunks()).equals(
        split["ProductCode"].combine_chunks()
    )
    # Whole histories: as many interactions as these users have.
    places = pa.compute.index_in(some.users, whole.users).to_numpy()
    assert some.pattern.interactions_per_user.tolist() == whole.pattern.interactions_per_user[places].tolist()
    plan = SearchPlan([TRIAL], {"default": None}, "batched", 7, SearchMethod.grid, None, 0, 1, 1, 600.0)
    (result,) = local.search(tables, of_sample, plan).run(lambda _: (), lambda _: None)
    assert len(result.ranks) == split.num_rows
