"""Interactions on their way to blocks: a writer sorts its own by block, and a block reads a piece of each."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_pipeline.engines.spark.frames import whole


class Pairs(NamedTuple):
    """Interactions.

    Attributes:
        rows: (n,) index of the row.
        columns: (n,) index of the column.
        weights: (n, n_weightings) float32.
    """

    rows: NDArray[np.int32]
    columns: NDArray[np.int32]
    weights: NDArray[np.float32]


class Exchange(NamedTuple):
    """The files, one a writer.

    A file has (n_blocks + 1,) int64 where the interactions of each block begin and end; then these.

    Attributes:
        folder: where they lie.
        n_blocks: so many read them.
        n_weightings: of a weight.
    """

    folder: Path
    n_blocks: int
    n_weightings: int

    @property
    def _kind(self) -> np.dtype[np.void]:
        """Of an interaction."""
        return np.dtype(
            [("row", np.int32), ("column", np.int32), ("weights", np.float32, (self.n_weightings,))]
        )

    def write(self, name: str, blocks: NDArray[np.integer], pairs: Pairs) -> None:
        """Interactions, and to which block each goes."""
        order = np.argsort(blocks, kind="stable")
        begins = np.searchsorted(blocks[order], np.arange(self.n_blocks + 1))
        records = np.empty(len(order), self._kind)
        for field, array in zip(self._kind.fields or (), pairs, strict=True):
            records[field] = array[order]
        with whole(str(self.folder / name)) as path, Path(path).open("wb") as file:
            begins.astype(np.int64).tofile(file)
            records.tofile(file)

    @property
    def names(self) -> list[str]:
        """Those of all files, in order."""
        return sorted(path.name for path in self.folder.glob("[!.]*"))

    def of_block(self, number: int, names: Sequence[str]) -> Pairs:
        """What has come for a block, in these files."""
        pieces = [self._piece(number, name) for name in names]
        found = np.concatenate([np.empty(0, self._kind), *pieces])
        return Pairs(found["row"], found["column"], found["weights"])

    def _piece(self, number: int, name: str) -> NDArray[np.void]:
        with (self.folder / name).open("rb") as file:
            begins = np.fromfile(file, np.int64, self.n_blocks + 1)
            file.seek(int(begins[number]) * self._kind.itemsize, os.SEEK_CUR)
            return np.fromfile(file, self._kind, int(begins[number + 1] - begins[number]))

    def remove(self) -> None:
        """All have read."""
        shutil.rmtree(self.folder, ignore_errors=True)
