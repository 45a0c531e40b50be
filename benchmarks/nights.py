"""Three nights of `strategy: around` against one wide grid: what they find and what they cost.

    python -m benchmarks.nights DATASETS [NAME ...]

DATASETS has one folder per data set, with events.csv.gz and test.csv.gz. The feed grows: the first night sees
80 % of the events, the second 90 %, the third all of them. The first night starts from the first value of
each list, because there is no model yet. The grid sees all events and tries every combination of the same
lists. Both use the solver `batched`. At the end all winners are trained on all events and rank the
interactions of test.csv.gz, which no search has seen; in brackets the 95 % interval of the difference to the
grid's winner.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
from dagster import AssetSelection

from benchmarks.data import cpu_seconds, materialize_quietly, plan_of, publish_made
from recsys_pipeline.core.columns import CHOSEN, MAP_AT_10, MAP_AT_10_STANDARD_ERROR
from recsys_pipeline.core.comparison import compare_with_best
from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.metrics import group_by_user
from recsys_pipeline.core.splitting import hash_long
from recsys_pipeline.engines.local.engine import LocalEngine
from recsys_pipeline.reporting.model import told_ends, told_hyperparameters
from recsys_pipeline.storage.feedback import Feedback
from recsys_pipeline.storage.warehouse import Warehouse

SHARES = (0.8, 0.9, 1.0)
_SHOP = {
    "strengths": {"view": 1.0, "cart": 2.0, "buy": 3.0},
    "target_events": ["buy"],
    "seen_events": ["buy"],
}
_LISTS: dict[str, list[Any]] = {
    "alpha": [1.0, 4.0],
    "bm25_K1": [50.0],
    "bm25_B": [0.5],
    "weighting": ["bm25", "none"],
    "nu": [0.3, 0.9],
}


class DataSet(NamedTuple):
    """A data set: its folder, how its feed is read and split, and the lists of both searches."""

    folder: str
    feedback: dict[str, Any]
    split: dict[str, Any]
    lists: dict[str, list[Any]]


DATA_SETS = {
    "retailrocket": DataSet(
        "retailrocket",
        _SHOP,
        {"n_splits": 2},
        {
            **_LISTS,
            "factors": [32, 64, 128],
            "iterations": [8, 16],
            "regularization": [0.01, 0.1],
            "unobserved_weight": [0.1, 0.3, 1.0],
        },
    ),
    "taobao": DataSet(
        "taobao_mbcgcn",
        _SHOP,
        {"keep_other_events": True, "max_users": 5000},
        {
            **_LISTS,
            "factors": [32, 64, 128],
            "iterations": [4, 8],
            "regularization": [0.01, 0.1],
            "unobserved_weight": [0.3, 1.0],
        },
    ),
    "gowalla": DataSet(
        "gowalla_lightgcn",
        {"strengths": {"checkin": 1.0}},
        {"max_users": 5000},
        {
            **_LISTS,
            "factors": [32, 64, 128],
            "iterations": [4, 8],
            "regularization": [0.01, 0.1],
            "unobserved_weight": [0.1, 0.3],
        },
    ),
}


class Night(NamedTuple):
    """What a search found and what it cost."""

    results: pa.Table
    wall: float
    cpu: float

    @property
    def winner(self) -> dict[str, Any]:
        """The chosen row."""
        return dict(self.results.filter(self.results[CHOSEN]).to_pylist()[0])

    @property
    def hyperparameters(self) -> Hyperparameters:
        """The chosen configuration."""
        return Hyperparameters.from_mapping(self.winner)

    @property
    def fits(self) -> int:
        """Trainings: trials that differ in more than their iterations."""
        rows = self.results.to_pylist()
        return len({Hyperparameters.from_mapping(row).replace(iterations=1) for row in rows})


def write_share(events: Path, file: Path, share: float) -> None:
    """Write a share of the events to a file, chosen by a hash of user and item."""
    table = pa_csv.read_csv(events)
    users, items = (table[name].to_numpy().astype(np.int64) for name in ("UserID", "ProductCode"))
    mixed = hash_long(items, hash_long(users, np.full(1, 7, dtype=np.uint64)))
    pa_csv.write_csv(table.filter(pa.array(mixed.astype(np.float64) <= share * 2.0**64)), file)


def night(data_set: DataSet, feed: Path, warehouse: Warehouse, strategy: str) -> Night:
    """A run up to the published model; the cost is that of the search."""
    feedback = Feedback(path=str(feed), **data_set.feedback)
    split = AssetSelection.assets("leave_one_out_split")
    materialize_quietly(
        split.upstream(), warehouse, feedback, {"leave_one_out_split": {"config": data_set.split}}
    )
    search = {"strategy": strategy, "solver": "batched", **data_set.lists}
    wall, cpu = time.perf_counter(), cpu_seconds()
    ops = {"grid_search_results": {"config": search}}
    materialize_quietly(AssetSelection.assets("grid_search_results"), warehouse, feedback, ops)
    wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
    materialize_quietly(AssetSelection.assets("best_model"), warehouse, feedback, {})
    publish_made(warehouse.root)
    return Night(warehouse.read_table("grid_search_results"), wall, cpu)


def on_the_test_interactions(
    data_set: DataSet, test: Path, warehouse: Warehouse, nights: list[Night]
) -> list[str]:
    """MAP@10 of each winner on interactions that no search has seen, and its difference to the last one's."""
    feedback = Feedback(path=str(test), **data_set.feedback)
    keep = data_set.split.get("keep_other_events", False)
    config = {"strategy": "file", "file": str(test), "keep_other_events": keep}
    split = AssetSelection.assets("leave_one_out_split")
    materialize_quietly(split, warehouse, feedback, {"leave_one_out_split": {"config": config}})
    matrix = warehouse.read_tables("bm25_matrix")
    held_out = warehouse.read_table("leave_one_out_split")
    trials = [each.hyperparameters for each in nights]
    search = LocalEngine().search(matrix, held_out, plan_of(trials, seed=42))
    found = {result.hyperparameters: result for result in search.run(lambda _: (), lambda _: None)}
    results = [found[trials[-1]], *(found[trial] for trial in trials[:-1])]
    split_number, users = (held_out[name].to_numpy() for name in ("split", "user_index"))
    _, *differences = compare_with_best(results, *group_by_user(split_number, users), seed=42)
    told = []
    for result, difference in zip(results[1:], differences, strict=True):
        assert result.scores
        assert difference
        told.append(f"{result.scores.map:.4f} ({difference.low:+.4f} to {difference.high:+.4f})")
    last = results[0].scores
    assert last
    return [*told, f"{last.map:.4f}"]


