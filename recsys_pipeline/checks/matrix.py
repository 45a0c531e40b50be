"""Claims about the matrix."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from dagster import AssetCheckResult, asset_check

from recsys_pipeline import settings
from recsys_pipeline.checks.claims import batches, claim, claims, n_true
from recsys_pipeline.checks.past import WARNS
from recsys_pipeline.core.columns import (
    ITEM,
    ITEM_INDEX,
    USER,
    USER_INDEX,
    WEIGHT,
)
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.interactions import Datasets
from recsys_pipeline.steps.step import check_step
from recsys_pipeline.storage.releases import current_release, has_release, read_release
from recsys_pipeline.storage.warehouse import Warehouse


@asset_check(asset="bm25_matrix")
@check_step
def every_weight_is_positive(bm25_matrix: Datasets) -> AssetCheckResult:
    """All BM25 weights are positive and finite: ALS would take any other for a dislike."""
    pairs = bm25_matrix["pairs"]
    n_bad = pairs.count_rows(filter=~((pc.field(WEIGHT) > 0) & (pc.field(WEIGHT) < float("inf"))))
    return AssetCheckResult(
        passed=n_bad == 0,
        description=f"{pairs.count_rows():,} weights, {n_bad:,} of them at or below zero or not finite.",
        metadata={"weights_at_or_below_zero": n_bad},
    )


_IDS = "pairs_have_their_ids"
_NEW = {USER: "new_users_are_as_usual", ITEM: "new_items_are_as_usual"}


@claims(
    "bm25_matrix",
    {
        _IDS: "Every id is there once, and the pairs follow each other by user and item, none twice, each "
        "with indexes of ids.",
        _NEW[USER]: "No more users than RECSYS_NEW_LIMIT are unknown to the release that readers have.",
        _NEW[ITEM]: "No more items than RECSYS_NEW_LIMIT are unknown to the release that readers have.",
    },
    inputs=["bm25_matrix"],
    blocking=[_IDS],
)
def claims_of_bm25_matrix(warehouse: Warehouse, bm25_matrix: Datasets) -> Iterator[AssetCheckResult]:
    """Two columns of indexes are read as a stream, and the ids."""
    ids = {USER: _ids(bm25_matrix, "users", USER), ITEM: _ids(bm25_matrix, "items", ITEM)}
    n_pairs, n_out_of_place = 0, 0
    last = -1
    for batch in batches(bm25_matrix["pairs"], [USER_INDEX, ITEM_INDEX]):
        users, items = (batch[name].to_numpy().astype(np.int64) for name in (USER_INDEX, ITEM_INDEX))
        within = (users >= 0) & (users < len(ids[USER])) & (items >= 0) & (items < len(ids[ITEM]))
        places = users * len(ids[ITEM]) + items
        after = np.diff(places, prepend=last) > 0
        n_pairs += len(batch)
        n_out_of_place += int(np.count_nonzero(~(within & after)))
        last = int(places[-1]) if len(places) else last
    repeated = {name: len(values) - len(pc.unique(values)) for name, values in ids.items()}
    yield claim(
        _IDS,
        n_pairs > 0 and n_out_of_place == 0 and not any(repeated.values()),
        f"{n_pairs:,} pairs of {len(ids[USER]):,} users and {len(ids[ITEM]):,} items; {n_out_of_place:,} "
        f"pairs are out of place, {repeated[USER]:,} users and {repeated[ITEM]:,} items are there twice.",
        metadata={"pairs out of place": n_out_of_place},
    )
    released = _released_ids(warehouse)
    for name, word in ((USER, "users"), (ITEM, "items")):
        yield _few_are_new(_NEW[name], word, ids[name], released.get(name))


def _ids(tables: Datasets, table: str, name: str) -> pa.ChunkedArray:
    return tables[table].to_table([name])[name]


def _released_ids(warehouse: Warehouse) -> dict[str, pa.Array]:
    """The ids of the release that readers have; nothing where there is none that can be read."""
    if not has_release(warehouse.root):
        return {}
    try:
        model = read_release(current_release(warehouse.root))
    except InputError:
        return {}
    return {USER: model.users, ITEM: model.items}


def _few_are_new(name: str, word: str, ids: pa.ChunkedArray, released: pa.Array | None) -> AssetCheckResult:
    if released is None:
        told = f"{len(ids):,} {word}; nothing is released yet, so that there is nothing to compare with."
        return claim(name, True, told)
    if ids.type != released.type:
        # An id is text in the one and an integer in the other: as text they compare.
        ids, released = ids.cast(pa.string()), released.cast(pa.string())
    n_new = len(ids) - n_true(pc.is_in(ids, value_set=released))
    share = n_new / max(len(ids), 1)
    return claim(
        name,
        share <= settings.NEW_LIMIT,
        f"{n_new:,} of {len(ids):,} {word} ({share:.1%}) are unknown to the current release, which knows "
        f"{len(released):,}; the limit is {settings.NEW_LIMIT:.0%}.",
        warns=WARNS,
        metadata={f"new {word}": n_new, "share": share},
    )
