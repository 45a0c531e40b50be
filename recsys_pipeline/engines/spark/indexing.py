"""Strengths with the indexes of their users and items and with BM25 weights, in their order.

They are ordered by user and item, as the indexes are: so each worker takes some groups of rows, looks up the
users between its first and its last, and all items, and nothing is shuffled.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys_pipeline.core.columns import (
    ITEM,
    ITEM_INDEX,
    STRENGTH,
    TARGET,
    TARGET_TIMESTAMP,
    USER,
    USER_INDEX,
    WEIGHT,
)
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.engines.spark.frames import Kept, Scratch, whole
from recsys_pipeline.engines.spark.side_by_side import on_workers

_ROWS_AT_ONCE = 1 << 20

# Gives the weights of interactions by the numbers of their users, the lengths of their items and strengths.
Weigh = Callable[[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]


class _Piece(NamedTuple):
    """Groups of rows of a file, which follow each other."""

    file: str
    groups: Sequence[int]


def indexed_pairs(
    scratch: Scratch, strengths: Sequence[str], users: Kept, items: Kept, columns: Sequence[str], weigh: Weigh
) -> Kept:
    """These columns of the interactions, with `user_index`, `item_index` and `weight`.

    Args:
        scratch: where they are kept.
        strengths: files of `feedback_strengths`, in order.
        users: raw id, user_index and `n`, how many interactions they have.
        items: raw id, item_index and `length`.
        columns: of the result, in their order.
        weigh: gives the weights.

    Raises:
        InputError: the strengths are in another order.
    """
    pieces = [piece for file in strengths for piece in _pieces_of(file)]
    folder = scratch.shared_folder("pairs")
    of_users, of_items = users.files, items.files
    read = [USER, ITEM, *(name for name in columns if name not in (USER_INDEX, ITEM_INDEX, WEIGHT))]

    def work(number: int) -> None:
        piece = pieces[number]
        with pq.ParquetFile(piece.file) as file:
            table = file.read_row_groups(piece.groups, columns=read)
        first, last = pc.min_max(table[USER]).values()
        between = (pc.field(USER) >= first) & (pc.field(USER) <= last)
        own = ds.dataset(of_users, format="parquet").to_table(filter=between)
        all_items = ds.dataset(of_items, format="parquet").to_table()
        user, item = _places(table[USER], own[USER]), _places(table[ITEM], all_items[ITEM])
        user_index = own[USER_INDEX].to_numpy()[user]
        item_index = all_items[ITEM_INDEX].to_numpy()[item]
        steps, within = np.diff(user_index), np.diff(item_index)
        if (steps < 0).any() or (within[steps == 0] <= 0).any():
            raise InputError("feedback_strengths is not ordered by user and item: materialize it again.")
        weights = weigh(
            own["n"].to_numpy()[user], all_items["length"].to_numpy()[item], table[STRENGTH].to_numpy()
        )
        made = {USER_INDEX: user_index, ITEM_INDEX: item_index, WEIGHT: weights}
        if TARGET_TIMESTAMP in columns:
            times = table[TARGET_TIMESTAMP]
            made[TARGET_TIMESTAMP] = pc.if_else(table[TARGET], times, pa.scalar(None, times.type))
        found = pa.table({name: made[name] if name in made else table[name] for name in columns})
        with whole(str(folder / f"part-{number:05d}.parquet")) as path:
            pq.write_table(found, path, compression="zstd")

    on_workers(scratch, work, len(pieces))
    return Kept(scratch.spark, folder)


def _pieces_of(file: str) -> Iterator[_Piece]:
    metadata = pq.read_metadata(file)
    groups: list[int] = []
    n_rows = 0
    for group in range(metadata.num_row_groups):
        groups.append(group)
        n_rows += metadata.row_group(group).num_rows
        if n_rows >= _ROWS_AT_ONCE or group == metadata.num_row_groups - 1:
            if n_rows:
                yield _Piece(file, groups)
            groups, n_rows = [], 0


def _places(ids: pa.ChunkedArray, among: pa.ChunkedArray) -> NDArray[np.int32]:
    """(n,) the place of each id among those that are known."""
    places = pc.index_in(ids, among.combine_chunks().cast(ids.type)).combine_chunks()
    found: NDArray[np.int32] = places.to_numpy(zero_copy_only=False)
    return found
