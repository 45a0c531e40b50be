"""What `RECSYS_SPARK_SEARCH_USERS` costs: a search on some of the users, its winner trained on all of them.

    python -m benchmarks.sampled_search FEEDBACK [FEEDBACK ...]

A Spark cluster on this machine draws the samples, as `RECSYS_SPARK_SEARCH_USERS` does. This machine searches
each of them, and all users, over the same 24 trials by what is held out of 2,000 users, who are in every
sample. Each winner is then trained on all interactions but what is held out of 5,000 users by another seed,
which no search has ranked.
"""

import argparse
import os
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
from dagster import AssetSelection

from benchmarks.data import STRENGTHS, cpu_seconds, materialize_quietly, plan_of
from recsys_pipeline.core.comparison import compare_with_best
from recsys_pipeline.core.hyperparameters import Hyperparameters, grid
from recsys_pipeline.core.interactions import Datasets, Tables
from recsys_pipeline.core.metrics import group_by_user
from recsys_pipeline.core.search import TrialResult
from recsys_pipeline.core.splitting import HoldOutMethod
from recsys_pipeline.engines.engine import HoldOutPlan
from recsys_pipeline.engines.local.engine import LocalEngine
from recsys_pipeline.storage.feedback import Feedback
from recsys_pipeline.storage.warehouse import Warehouse
from recsys_pipeline_tests.spark.cluster import Cluster

SHARES = (0.5, 0.25, 0.1)
_HELD_OUT = 2_000
TRIALS = [
    *grid({
        "factors": [64], "iterations": [8], "bm25_K1": [100.0], "bm25_B": [0.8],
        "regularization": [0.001, 0.01, 0.1, 1.0], "alpha": [0.5, 4.0, 32.0], "nu": [0.0, 0.5],
    })
]  # fmt: skip
_SAID = {"keep_other_events": False, "strategy": "random"}


def _found(matrix: Tables | Datasets, split: pa.Table, trials: list[Hyperparameters]) -> list[TrialResult]:
    """What this machine finds, the best first."""
    results = LocalEngine().search(matrix, split, plan_of(trials, seed=7)).run(lambda _: (), lambda _: None)
    return sorted(results, key=lambda result: -result.scores.map if result.scores else 0.0)


def _told(trial: Hyperparameters) -> str:
    return f"regularization {trial.regularization:g}, alpha {trial.alpha:g}, nu {trial.nu:g}"


def measure(scratch: Any, feed: Path, folder: Path) -> None:
    """A row for each size of the sample."""
    from recsys_pipeline.engines.spark.sampling import sampled

    warehouse = Warehouse(path=str(folder))
    prepared = AssetSelection.assets("bm25_matrix").upstream()
    materialize_quietly(prepared, warehouse, Feedback(path=str(feed), strengths=STRENGTHS), {})
    matrix = warehouse.open_tables("bm25_matrix")
    n_users = matrix["users"].count_rows()
    plan = HoldOutPlan(HoldOutMethod.random, 42, 3, _HELD_OUT, 1, None, _SAID)
    split = LocalEngine().hold_out(matrix, plan).table
    judge = plan._replace(seed=99, max_users=5_000, never=split)
    unseen = LocalEngine().hold_out(matrix, judge).table
    winners, rows = [], []
    sizes = [n for share in SHARES if (n := round(share * n_users)) >= _HELD_OUT]
    for n in (n_users, *sizes):
        tables, of_sample = (matrix, split) if n == n_users else sampled(scratch, matrix, split, n)
        wall, cpu = time.perf_counter(), cpu_seconds()
        winners.append(_found(tables, of_sample, TRIALS)[0].hyperparameters)
        wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
        rows.append(f"| {feed.parent.name} | {n:,} | {wall:.0f} | {cpu:.0f} | {_told(winners[-1])} |")
    judged = {result.hyperparameters: result for result in _found(matrix, unseen, winners)}
    results = [judged[winners[0]], *(judged[each] for each in dict.fromkeys(winners) if each != winners[0])]
    users = unseen["user_index"].to_numpy(), unseen["split"].to_numpy()
    _, *differences = compare_with_best(results, *group_by_user(users[1], users[0]), seed=42)
    difference_of = dict(zip([result.hyperparameters for result in results[1:]], differences, strict=True))
    for winner, row in zip(winners, rows, strict=True):
        scores, difference = judged[winner].scores, difference_of.get(winner)
        assert scores
        interval = f"{difference.low:+.4f} to {difference.high:+.4f}" if difference else "the same"
        print(f"{row} {scores.map:.4f} | {interval} |", flush=True)


def main() -> None:
    """Measure, and print a row per feed and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("feedback", type=Path, nargs="+", help="events, in a folder named after the data")
    arguments = parser.parse_args()
    from recsys_pipeline.engines.spark.engine import SparkEngine, SparkSettings

    print(
        "| data | users | search, wall s | CPU s | winner | MAP@10 | 95 % interval of the difference |",
        flush=True,
    )
    print("|---|---|---|---|---|---|---|", flush=True)
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cluster = stack.enter_context(Cluster(root, memory="2g"))
        os.environ.update(cluster.environment)
        conf = "spark.executor.memory=2g;spark.driver.host=127.0.0.1"
        engine = SparkEngine(SparkSettings(cluster.master, conf, root / "scratch", 0))
        scratch = stack.enter_context(engine._scratch())
        for feed in arguments.feedback:
            measure(scratch, feed, root / feed.parent.name)


if __name__ == "__main__":
    main()
