"""Tables of the warehouse as data frames, and data frames as streams of rows.

What is between two steps lies in a folder that the run and all workers reach, as Parquet: nothing is computed
twice, a lost worker costs no more than its part of one step, and no plan grows with the iterations.
"""

import os
import shutil
import socket
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pyspark.sql.functions as sf

from recsys_pipeline.engines.local.aggregation import in_equal_parts
from recsys_pipeline.engines.spark.session import told

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_ROWS_AT_ONCE = 1 << 20
# Of what this process knows, such as what is held out, so many rows are sent to every worker.
_ROWS_TO_SEND = 1 << 21
_PREFIX = "recsys-spark-"
# What a run on another machine has left that was killed is removed after so long; on this one, at once.
_SECONDS_KEPT = 2 * 86_400


class Scratch:
    """A folder for what is between the steps."""

    def __init__(self, spark: "SparkSession", folder: Path) -> None:
        """An existing folder that the run and all workers reach by the same path."""
        self._spark, self._folder = spark, folder
        self._n = 0

    @property
    def spark(self) -> "SparkSession":
        """The session."""
        return self._spark

    def path(self, name: str) -> Path:
        """A place of that name that nobody else has."""
        self._n += 1
        return self._folder / f"{self._n:05d}-{name}"

    def shared_folder(self, name: str) -> Path:
        """A new folder that the workers write to."""
        path = self.path(name)
        path.mkdir()
        path.chmod(0o777)  # they may be another user's
        return path

    def kept(self, frame: "DataFrame", name: str) -> "Kept":
        """The rows of the frame, computed and written."""
        path = self.path(name)
        with told():
            frame.write.option("compression", "zstd").parquet(_url(path))
        return Kept(self._spark, path, frame.schema)


