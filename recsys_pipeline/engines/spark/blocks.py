"""The interactions in blocks of rows: what a worker holds at once while it solves them.

How rows are spread over blocks is `vectors.Spread`. A row with so many interactions that it would fill a
block by itself, say the item that a tenth of all events are of, is cut into pieces by its columns: each piece
adds up its share of the normal equations, and the shares are summed.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyspark.sql.functions as sf
from numpy.typing import NDArray

from recsys_pipeline.core.columns import ITEM_INDEX, USER_INDEX
from recsys_pipeline.engines.spark.exchange import Exchange, Pairs
from recsys_pipeline.engines.spark.frames import Scratch, collected, from_bytes, whole
from recsys_pipeline.engines.spark.side_by_side import on_workers
from recsys_pipeline.engines.spark.splits import Weighed
from recsys_pipeline.engines.spark.vectors import Spread

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

# Interactions of a block: with their weights and the vectors that they need, some hundred megabytes.
INTERACTIONS_PER_BLOCK = 2_000_000
# A row with more is cut into pieces.
MOST_OF_A_ROW = 500_000
_ROWS_TO_SEND = 1 << 20


class Side(NamedTuple):
    """One side of the interactions in blocks: its rows are solved while the columns are fixed.

    Attributes:
        folder: a file a block, see `Block`.
        filled: the blocks that have a file, ascending: the others have no interactions.
        rows: over the blocks; of higher numbers are those of pieces.
        columns: over the blocks of the other side.
        cut_rows: the rows that are cut into pieces, ascending.
    """

    folder: Path
    filled: Sequence[int]
    rows: Spread
    columns: Spread
    cut_rows: NDArray[np.int32]

    @property
    def pieces(self) -> Sequence[int]:
        """The blocks of pieces of rows."""
        return [block for block in self.filled if block >= self.rows.n_blocks]

    def remove(self) -> None:
        """Nobody trains on it any more."""
        shutil.rmtree(self.folder, ignore_errors=True)


class Block(NamedTuple):
    """What a worker solves at once.

    Attributes:
        rows: (n_rows,) index of each row, ascending.
        indptr: (n_rows + 1,), where the interactions of each begin.
        places: (n_interactions,) place of the column among `needed`.
        needed: (n_needed,) the columns that occur, by their blocks and ascending.
        begins: (n_blocks of the columns + 1,), where those of each block begin.
        weights: (n_interactions, n_weightings) float32; NaN for what a setting does not train on.
    """

    rows: NDArray[np.int32]
    indptr: NDArray[np.int64]
    places: NDArray[np.int32]
    needed: NDArray[np.int32]
    begins: NDArray[np.int64]
    weights: NDArray[np.float32]

    @classmethod
    def read(cls, folder: Path, number: int) -> "Block":
        """That of this number; its arrays are mapped."""
        with pa.memory_map(_path(folder, number)) as file:
            (row,) = pa.ipc.open_file(file).read_all().to_batches()
        rows, indptr, places, needed, begins, weights = (
            np.frombuffer(row[name][0].as_buffer(), kind) for name, kind in _ARRAYS.items()
        )
        return cls(rows, indptr, places, needed, begins, weights.reshape(len(places), -1))

    def write(self, folder: Path, number: int) -> None:
        """Into a file."""
        columns = {
            name: pa.array([np.ascontiguousarray(array, kind).data], pa.large_binary())
            for (name, kind), array in zip(_ARRAYS.items(), self, strict=True)
        }
        table = pa.table(columns)
        with (
            whole(_path(folder, number)) as path,
            pa.OSFile(path, "wb") as file,
            pa.ipc.new_file(file, table.schema) as writer,
        ):
            writer.write_table(table)


_ARRAYS: Mapping[str, type[np.generic]] = {
    "rows": np.int32,
    "indptr": np.int64,
    "places": np.int32,
    "needed": np.int32,
    "begins": np.int64,
    "weights": np.float32,
}


def _path(folder: Path, number: int) -> str:
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
        weighed: what is trained on, which stays.
        interactions_per_block: about so many a block has.
        most_of_a_row: a row with more is cut.
    """
    # Where the data are few there are more cores than blocks: each core gets one.
    n_blocks = max(-(-weighed.pairs.n_rows // interactions_per_block), _cores(scratch))
    users, items = (Spread.over(n, n_blocks) for n in (weighed.n_users, weighed.n_items))
    return (
        _side(scratch, weighed, (USER_INDEX, ITEM_INDEX), (users, items), most_of_a_row),
        _side(scratch, weighed, (ITEM_INDEX, USER_INDEX), (items, users), most_of_a_row),
    )


def _side(
    scratch: Scratch,
    weighed: Weighed,
    names: tuple[str, str],
    spreads: tuple[Spread, Spread],
    most_of_a_row: int,
) -> Side:
    pairs = weighed.pairs
    n_cut, cut_rows = 0, np.empty(0, np.int32)
    if pairs.n_rows > most_of_a_row:
        n_cut, cut_rows = _too_long(pairs.frame, names[0], most_of_a_row)
    side = Side(scratch.shared_folder(f"blocks-of-{names[0]}"), (), *spreads, cut_rows)
    n_pieces = -(-n_cut // most_of_a_row)
    n_blocks, n_weightings = side.rows.n_blocks + n_pieces, len(weighed.weightings)
    exchange = Exchange(scratch.shared_folder("exchange"), n_blocks, n_weightings)
    files = pairs.files

    def send(place: int) -> None:
        with pq.ParquetFile(files[place]) as file:
            some = file.iter_batches(_ROWS_TO_SEND, columns=[*names, "weights"])
            for number, batch in enumerate(some):
                row, column = (batch[name].to_numpy() for name in names)
                blocks = side.rows.block_of(row)
                if n_pieces:
                    is_cut = np.isin(row, cut_rows)
                    blocks[is_cut] = side.rows.n_blocks + column[is_cut] % n_pieces
                weights = from_bytes(batch["weights"], n_weightings)
                exchange.write(f"{place}-{number}", blocks, Pairs(row, column, weights))

    on_workers(scratch, send, len(files))
    sent = exchange.names

    def receive(number: int) -> None:
        found = exchange.of_block(number, sent)
        if len(found.rows):
            _blocked(found, side.columns).write(side.folder, number)

    on_workers(scratch, receive, n_blocks)
    exchange.remove()
    return side._replace(filled=sorted(int(path.stem) for path in side.folder.glob("*.arrow")))


def _too_long(pairs: "DataFrame", name: str, most_of_a_row: int) -> tuple[int, NDArray[np.int32]]:
    """How many interactions the rows have that have more than so many, and these rows."""
    counted = pairs.groupBy(name).count().filter(sf.col("count") > most_of_a_row)
    found = collected(counted).sort_by(name)
    return int(found["count"].to_numpy().sum()), found[name].to_numpy().astype(np.int32)


def _cores(scratch: Scratch) -> int:
    """Cores of the cluster, as far as it says; there may be none yet."""
    try:
        return int(scratch.spark.sparkContext.defaultParallelism)
    except Exception:  # Connect tells nobody
        return 2


def _blocked(pairs: Pairs, spread: Spread) -> Block:
    """These interactions as a block; the columns are spread over those of the other side."""
    order = np.lexsort((pairs.columns, pairs.rows))
    rows, counts = np.unique(pairs.rows, return_counts=True)
    indptr = np.concatenate([[0], np.cumsum(counts)])
    needed, place = np.unique(pairs.columns, return_inverse=True)
    blocks = spread.block_of(needed)
    by_block = np.argsort(blocks, kind="stable")
    begins = np.searchsorted(blocks[by_block], np.arange(spread.n_blocks + 1))
    rank = np.empty(len(needed), np.int32)
    rank[by_block] = np.arange(len(needed), dtype=np.int32)
    places = rank[place.reshape(-1)[order]]
    return Block(rows, indptr, places, needed[by_block], begins, pairs.weights[order])
