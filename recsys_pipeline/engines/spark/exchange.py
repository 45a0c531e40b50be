"""Interactions on their way to blocks: a writer sorts its own by block, and a block reads a piece of each."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

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

    A file has (n_blocks + 1,) int64 where the interactions of each block begin and end; then three arrays.

    Attributes:
        folder: where they lie.
        n_blocks: so many read them.
        n_weightings: of a weight.
    """

    folder: Path
    n_blocks: int
    n_weightings: int

    def write(self, name: str, blocks: NDArray[np.integer], pairs: Pairs) -> None:
        """Interactions, and to which block each goes."""
        order = np.argsort(blocks, kind="stable")
        begins = np.searchsorted(blocks[order], np.arange(self.n_blocks + 1))
        with whole(str(self.folder / name)) as path, Path(path).open("wb") as file:
            begins.astype(np.int64).tofile(file)
            for array in pairs:
                array[order].tofile(file)

    @property
    def names(self) -> list[str]:
        """Those of all files, in order."""
        return sorted(path.name for path in self.folder.glob("[!.]*"))

    def of_block(self, number: int, names: Sequence[str]) -> Pairs:
        """What has come for a block, in these files."""
        nothing = np.empty(0, np.int32)
        found = [Pairs(nothing, nothing, np.empty((0, self.n_weightings), np.float32))]
        found += [self._piece(number, name) for name in names]
        return Pairs(*(np.concatenate(arrays) for arrays in zip(*found, strict=True)))

    def _piece(self, number: int, name: str) -> Pairs:
        with (self.folder / name).open("rb") as file:
            begins = np.fromfile(file, np.int64, self.n_blocks + 1)
            begin, n = int(begins[number]), int(begins[number + 1] - begins[number])
            header, n_all = file.tell(), int(begins[-1])
            rows, columns, weights = (
                _part(file, kind, header + at * n_all * 4, begin * width, n * width)
                for kind, at, width in (
                    (np.int32, 0, 1),
                    (np.int32, 1, 1),
                    (np.float32, 2, self.n_weightings),
                )
            )
        return Pairs(rows, columns, weights.reshape(n, self.n_weightings))

    def remove(self) -> None:
        """All have read."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _part(file: BinaryIO, kind: type[np.generic], begin: int, first: int, n: int) -> NDArray[Any]:
    """Numbers of an array of four bytes each that begins there."""
    file.seek(begin + first * 4)
    return np.fromfile(file, kind, n)
