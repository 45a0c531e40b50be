"""The interactions in blocks of rows: what a worker holds at once while it solves them.

A block has the rows whose index leaves the same remainder, so that old ids, which often have more
interactions, spread evenly. A row with so many interactions that it would fill a block by itself, say the
item that a tenth of all events are of, is cut into pieces by its columns: each piece adds up its share of the
normal equations, and the shares are summed.
"""

from collections.abc import Iterator
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

BLOCKS = "block int, is_cut boolean, row binary, indptr binary, place binary, needed binary, weights binary"


class Side(NamedTuple):
    """One side of the interactions in blocks: its rows are solved while the columns are fixed.

    Attributes:
        blocks: a row a block, see `Block`.
        routes: by index of a column, the blocks that need its vector.
        n_rows: of the matrix, from this side.
        n_columns: the same.
        n_blocks: of whole rows.
        cut_rows: the rows that are cut into pieces, ascending.
    """

    blocks: Kept
    routes: Kept
    n_rows: int
    n_columns: int
    n_blocks: int
    cut_rows: NDArray[np.int32]

    def remove(self) -> None:
        """Nobody trains on it any more."""
        self.blocks.remove()
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
    def of(cls, table: pa.Table) -> "Block":
        """The block of the only row of the table."""
        row = {name: table[name][0] for name in table.column_names}
        rows, places, needed = (
            np.frombuffer(row[name].as_buffer(), np.int32) for name in ("row", "place", "needed")
        )
        weights = np.frombuffer(row["weights"].as_buffer(), np.float32)
        indptr = np.frombuffer(row["indptr"].as_buffer(), np.int64)
        return cls(row["is_cut"].as_py(), rows, indptr, places, needed, weights.reshape(len(places), -1))


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
        _side(scratch, pairs.frame, row, column, shape, n_blocks, n_weightings, most_of_a_row)
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
    n_blocks: int,
    n_weightings: int,
    most_of_a_row: int,
) -> Side:
    named = pairs.select(sf.col(row).alias("row"), sf.col(column).alias("column"), "weights")
    degrees = named.groupBy("row").count()
    # A cluster of few cores has more blocks than data: enough for each core to have one.
    n_blocks = max(n_blocks, min(shape[0], _cores(scratch)))
    heavy = degrees.filter(sf.col("count") > most_of_a_row)
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
    blocks = scratch.kept(
        placed.groupBy("block").applyInArrow(_blocker(n_blocks, n_weightings), BLOCKS), f"blocks-of-{row}"
    )
    needed = blocks.frame.select("block", "needed").mapInArrow(_needed, "index int, block int")
    routes = scratch.kept(needed, f"routes-to-{row}")
    return Side(blocks, routes, *shape, n_blocks, cut_rows)


def _cores(scratch: Scratch) -> int:
    """Cores of the cluster, as far as it says; there may be none yet."""
    try:
        return int(scratch.spark.sparkContext.defaultParallelism)
    except Exception:  # Connect tells nobody
        return 2


def _blocker(n_blocks: int, n_weightings: int) -> Any:
    def make(key: tuple[Any, ...], table: pa.Table) -> pa.Table:
        number = key[0].as_py()
        row, column = (table[name].to_numpy() for name in ("row", "column"))
        order = np.lexsort((column, row))
        rows, counts = np.unique(row, return_counts=True)
        needed, place = np.unique(column, return_inverse=True)
        indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        weights = from_bytes(table["weights"], n_weightings)[order]
        content: dict[str, NDArray[Any]] = {
            "row": rows.astype(np.int32),
            "indptr": indptr,
            "place": place.reshape(-1)[order].astype(np.int32),
            "needed": needed.astype(np.int32),
            "weights": weights,
        }
        return pa.table(
            {
                "block": pa.array([number], pa.int32()),
                "is_cut": [number >= n_blocks],
                **{name: pa.array([each.tobytes()], pa.binary()) for name, each in content.items()},
            }
        )

    return make


def _needed(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for number, needed in zip(batch["block"], batch["needed"], strict=True):
            index = np.frombuffer(needed.as_buffer(), np.int32)
            block = np.full(len(index), number.as_py(), np.int32)
            yield pa.record_batch([pa.array(index), pa.array(block)], names=["index", "block"])
