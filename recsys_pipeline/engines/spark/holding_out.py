"""Which interactions are held out: by the same hashes as on one machine, with the same results."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyspark.sql.functions as sf

from recsys_pipeline.core.columns import (
    ITEM,
    ITEM_INDEX,
    SPLIT,
    TARGET,
    TARGET_TIMESTAMP,
    USER,
    USER_INDEX,
)
from recsys_pipeline.core.interactions import Datasets, Tables, unknown_in
from recsys_pipeline.core.metadata import with_metadata
from recsys_pipeline.core.splitting import HoldOutMethod, no_timestamps
from recsys_pipeline.engines.engine import HeldOut, HoldOutPlan, NothingToHoldOutError
from recsys_pipeline.engines.spark.frames import Scratch, collected, first_row, known_here
from recsys_pipeline.engines.spark.splits import SplitFrames

if TYPE_CHECKING:
    from pyspark.sql import Column


def hold_out(scratch: Scratch, bm25_matrix: Tables | Datasets, plan: HoldOutPlan) -> HeldOut:
    """See `recsys_pipeline.engines.engine.Engine`."""
    frames = SplitFrames(scratch, bm25_matrix)
    make = _by_hash if plan.given is None else _given
    tables = make(frames, plan)
    table = with_metadata(pa.concat_tables(tables), plan.told)
    unknown = unknown_in(table, frames.n_users)
    n_unseen, n_training = unknown["items"], 0
    for number in range(plan.n_splits):
        held, left = frames.training_pairs(table, number)
        if not number:
            n_training = left.count()
        with_item = held.select(ITEM_INDEX).filter(sf.col(ITEM_INDEX) >= 0)
        n_unseen += with_item.join(left.select(ITEM_INDEX).distinct(), ITEM_INDEX, "left_anti").count()
    users = table[USER_INDEX].to_numpy()
    return HeldOut(
        table,
        frames.n_users,
        frames.n_interactions,
        plan.n_splits,
        n_training,
        frames.n_users - len(np.unique(users[users < frames.n_users])),
        n_unseen,
        unknown,
    )


def _by_hash(frames: SplitFrames, plan: HoldOutPlan) -> Sequence[pa.Table]:
    """As `core.splitting.leave_one_out`, by the same hashes."""
    rules = frames.rules
    if plan.method is HoldOutMethod.last and not frames.has_times:
        raise no_timestamps()
    pairs = frames.pairs
    allowed = sf.col(TARGET)
    if plan.never is not None:
        pairs = pairs.join(frames.positions(plan.never, "never"), [USER_INDEX, ITEM_INDEX], "left")
        allowed = allowed & sf.col("never").isNull()
    tables = []
    for number in range(plan.n_splits):
        seed = plan.seed + number
        hashed = _unsigned(sf.xxhash64(sf.lit(seed).cast("long"), *_longs(USER_INDEX, ITEM_INDEX)))
        order = [hashed.alias("hash"), sf.col(ITEM_INDEX).alias("item")]
        if plan.method is HoldOutMethod.last:
            long_ago = sf.lit(np.iinfo(np.int64).min).cast("long")
            time = sf.coalesce(sf.unix_micros(sf.col(TARGET_TIMESTAMP)), long_ago)
            # The later, the smaller; without the sign's overflow.
            order.insert(0, (sf.lit(-1).cast("long") - time).alias("age"))
        first = sf.min(sf.when(allowed, sf.struct(*order))).alias("first")
        found = (
            pairs.groupBy(USER_INDEX)
            .agg(first, sf.count(sf.lit(1)).alias("n"))
            .filter((sf.col("n") >= plan.min_interactions) & sf.col("first").isNotNull())
            .select(USER_INDEX, sf.col("first.item").alias(ITEM_INDEX))
        )
        if plan.max_users:
            drawn = _unsigned(sf.xxhash64(sf.lit(seed).cast("long"), *_longs(USER_INDEX)))
            found = found.orderBy(drawn, sf.col(USER_INDEX)).limit(plan.max_users)
        with_ids = found.join(frames.users, USER_INDEX).join(frames.items, ITEM_INDEX)
        columns = [USER, ITEM, USER_INDEX, ITEM_INDEX]
        table = collected(with_ids.select(*columns)).sort_by(USER_INDEX)
        if not table.num_rows:
            most = first_row(pairs.groupBy(USER_INDEX).count().agg(sf.max("count").alias("most")))["most"]
            raise NothingToHoldOutError(plan.min_interactions, most, rules.target_events)
        tables.append(_as_split(frames, table, number))
    return tables


def _as_split(frames: SplitFrames, table: pa.Table, number: int) -> pa.Table:
    kinds = {USER: frames.user_type, ITEM: frames.item_type, USER_INDEX: pa.int32(), ITEM_INDEX: pa.int32()}
    columns = {name: table[name].cast(kind) for name, kind in kinds.items()}
    return pa.table({**columns, SPLIT: np.full(table.num_rows, number, dtype=np.int32)})


def _given(frames: SplitFrames, plan: HoldOutPlan) -> Sequence[pa.Table]:
    """As `core.interactions.Interactions.given_table`."""
    given = plan.given
    assert given is not None
    users, items = (_indexes(frames, given[name], name) for name in (USER, ITEM))
    strangers = pc.unique(given[USER].filter(pc.is_null(users)))
    beyond = pc.add(pc.index_in(given[USER], strangers), frames.n_users)
    indexed = pa.table(
        {
            USER: given[USER],
            ITEM: given[ITEM],
            USER_INDEX: pc.coalesce(users, beyond.cast(pa.int32())),
            ITEM_INDEX: pc.fill_null(items, -1),
        }
    )
    return [_as_split(frames, indexed, number) for number in range(plan.n_splits)]


def _indexes(frames: SplitFrames, ids: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """The index of each of these ids, null for one that is not known."""
    table, index = (frames.users, USER_INDEX) if name == USER else (frames.items, ITEM_INDEX)
    wanted = known_here(frames.scratch, pa.table({name: pc.unique(ids)}))
    found = collected(wanted.join(table, name).select(name, index))
    places = pc.index_in(ids, found[name].cast(ids.type))
    return found[index].combine_chunks().cast(pa.int32()).take(places.combine_chunks())


def _longs(*names: str) -> list["Column"]:
    return [sf.col(name).cast("long") for name in names]


def _unsigned(hashed: "Column") -> "Column":
    """In the order of unsigned integers, which those of Spark are not."""
    return hashed.bitwiseXOR(sf.lit(np.iinfo(np.int64).min).cast("long"))
