"""The interactions in blocks of rows: what a worker holds at once while it solves them.

A block has the rows whose index leaves the same remainder, so that old ids, which often have more
interactions, spread evenly. A row with so many interactions that it would fill a block by itself, say the
item that a tenth of all events are of, is cut into pieces by its columns: each piece adds up its share of the
normal equations, and the shares are summed.
"""

import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyspark.sql.functions as sf
from numpy.typing import NDArray

from recsys_pipeline.core.columns import ITEM_INDEX, USER_INDEX
from recsys_pipeline.engines.spark.frames import Kept, Scratch, collected, from_bytes
from recsys_pipeline.engines.spark.splits import Weighed

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

# Interactions of a block: with their weights and the vectors that they need, some hundred megabytes.
INTERACTIONS_PER_BLOCK = 2_000_000
# A row with more is cut into pieces.
MOST_OF_A_ROW = 500_000

_ROUTES = "index int, block int"


class Side(NamedTuple):
    """One side of the interactions in blocks: its rows are solved while the columns are fixed.

    Attributes:
        folder: a file a block, see `Block`.
        filled: the blocks that have a file: the others have no interactions.
        routes: by index of a column, the blocks that need its vector.
        n_rows: of the matrix, from this side.
        n_columns: the same.
        n_blocks: of whole rows.
        cut_rows: the rows that are cut into pieces, ascending.
    """

    folder: Path
    filled: frozenset[int]
    routes: Kept
    n_rows: int
    n_columns: int
    n_blocks: int
    cut_rows: NDArray[np.int32]

    def remove(self) -> None:
        """Nobody trains on it any more."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.routes.remove()


class Block(NamedTuple):
    """What a worker solves at once.

    Attributes:
        is_cut: whether it holds pieces of rows.
        rows: (n_rows,) index of each row, ascending.
        indptr: (n_rows + 1,), where the interactions of each begin.
        places: (n_interactions,) place of the column among `needed`.
        needed: (n_needed,) the columns that occur, ascending.
        weights: (n_interactions, n_weightings) float32; NaN for what a setting does not train on.
    """

    is_cut: bool
    rows: NDArray[np.int32]
    indptr: NDArray[np.int64]
    places: NDArray[np.int32]
    needed: NDArray[np.int32]
    weights: NDArray[np.float32]

    @classmethod
    def read(cls, folder: str, number: int) -> "Block":
        """That of this number; its arrays are mapped."""
        with pa.memory_map(_path(folder, number)) as file:
            (row,) = pa.ipc.open_file(file).read_all().to_batches()
        rows, indptr, places, needed, weights = (
            np.frombuffer(row[name][0].as_buffer(), kind) for name, kind in _ARRAYS.items()
        )
        return cls(row["is_cut"][0].as_py(), rows, indptr, places, needed, weights.reshape(len(places), -1))

    def write(self, folder: str, number: int) -> None:
        """Whole or not at all: a task may be done twice, by two workers at a time."""
        columns = {
            name: pa.array([np.ascontiguousarray(array, kind).data], pa.large_binary())
            for (name, kind), array in zip(_ARRAYS.items(), self[1:], strict=True)
        }
        table = pa.table({"is_cut": [self.is_cut], **columns})
        path = _path(folder, number)
        partial = f"{path}.{uuid.uuid4().hex}"
        with pa.OSFile(partial, "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
        os.replace(partial, path)


_ARRAYS: Mapping[str, type[np.generic]] = {
    "rows": np.int32,
    "indptr": np.int64,
    "places": np.int32,
    "needed": np.int32,
    "weights": np.float32,
}


def _path(folder: str, number: int) -> str:
    return f"{folder}/{number}.arrow"


def sides_of(
    scratch: Scratch,
    weighed: Weighed,
    interactions_per_block: int = INTERACTIONS_PER_BLOCK,
    most_of_a_row: int = MOST_OF_A_ROW,
) -> tuple[Side, Side]:
    """The interactions by user and by item.

    Args:
        scratch: where they are kept.
        weighed: what is trained on.
        interactions_per_block: about so many a block has.
        most_of_a_row: a row with more is cut.
    """
    pairs = scratch.kept(weighed.pairs, "weighed")
    n_blocks = max(1, -(-pairs.n_rows // interactions_per_block))
    n_weightings = len(weighed.weightings)
    users, items = (
        _side(scratch, pairs.frame, row, column, shape, pairs.n_rows, n_blocks, n_weightings, most_of_a_row)
        for row, column, shape in (
            (USER_INDEX, ITEM_INDEX, (weighed.n_users, weighed.n_items)),
            (ITEM_INDEX, USER_INDEX, (weighed.n_items, weighed.n_users)),
        )
    )
    pairs.remove()
    return users, items


def _side(
    scratch: Scratch,
    pairs: "DataFrame",
    row: str,
    column: str,
    shape: tuple[int, int],
    n_pairs: int,
    n_blocks: int,
    n_weightings: int,
    most_of_a_row: int,
) -> Side:
    named = pairs.select(sf.col(row).alias("row"), sf.col(column).alias("column"), "weights")
    # A cluster of few cores has more blocks than data: enough for each core to have one.
    n_blocks = max(n_blocks, min(shape[0], _cores(scratch)))
    cut_rows, n_of_cut = np.empty(0, np.int32), 0
    if n_pairs > most_of_a_row:
        heavy = named.groupBy("row").count().filter(sf.col("count") > most_of_a_row)
        cut = collected(heavy).sort_by("row")
        cut_rows = cut["row"].to_numpy().astype(np.int32)
        n_of_cut = int(cut["count"].to_numpy().sum())
    whole = sf.pmod(sf.col("row"), sf.lit(n_blocks))
    block = whole
    if len(cut_rows):
        n_pieces = -(-n_of_cut // most_of_a_row)
        piece = sf.lit(n_blocks) + sf.pmod(sf.col("column"), sf.lit(n_pieces))
        block = sf.when(sf.col("row").isin(cut_rows.tolist()), piece).otherwise(whole)
    placed = named.withColumn("block", block.cast("int"))
    folder = scratch.shared_folder(f"blocks-of-{row}")
    make = _blocker(str(folder), n_blocks, n_weightings)
    routes = scratch.kept(placed.groupBy("block").applyInArrow(make, _ROUTES), f"routes-to-{row}")
    filled = frozenset(int(path.stem) for path in folder.glob("*.arrow"))
    return Side(folder, filled, routes, *shape, n_blocks, cut_rows)


def _cores(scratch: Scratch) -> int:
    """Cores of the cluster, as far as it says; there may be none yet."""
    try:
        return int(scratch.spark.sparkContext.defaultParallelism)
    except Exception:  # Connect tells nobody
        return 2


def _blocker(folder: str, n_blocks: int, n_weightings: int) -> Any:
    """Writes a block, and tells which vectors it needs."""

    def make(key: tuple[Any, ...], table: pa.Table) -> pa.Table:
        number = key[0].as_py()
        row, column = (table[name].to_numpy() for name in ("row", "column"))
        order = np.lexsort((column, row))
        rows, counts = np.unique(row, return_counts=True)
        needed, place = np.unique(column, return_inverse=True)
        indptr = np.concatenate([[0], np.cumsum(counts)])
        weights = from_bytes(table["weights"], n_weightings)[order]
        places = place.reshape(-1)[order].astype(np.int32)
        block = Block(number >= n_blocks, rows, indptr, places, needed, weights)
        block.write(folder, number)
        return pa.table({"index": needed.astype(np.int32), "block": np.full(len(needed), number, np.int32)})

    return make
