"""A sample of users for a search on this machine: those of whom something is held out, and others by hash."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyspark.sql.functions as sf

from recsys_pipeline.core.columns import ITEM, ITEM_INDEX, USER, USER_INDEX
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.interactions import Datasets, Tables
from recsys_pipeline.core.metadata import stored_metadata, with_metadata
from recsys_pipeline.engines.spark.frames import Scratch, collected, known_here
from recsys_pipeline.engines.spark.splits import SplitFrames

# Another than that of any split, so that who is drawn has nothing to do with what is held out.
_SEED = -1


def sampled(
    scratch: Scratch, bm25_matrix: Tables | Datasets, leave_one_out_split: pa.Table, n_users: int
) -> tuple[Tables, pa.Table]:
    """The tables of `bm25_matrix` and of the split, of a sample of users, for a search in memory.

    Every held-out interaction is in it, in its order, so that its ranks stand for those of the whole; of the
    other users come those whose hash is smallest, until there are `n_users`. Indexes are made anew.

    Raises:
        InputError: there are more users of whom something is held out.
    """
    frames = SplitFrames(scratch, bm25_matrix)
    held = pc.unique(leave_one_out_split[USER_INDEX])
    held = held.filter(pc.less(held, frames.n_users))
    if len(held) > n_users:
        raise InputError(
            f"RECSYS_SPARK_SEARCH_USERS is {n_users:,}, and something is held out of {len(held):,} users, "
            "who all belong to the sample: raise it, or lower max_users of leave_one_out_split."
        )
    drawn = sf.xxhash64(sf.lit(_SEED).cast("long"), sf.col(USER_INDEX).cast("long"))
    of_held = known_here(scratch, pa.table({USER_INDEX: held}))
    others = frames.users.join(of_held, USER_INDEX, "left_anti").orderBy(drawn, sf.col(USER_INDEX))
    chosen = of_held.unionByName(others.limit(n_users - len(held)).select(USER_INDEX))
    users = collected(frames.users.join(chosen, USER_INDEX)).sort_by(USER_INDEX)
    pairs = collected(frames.pairs.join(chosen, USER_INDEX)).sort_by(
        [(USER_INDEX, "ascending"), (ITEM_INDEX, "ascending")]
    )
    wanted = known_here(scratch, pa.table({ITEM_INDEX: pc.unique(pairs[ITEM_INDEX])}))
    items = collected(frames.items.join(wanted, ITEM_INDEX)).sort_by(ITEM_INDEX)
    given = bm25_matrix["pairs"].schema
    pairs = pa.table({field.name: pairs[field.name].cast(field.type) for field in given})
    pairs = _renumbered(_renumbered(pairs, USER_INDEX, users[USER_INDEX]), ITEM_INDEX, items[ITEM_INDEX])
    tables = {
        "pairs": with_metadata(pairs, stored_metadata(bm25_matrix["pairs"])),
        "users": _table(users[USER], USER, USER_INDEX, frames.user_type),
        "items": _table(items[ITEM], ITEM, ITEM_INDEX, frames.item_type),
    }
    split = leave_one_out_split
    beyond = pc.subtract(split[USER_INDEX], frames.n_users - users.num_rows)
    user = pc.coalesce(pc.index_in(split[USER_INDEX], users[USER_INDEX].combine_chunks()), beyond)
    item = pc.fill_null(pc.index_in(split[ITEM_INDEX], items[ITEM_INDEX].combine_chunks()), -1)
    for name, column in ((USER_INDEX, user), (ITEM_INDEX, item)):
        split = split.set_column(split.schema.get_field_index(name), name, column.cast(pa.int32()))
    return tables, split


def _renumbered(table: pa.Table, name: str, index: pa.ChunkedArray) -> pa.Table:
    """The table with the place of each index among those that are left."""
    column = pc.index_in(table[name], index.combine_chunks()).cast(pa.int32())
    return table.set_column(table.schema.get_field_index(name), name, column)


def _table(ids: pa.ChunkedArray, name: str, index: str, kind: pa.DataType) -> pa.Table:
    return pa.table({index: np.arange(len(ids), dtype=np.int32), name: ids.cast(kind)})
