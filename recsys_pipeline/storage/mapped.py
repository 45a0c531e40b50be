"""Tables that are opened without being read: uncompressed Arrow files, mapped into memory.

Pages of a mapped file come from the disk when they are first touched, and all processes that map the same
file share them. The mapping is private: what is written to the arrays stays in this process and never reaches
the file, and no copy is made before. It stays valid when the file is removed.
"""

import hashlib
import io
import mmap
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, BinaryIO, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.factors import Rows
from recsys_pipeline.machine.scratch import scratch_folder
from recsys_pipeline.storage.tables import parse_parquet


class HashedFile(io.RawIOBase):
    """Hashes what is written to a file on its way there, so that it need not be read again."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Of what has been written, in hexadecimal digits."""
        return self._sha256.hexdigest()

    def writable(self) -> bool:
        """True."""
        return True

    def write(self, content: Any) -> int:
        """Write and hash the whole content."""
        self._file.write(content)
        self._sha256.update(content)
        return memoryview(content).nbytes


# Bytes of a column of text: its offsets have 32 bits.
_MOST_TEXT = 2**31 - 1


@contextmanager
def in_one_piece(rows: Rows) -> Iterator[pa.Table]:
    """A table as it is; the rows of a stream as a table of one piece, which the memory need not hold.

    The columns lie in temporary files (TMPDIR), mapped into memory, until the block ends.
    """
    if isinstance(rows, pa.Table):
        yield rows
        return
    with scratch_folder() as folder, ExitStack() as opened:
        n_rows = 0
        spools = [
            _Spool(field.type, opened.enter_context((folder / f"{place}.column").open("w+b")))
            for place, field in enumerate(rows.schema)
        ]
        for batch in rows:
            n_rows += batch.num_rows
            for spool, column in zip(spools, batch.columns, strict=True):
                spool.add(column)
        yield pa.table([spool.array(n_rows) for spool in spools], schema=rows.schema)


class _Spool:
    """A column that is written as it comes, batch after batch, and mapped as one array."""

    def __init__(self, kind: pa.DataType, file: BinaryIO) -> None:
        self._kind, self._file = kind, file
        self._offsets = [np.zeros(1, np.int32)]

    def add(self, column: pa.Array) -> None:
        """The next rows.

        Raises:
            ValueError: there are nulls.
        """
        if column.null_count:
            raise ValueError("a column of a model has nulls")
        if pa.types.is_string(self._kind):
            lengths = pc.binary_length(column).to_numpy()
            ends = np.cumsum(lengths) + int(self._offsets[-1][-1])
            if len(ends) and ends[-1] > _MOST_TEXT:
                raise InputError("best_model: raw ids of more than 2 GiB are more than a model can hold.")
            self._offsets.append(ends.astype(np.int32))
            for id_ in column:
                self._file.write(id_.as_buffer())
        elif pa.types.is_fixed_size_list(self._kind):
            self._file.write(np.ascontiguousarray(column.flatten().to_numpy()).data)
        else:
            self._file.write(np.ascontiguousarray(column.to_numpy(zero_copy_only=False)).data)

    def array(self, n_rows: int) -> pa.Array:
        """All rows."""
        self._file.flush()
        size = self._file.tell()
        content = pa.py_buffer(mmap.mmap(self._file.fileno(), size) if size else b"")
        if pa.types.is_string(self._kind):
            offsets = pa.py_buffer(np.concatenate(self._offsets))
            return pa.Array.from_buffers(self._kind, n_rows, [None, offsets, content])
        if pa.types.is_boolean(self._kind):
            return pa.array(np.frombuffer(content, bool))
        if pa.types.is_fixed_size_list(self._kind):
            values = pa.Array.from_buffers(
                self._kind.value_type, n_rows * self._kind.list_size, [None, content]
            )
            return pa.FixedSizeListArray.from_arrays(values, type=self._kind)
        return pa.Array.from_buffers(self._kind, n_rows, [None, content])


def write_mappable(table: pa.Table, file: BinaryIO | HashedFile) -> None:
    """Write a table as an Arrow file of one uncompressed record batch, so that each column is one array."""
    batch = pa.RecordBatch.from_arrays(
        [column.combine_chunks() for column in table.columns], schema=table.schema
    )
    with pa.ipc.new_file(file, table.schema) as writer:
        writer.write_batch(batch)


class ColumnArrays:
    """The columns of a table as arrays that may be written to.

    Every method raises `ValueError` for a column that is missing, has nulls or is of another type.
    """

    def __init__(self, columns: Mapping[str, pa.Array], mapping: mmap.mmap | None) -> None:
        self._columns = columns
        self._mapping = mapping

    @classmethod
    def mapped(cls, file: BinaryIO) -> Self:
        """Of a local Arrow file with one record batch.

        Raises:
            ValueError, OSError, pyarrow.ArrowException: it is none.
        """
        mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        reader = pa.ipc.open_file(pa.BufferReader(pa.py_buffer(mapping)))
        if reader.num_record_batches != 1:
            raise ValueError(f"it has {reader.num_record_batches} record batches instead of one")
        batch = reader.get_batch(0)
        # Whoever can write the file can write lengths and offsets that lead anywhere.
        batch.validate(full=True)
        return cls(dict(zip(batch.schema.names, batch.columns, strict=True)), mapping)

    @classmethod
    def parsed(cls, content: bytes) -> Self:
        """Of the content of a Parquet file.

        Raises:
            ValueError, OSError, pyarrow.ArrowException: it is none.
        """
        table = parse_parquet(content)
        return cls({name: table[name].combine_chunks() for name in table.column_names}, None)

    @property
    def names(self) -> list[str]:
        """Of the columns."""
        return list(self._columns)

    def ids(self, name: str) -> pa.Array:
        """Raw ids: integers or text."""
        return self._column(name, pa.int64(), pa.string(), pa.large_string())

    def numbers(self, name: str, kind: pa.DataType) -> NDArray[Any]:
        """(n,) numbers, or booleans, of this type."""
        return self._array(self._column(name, kind))

    def vectors(self, name: str, width: int) -> NDArray[np.float32]:
        """(n, width) float32."""
        values = self._column(name, pa.list_(pa.float32(), width)).flatten()
        if values.null_count:
            raise ValueError(f"column {name} has nulls")
        vectors: NDArray[np.float32] = self._array(values).reshape(-1, width)
        return vectors

    def _column(self, name: str, *kinds: pa.DataType) -> pa.Array:
        column = self._columns.get(name)
        if column is None or column.type not in kinds:
            found = "is missing" if column is None else f"is of type {column.type}"
            raise ValueError(f"column {name} {found}, expected {' or '.join(map(str, kinds))}")
        if column.null_count:
            raise ValueError(f"column {name} has nulls")
        return column

    def _array(self, column: pa.Array) -> NDArray[Any]:
        if self._mapping is None or pa.types.is_boolean(column.type):
            # Arrow lends arrays that cannot be written to, and packs booleans into bits.
            return np.array(column.to_numpy(zero_copy_only=False))
        kind = np.dtype(column.type.to_pandas_dtype())
        if not len(column):
            return np.empty(0, dtype=kind)
        values = column.buffers()[1]
        begin = values.address - pa.py_buffer(self._mapping).address + column.offset * kind.itemsize
        if not 0 <= begin <= len(self._mapping) - len(column) * kind.itemsize:
            raise ValueError("a column is compressed")
        return np.frombuffer(self._mapping, kind, len(column), begin)