def run(name: str, datasets: Path, folder: Path) -> None:
    """Three nights, one grid, and a table."""
    data_set = DATA_SETS[name]
    source = datasets / data_set.folder
    nightly, of_grid = (Warehouse(path=str(folder / f"{name}_{kind}")) for kind in ("nights", "grid"))
    nights = []
    for share in SHARES:
        feed = folder / f"{name}.csv"
        write_share(source / "events.csv.gz", feed, share)
        nights.append(night(data_set, feed, nightly, "around"))
    nights.append(night(data_set, feed, of_grid, "grid"))
    tested = on_the_test_interactions(data_set, source / "test.csv.gz", of_grid, nights)
    print(f"\n## {name}\n")
    print(
        "| search | trials | fits | wall s | CPU s | MAP@10 in the search | MAP@10 on the test interactions |"
    )
    print("|---|---|---|---|---|---|---|")
    labels = [*(f"night {number}" for number in range(1, len(SHARES) + 1)), "grid"]
    for label, each, of_test in zip(labels, nights, tested, strict=True):
        score = f"{each.winner[MAP_AT_10]:.4f} +- {each.winner[MAP_AT_10_STANDARD_ERROR]:.4f}"
        print(
            f"| {label} | {each.results.num_rows} | {each.fits} | {each.wall:.0f} | {each.cpu:.0f} "
            f"| {score} | {of_test} |"
        )
    print()
    for label, each in zip(labels, nights, strict=True):
        print(
            f"- {label}: {told_hyperparameters(each.hyperparameters)}. {told_ends(each.results)}", flush=True
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("datasets", type=Path)
    names = list(DATA_SETS)
    parser.add_argument("names", nargs="*", default=names, metavar="NAME", help=", ".join(names))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.names:
            run(name, arguments.datasets, Path(folder))


if __name__ == "__main__":
    main()