class Kept:
    """Rows that were written.

    Attributes:
        path: of the folder of part files.
    """

    def __init__(self, spark: "SparkSession", path: Path, schema: Any = None) -> None:
        """In that folder; the files say their schema where it is not known."""
        self._spark, self.path, self._schema = spark, path, schema

    @property
    def frame(self) -> "DataFrame":
        """To be read by the cluster."""
        read = self._spark.read
        if self._schema is not None:  # then nobody looks it up
            read = read.schema(self._schema)
        return read.parquet(_url(self.path))

    @property
    def files(self) -> list[str]:
        """The part files, in the order of their rows."""
        return sorted(str(path) for path in self.path.glob("part-*"))

    @property
    def n_rows(self) -> int:
        """As the footers of the files say."""
        return sum(pq.read_metadata(file).num_rows for file in self.files)

    def remove(self) -> None:
        """Nobody reads it any more."""
        shutil.rmtree(self.path, ignore_errors=True)

    def batches(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """All rows in order, a part of a file at a time, as columns of that schema."""
        names = schema.names
        for name in self.files:
            with pq.ParquetFile(name) as file:
                for batch in file.iter_batches(_ROWS_AT_ONCE, columns=names):
                    columns = [batch[field.name].cast(field.type) for field in schema]
                    yield pa.record_batch(columns, schema=schema)


@contextmanager
def scratch(spark: "SparkSession", folder: Path) -> Iterator[Scratch]:
    """Scratch that goes when the block ends."""
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    mine = f"{_PREFIX}{os.getpid()}_{socket.gethostname()}_"
    own = Path(tempfile.mkdtemp(prefix=mine, dir=folder))
    # The workers may be another user's.
    own.chmod(0o777)
    try:
        yield Scratch(spark, own.resolve())
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Remove what killed runs have left."""
    for path in folder.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            is_old = time.time() - path.stat().st_mtime > _SECONDS_KEPT
            pid, _, whose = path.name.removeprefix(_PREFIX).partition("_")
            is_of_here = whose.startswith(f"{socket.gethostname()}_") and pid.isdigit()
            if is_old or (is_of_here and not _is_alive(int(pid))):
                shutil.rmtree(path, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        return True
    return True


def frame_of(scratch: Scratch, table: pa.Table | ds.Dataset) -> "DataFrame":
    """A table of the warehouse, to be read by the workers; one in memory is sent to them."""
    spark = scratch.spark
    if isinstance(table, pa.Table):
        return spark.createDataFrame(table.replace_schema_metadata(None))
    return read(scratch, files_of(scratch, table))


def read(scratch: Scratch, files: Sequence[str]) -> "DataFrame":
    """The rows of these files, to be read by the workers."""
    return scratch.spark.read.parquet(*(_url(Path(file)) for file in files))


def files_of(scratch: Scratch, table: ds.Dataset) -> list[str]:
    """The files of a table of the warehouse, which the workers reach.

    Of one in an object store this process has a copy, which goes to the folder that they reach.
    """
    files = getattr(table, "files", None)
    if files is not None:
        return [str(Path(file).resolve()) for file in files]
    # One file, whose groups of rows the workers share: so the rows keep their order.
    path = scratch.path("copy")
    with pq.ParquetWriter(path, table.schema) as file:
        for batch in table.to_batches():
            file.write_batch(batch)
    return [str(path)]


@contextmanager
def whole(path: str) -> Iterator[str]:
    """The path of a file to write, which gets its name when the block ends, or is gone.

    A task may be done twice, by two workers at a time.
    """
    # Hidden, so that nobody takes what a killed worker has left for a file.
    folder, name = os.path.split(path)
    partial = os.path.join(folder, f".{name}.{uuid.uuid4().hex}")
    try:
        yield partial
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(partial)
        raise


def _url(path: Path) -> str:
    """As Spark takes a path: it decodes nothing."""
    return f"file://{path}"


def known_here(scratch: Scratch, table: pa.Table) -> "DataFrame":
    """A table of this process. Where it is not long every worker gets it: what it is joined with stays."""
    frame = scratch.spark.createDataFrame(table.replace_schema_metadata(None))
    return sf.broadcast(frame) if table.num_rows <= _ROWS_TO_SEND else frame


def collected(frame: "DataFrame") -> pa.Table:
    """Few rows, for this process."""
    with told():
        return frame.toArrow()


def first_row(frame: "DataFrame") -> Mapping[str, Any]:
    """The only row of a frame."""
    row: Mapping[str, Any] = collected(frame).to_pylist()[0]
    return row


def in_parts(batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> pa.RecordBatchReader:
    """The same rows as a stream whose parts do not depend on how many files they came from."""
    return pa.RecordBatchReader.from_batches(schema, in_equal_parts(batches, _ROWS_AT_ONCE))


def as_bytes(rows: np.ndarray[Any, Any]) -> pa.Array:
    """(n, width) numbers as a column of bytes, a value a row."""
    rows = np.ascontiguousarray(rows)
    offsets = np.arange(len(rows) + 1, dtype=np.int64) * (rows.shape[1] * rows.itemsize)
    if offsets[-1] > np.iinfo(np.int32).max:
        return pa.concat_arrays([as_bytes(half) for half in np.array_split(rows, 2)])
    content = pa.py_buffer(rows.tobytes())
    return pa.Array.from_buffers(
        pa.binary(), len(rows), [None, pa.py_buffer(offsets.astype(np.int32)), content]
    )


def from_bytes(column: pa.Array | pa.ChunkedArray, width: int) -> np.ndarray[Any, Any]:
    """(n, width) float32, as `as_bytes` wrote them."""
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    found = [_from_bytes(chunk, width) for chunk in chunks if len(chunk)]
    return np.concatenate(found) if found else np.empty((0, width), dtype=np.float32)


def _from_bytes(column: pa.Array, width: int) -> np.ndarray[Any, Any]:
    kind = np.int64 if pa.types.is_large_binary(column.type) else np.int32
    _, offsets, content = column.buffers()
    first = int(np.frombuffer(offsets, kind)[column.offset])
    n = len(column) * width
    return np.frombuffer(content, np.float32, n, first).reshape(-1, width)
