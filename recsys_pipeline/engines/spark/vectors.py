"""The vectors of one side, in files: a half-iteration writes them, and the next one maps what it needs.

A block writes its vectors once for itself and once more for each block of the other side that needs some of
them, side by side. So a block reads a piece of each file, in order, and nothing passes through the JVM.
"""

import mmap
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyspark.sql.functions as sf
from numpy.typing import NDArray

from recsys_pipeline.engines.spark.frames import Scratch, collected, whole

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

# Rows that follow each other stay together, so that a random start is made for many at a time; but each block
# has this many runs, so that old ids, which often have more interactions, spread evenly.
_LONGEST_RUN = 1 << 12
_RUNS_OF_A_BLOCK = 16
_ROWS_OF_A_FILE = 1 << 20


class Spread(NamedTuple):
    """How rows are spread over blocks: by turns, a run of rows each.

    Attributes:
        n_rows: of all blocks.
        n_blocks: with runs of them.
        run: rows of a run.
    """

    n_rows: int
    n_blocks: int
    run: int

    @classmethod
    def over(cls, n_rows: int, n_blocks: int) -> "Spread":
        """Evenly, over no more blocks than there are rows."""
        n_blocks = max(1, min(n_blocks, n_rows))
        run = min(_LONGEST_RUN, n_rows // (n_blocks * _RUNS_OF_A_BLOCK))
        return cls(n_rows, n_blocks, max(1, run))

    def block_of(self, rows: NDArray[np.integer]) -> NDArray[np.integer]:
        """The block of each row."""
        return rows // self.run % self.n_blocks

    def column(self, rows: str) -> "Column":
        """The block of each row in a column of that name."""
        return (sf.floor(sf.col(rows) / self.run) % self.n_blocks).cast("int")

    def place_of(self, rows: NDArray[np.integer]) -> NDArray[np.integer]:
        """The place of each row in its block."""
        return rows // (self.run * self.n_blocks) * self.run + rows % self.run

    def runs_of(self, block: int) -> list[tuple[int, int]]:
        """Where each run of a block begins and ends."""
        begins = range(block * self.run, self.n_rows, self.n_blocks * self.run)
        return [(begin, min(begin + self.run, self.n_rows)) for begin in begins]

    def rows_of(self, block: int) -> NDArray[np.int32]:
        """The rows of a block, ascending."""
        return np.concatenate([np.arange(*run, dtype=np.int32) for run in self.runs_of(block)])

    def n_rows_of(self, block: int) -> int:
        """How many rows a block has."""
        return sum(end - begin for begin, end in self.runs_of(block))


class Vectors(NamedTuple):
    """The files of the vectors of one side, a block each.

    A file has (n_readers + 1,) int64 where the copies for each reader begin and end, counted in vectors; then
    the block's own vectors; then the copies.

    Attributes:
        folder: where they lie.
        spread: of the rows over the blocks.
        width: numbers of a vector.
        n_readers: blocks that have copies.
        kind: of the numbers.
    """

    folder: str
    spread: Spread
    width: int
    n_readers: int = 0
    kind: str = "float32"

    @property
    def n_rows(self) -> int:
        """Of all blocks."""
        return self.spread.n_rows

    @classmethod
    def of_columns(
        cls,
        scratch: Scratch,
        frame: "DataFrame",
        columns: Sequence[str],
        index: str,
        n_rows: int,
        kind: str,
    ) -> "Vectors":
        """The numbers in the columns of a frame as vectors, without copies; those of missing rows are 0.

        Args:
            scratch: where they are kept.
            frame: a row each.
            columns: of numbers.
            index: name of the column that says of which row they are.
            n_rows: so many there are.
            kind: of the numbers.
        """
        spread = Spread.over(n_rows, -(-n_rows // _ROWS_OF_A_FILE))
        made = cls(str(scratch.shared_folder(f"by-{index}")), spread, len(columns), kind=kind)

        def write(key: tuple[Any, ...], table: pa.Table) -> pa.Table:
            block = key[0].as_py()
            vectors = np.zeros((spread.n_rows_of(block), len(columns)), kind)
            places = spread.place_of(table[index].to_numpy())
            for number, name in enumerate(columns):
                vectors[places, number] = table[name].to_numpy()
            made.write(block, vectors)
            return pa.table({"block": pa.array([block], pa.int32())})

        placed = frame.select(index, *columns).withColumn("block", spread.column(index))
        done = collected(placed.groupBy("block").applyInArrow(write, "block int"))
        for block in set(range(spread.n_blocks)) - set(done["block"].to_pylist()):
            made.write(block, np.zeros((spread.n_rows_of(block), len(columns)), kind))
        return made

    def write(
        self,
        block: int,
        vectors: NDArray[Any],
        copies: Sequence[NDArray[np.integer]] = (),
        sums: NDArray[np.float64] | None = None,
    ) -> None:
        """The file of a block, whole or not at all: a task may be done twice, by two workers at a time.

        Args:
            block: its number.
            vectors: (n_rows, width) its own.
            copies: of each reader, the places of those that it needs.
            sums: what is added up over all blocks, see `add_up`.
        """
        if sums is not None:
            with whole(self._sums_path(block)) as path:
                sums.tofile(path)
        with whole(self._path(block)) as path, Path(path).open("wb") as file:
            begins = np.concatenate([[0], np.cumsum([len(places) for places in copies])])
            begins.astype(np.int64).tofile(file)
            np.ascontiguousarray(vectors, self.kind).tofile(file)
            for places in copies:
                vectors[places].tofile(file)

    def of_block(self, block: int) -> NDArray[Any]:
        """(n_rows, width) the vectors of a block, mapped."""
        return self._mapped(block, 0, self.spread.n_rows_of(block))

    def copies_of(self, block: int, reader: int) -> NDArray[Any]:
        """(n_needed, width) the vectors of a block that a reader needs, mapped."""
        with Path(self._path(block)).open("rb") as file:
            file.seek(reader * 8)
            begin, end = np.fromfile(file, np.int64, 2)
        return self._mapped(block, self.spread.n_rows_of(block) + int(begin), int(end - begin))

    def _mapped(self, block: int, first: int, n: int) -> NDArray[Any]:
        if not n:
            return np.empty((0, self.width), self.kind)
        kind = np.dtype(self.kind)
        header = (self.n_readers + 1) * 8
        with Path(self._path(block)).open("rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        found = np.frombuffer(content, kind, n * self.width, header + first * self.width * kind.itemsize)
        return found.reshape(n, self.width)

    def blocks(self) -> Iterator[tuple[NDArray[np.int32], NDArray[Any]]]:
        """Of each block its rows, ascending, and their vectors."""
        for block in range(self.spread.n_blocks):
            yield self.spread.rows_of(block), self.of_block(block)

    def take(self, rows: NDArray[np.integer]) -> NDArray[Any]:
        """(n_rows, width) the vectors of these rows."""
        found = np.empty((len(rows), self.width), self.kind)
        blocks, places = self.spread.block_of(rows), self.spread.place_of(rows)
        for block in np.unique(blocks):
            here = blocks == block
            found[here] = self.of_block(int(block))[places[here]]
        return found

    def add_up(self) -> None:
        """Add up the sums of all blocks, and keep the total for the workers."""
        total = sum(np.fromfile(self._sums_path(block), np.float64) for block in range(self.spread.n_blocks))
        np.asarray(total).tofile(f"{self.folder}/total")

    def total(self) -> NDArray[np.float64]:
        """What `add_up` has found."""
        return np.fromfile(f"{self.folder}/total", np.float64)

    def remove(self) -> None:
        """Nobody reads them any more."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, block: int) -> str:
        return os.path.join(self.folder, f"{block}.vectors")

    def _sums_path(self, block: int) -> str:
        return os.path.join(self.folder, f"{block}.sums")


class Same(NamedTuple):
    """Of every row the vector of one number, 1.

    Attributes:
        n_rows: so many there are.
    """

    n_rows: int

    def take(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """(n_rows, 1) the vectors of these rows."""
        return np.ones((len(rows), 1), np.float32)
