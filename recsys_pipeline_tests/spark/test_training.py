"""ALS in blocks: the random start, the skew, and, last of all since they cost executors, workers that die."""

import threading
import time

import numpy as np
import pyarrow as pa
import pytest

from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.interactions import Fading, Interactions
from recsys_pipeline.core.loss import confidences
from recsys_pipeline.core.metadata import with_metadata
from recsys_pipeline.core.scale import Weighting
from recsys_pipeline.core.solver import Solver
from recsys_pipeline.core.strengths import Aggregate, EventRules
from recsys_pipeline.core.weighting import weigh
from recsys_pipeline.engines.local.solvers import trainer_for
from recsys_pipeline.engines.local.training import fits_for, random_start, train_to_the_end
from recsys_pipeline.engines.spark.blocks import sides_of
from recsys_pipeline.engines.spark.session import told
from recsys_pipeline.engines.spark.splits import SplitFrames
from recsys_pipeline.engines.spark.training import Together, random_rows, train

RULES = EventRules({"view": 1.0}, Aggregate.sum, ["view"], ["view"])
TRIAL = Hyperparameters(
    factors=6, regularization=0.1, alpha=0.5, iterations=2, bm25_K1=10.0, bm25_B=0.5, nu=0.5
)


@pytest.fixture(scope="module")
def matrix():
    """Users of two kinds, and an item that nearly everybody has."""
    rng = np.random.default_rng(5)
    user = rng.integers(0, 120, 3_000)
    item = 2 * rng.integers(0, 30, 3_000) + user % 2
    item[::8] = 11
    counted = (
        pa.table({"UserID": user, "ProductCode": item, "count_view": np.ones(3_000, np.int32)})
        .group_by(["UserID", "ProductCode"])
        .aggregate([("count_view", "sum")])
        .rename_columns(["UserID", "ProductCode", "count_view"])
        .sort_by([("UserID", "ascending"), ("ProductCode", "ascending")])
    )
    n = counted.num_rows
    columns = {
        "strength": counted["count_view"].cast(pa.float64()),
        "target": np.ones(n, bool),
        "excluded": np.ones(n, bool),
        "count_view": counted["count_view"].cast(pa.int32()),
    }
    table = pa.table({"UserID": counted["UserID"], "ProductCode": counted["ProductCode"], **columns})
    interactions = Interactions.from_strengths(with_metadata(table, RULES.to_metadata()))
    return interactions, interactions.to_tables(interactions.strengths)


def trained_in_blocks(engine, tables, trial=TRIAL, **sizes):
    """The factors after the last iteration."""
    with engine._scratch() as scratch:
        frames = SplitFrames(scratch, tables)
        weighed = frames.weighed([trial], Fading.of({"default": None}, []), None)
        sides = sides_of(scratch, weighed, **sizes)
        together = Together.of(fits_for([trial]), lambda _: weighed.weightings.index(Weighting.of(trial)), 3)
        (state,) = train(scratch, *sides, together)
        return [side.take(np.arange(side.n_rows)) for side in (state.users, state.items)], sides


def trained_here(interactions, trial=TRIAL):
    weights = weigh(interactions.pattern, interactions.strengths, trial)
    user_items = interactions.pattern.user_items(weights)
    return train_to_the_end(trainer_for(Solver.batched), user_items, trial, 3).factors, user_items


def loss(factors, user_items, trial):
    """That of `core.loss`, of all cells."""
    users, items = (each.astype(np.float64) for each in factors)
    scores = users @ items.T
    known = user_items.toarray() > 0
    confidence = np.where(known, confidences(user_items.toarray(), trial), trial.unobserved_weight)
    fit = (confidence * (known - scores) ** 2).sum()
    n_columns = np.array(user_items.shape)[::-1]
    for side, per_row, columns in zip((users, items), (known.sum(1), known.sum(0)), n_columns, strict=True):
        frequency = per_row + trial.unobserved_weight * columns
        fit += trial.regularization * (frequency**trial.nu * (side**2).sum(1)).sum()
    return fit


@pytest.mark.parametrize("factors", [4, 5])
def test_every_row_starts_as_on_one_machine_wherever_it_is_made(factors):
    users, items = random_start((7, 9), factors, seed=11)

    parts = [(11, factors, slice(0, factors))]
    made = [random_rows(parts, first, 1, 0, factors)[0] for first in range(7)]
    assert np.array_equal(made, users)
    assert np.array_equal(random_rows(parts, 3, 5, 7, factors), items[3:8])


def test_a_fit_in_blocks_reaches_the_same_loss(engine, matrix):
    interactions, tables = matrix

    factors, _ = trained_in_blocks(engine, tables, interactions_per_block=400)

    here, user_items = trained_here(interactions)
    assert loss(factors, user_items, TRIAL) == pytest.approx(loss(here, user_items, TRIAL), rel=0.001)
    assert np.abs(factors[0] @ factors[1].T - here.users @ here.items.T).max() < 0.01


def test_rows_that_are_too_long_are_cut_and_solved_the_same(engine, matrix):
    interactions, tables = matrix

    factors, (by_user, by_item) = trained_in_blocks(
        engine, tables, interactions_per_block=400, most_of_a_row=45
    )

    assert 11 in by_item.cut_rows
    assert not len(by_user.cut_rows)
    here, user_items = trained_here(interactions)
    assert loss(factors, user_items, TRIAL) == pytest.approx(loss(here, user_items, TRIAL), rel=0.001)
    assert np.abs(factors[0] @ factors[1].T - here.users @ here.items.T).max() < 0.01


def test_a_worker_that_is_killed_in_the_middle_of_a_fit_costs_no_more_than_time(engine, cluster, matrix):
    interactions, tables = matrix
    trial = TRIAL.replace(iterations=3)
    killed = []

    def kill() -> None:
        scratch_folder = engine._settings.scratch
        while len(list(scratch_folder.glob("*/*-vectors/*.vectors"))) < 3:
            time.sleep(0.05)
        killed.extend(cluster.kill_worker(1))

    killer = threading.Thread(target=kill)
    killer.start()
    factors, _ = trained_in_blocks(engine, tables, trial)
    killer.join()
    cluster.add_worker(1)

    assert killed
    here, user_items = trained_here(interactions, trial)
    assert loss(factors, user_items, trial) == pytest.approx(loss(here, user_items, trial), rel=0.001)


def test_an_executor_that_runs_out_of_memory_gives_a_sentence(engine):
    meant = r"ran out of memory.*spark\.executor\.memory=8g"
    with pytest.raises(InputError, match=meant), told(), engine._scratch() as scratch:
        # Four gigabytes in one row.
        scratch.spark.range(1).selectExpr("size(sequence(0L, id + 499999999L)) AS n").collect()
