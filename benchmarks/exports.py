"""Wall seconds, CPU seconds and peak memory of the lists of everybody, and of checking what they promise.

    python -m benchmarks.exports [--users 1000000] [--items 100000] [--factors 64] [--n 20]
        [--max-per-category 0] [--tables recommendations similar_items popular_items broken_promises]

The model is made up: 20 interactions a user, items by a power law. A user has one of 500 tastes, and factors
are the taste's with noise, those of items longer the more popular the item. Of a user in fifty the model
knows nothing. An item in twenty is not available; there are 200 categories. Each table is made in a process
of its own from a model that is mapped from Arrow files, as a run does it. `blend` is what `recommendations`
takes by a blend, for which every item is scored.

Peak memory is that of `benchmarks.scale`; it counts what is touched of the mapped files.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.scale import measured
from recsys_pipeline.core.catalogue import Entries, Listed, catalogue_table, offer_in
from recsys_pipeline.core.columns import EXCLUDED, ITEM, ITEM_INDEX, USER, USER_INDEX, WEIGHT, count_column
from recsys_pipeline.core.exports import popular_items_of
from recsys_pipeline.core.factors import FACTORS, factor_table
from recsys_pipeline.core.metadata import with_metadata
from recsys_pipeline.core.model import Contents, Model
from recsys_pipeline.core.offer import Popularity
from recsys_pipeline.core.pattern import Pattern
from recsys_pipeline.core.ranking import Factors
from recsys_pipeline.engines.engine import ExportPlan
from recsys_pipeline.engines.local.engine import LocalEngine
from recsys_pipeline.storage.mapped import ColumnArrays, write_mappable
from recsys_pipeline.storage.promises import broken_promises
from recsys_pipeline.storage.tables import read_table, write_table

TABLES = ("recommendations", "similar_items", "popular_items", "broken_promises", "blend")
PER_USER = 20
EVENT = "view"
BLEND = {"als": 1.0, "events": {EVENT: 0.5}, "target": 0.1, "any": 0.1}
_TASTES, _CATEGORIES = 500, 200


def make_release(folder: Path, n_users: int, n_items: int, width: int, max_per_category: int) -> None:
    """Write a model and a catalogue."""
    rng = np.random.default_rng(0)
    tastes = rng.normal(size=(_TASTES, width)).astype(np.float32)
    place = (n_items * rng.random((n_users, PER_USER)) ** 3).astype(np.int64)
    touched = np.unique(np.arange(n_users)[:, None] * n_items + place)
    user_index, item_index = (touched // n_items).astype(np.int32), (touched % n_items).astype(np.int32)
    popularity = np.bincount(item_index, minlength=n_items)
    items = tastes[rng.integers(_TASTES, size=n_items)] + rng.normal(size=(n_items, width)).astype(np.float32)
    items *= np.sqrt(1 + popularity / popularity.mean()).astype(np.float32)[:, None] / width
    users = tastes[rng.integers(_TASTES, size=n_users)] + rng.normal(size=(n_users, width)).astype(np.float32)
    users[rng.random(n_users) < 1 / 50] = 0
    item_ids = pa.array(np.sort(10**12 + 7 * rng.permutation(n_items))).cast(pa.string())
    ones = np.ones(len(touched))
    tables = {
        "user_factors": factor_table(USER, pa.array(10**9 + 3 * np.arange(n_users)), users),
        "item_factors": factor_table(ITEM, item_ids, items),
        "user_items": pa.table(
            {
                USER_INDEX: user_index,
                ITEM_INDEX: item_index,
                WEIGHT: ones.astype(np.float32),
                EXCLUDED: ones.astype(bool),
                count_column(EVENT): ones.astype(np.int32),
            }
        ),
    }
    for name, table in tables.items():
        with (folder / f"{name}.arrow").open("wb") as file:
            write_mappable(table, file)
    categories = pa.array([f"category {number}" for number in rng.integers(_CATEGORIES, size=n_items)])
    entries = Entries(Listed(item_ids, 0), rng.random(n_items) >= 1 / 20, categories)
    catalogue = catalogue_table(item_ids, entries, None, None, max_per_category)
    write_table(catalogue, folder / "catalogue.parquet")


def model_in(folder: Path, width: int) -> Model:
    """The model, mapped."""
    users, items, interactions = (
        ColumnArrays.mapped((folder / f"{name}.arrow").open("rb"))
        for name in ("user_factors", "item_factors", "user_items")
    )
    ids = users.ids(USER), items.ids(ITEM)
    index = (interactions.numbers(name, pa.int32()) for name in (USER_INDEX, ITEM_INDEX))
    contents = Contents(
        Pattern.from_coordinates(*index, (len(ids[0]), len(ids[1]))),
        interactions.numbers(WEIGHT, pa.float32()),
        interactions.numbers(EXCLUDED, pa.bool_()),
        {EVENT: interactions.numbers(count_column(EVENT), pa.int32())},
    )
    factors = Factors(users.vectors(FACTORS, width), items.vectors(FACTORS, width))
    return Model(*ids, factors, contents, {"target_events": [EVENT], "blend": BLEND})


def make(table: str, folder: Path, width: int, n: int) -> None:
    """Make one table, or check all of them.

    Raises:
        RuntimeError: a promise is broken.
    """
    if table == "broken_promises":
        if broken := broken_promises(folder):
            raise RuntimeError("\n".join(broken))
        return
    model, offer = model_in(folder, width), offer_in(read_table(folder / "catalogue.parquet"))
    plan = ExportPlan(n, blend=table == "blend")
    said = {"n": n, "target_events": [EVENT]}
    if table == "popular_items":
        popularity = Popularity.of(model.target_users, len(model.users), offer)
        popular = popular_items_of(popularity, offer, model.items, n)
        write_table(with_metadata(popular, said), folder / "popular_items.parquet")
        return
    export = LocalEngine().similar_items if table == "similar_items" else LocalEngine().recommendations
    write_table(with_metadata(export(model, offer, plan), said), folder / f"{table}.parquet")


def main() -> None:
    """Measure, and print a row per table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--factors", type=int, default=64)
    parser.add_argument("--n", type=int, default=20)
    parser.add_argument("--max-per-category", type=int, default=0)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=TABLES[:-1])
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.folder:
        (table,) = arguments.tables
        make(table, arguments.folder, arguments.factors, arguments.n)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        size = arguments.users, arguments.items, arguments.factors
        make_release(folder, *size, arguments.max_per_category)
        print("| table | wall s | CPU s | peak GB | file MB |\n|---|---|---|---|---|", flush=True)
        for table in arguments.tables:
            options = ["--tables", table, "--folder", temporary]
            options += ["--factors", str(arguments.factors), "--n", str(arguments.n)]
            command = [sys.executable, "-m", "benchmarks.exports", *options]
            wall, cpu, peak = measured(command, dict(os.environ), name=table)
            file = folder / f"{table}.parquet"
            megabytes = f"{file.stat().st_size / 1e6:.1f}" if file.exists() else ""
            print(f"| `{table}` | {wall:.1f} | {cpu:.1f} | {peak:.2f} | {megabytes} |", flush=True)


if __name__ == "__main__":
    main()
