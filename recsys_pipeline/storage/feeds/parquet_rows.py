"""Rows of a Parquet file."""

from contextlib import ExitStack

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from recsys_pipeline.core.columns import AVAILABLE, EVENT, TIMESTAMP
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.storage.atomic import is_local, local_path
from recsys_pipeline.storage.feeds.rows import Batch, Batches, Columns, first_line

_BATCH_ROWS = 1 << 17


def read_parquet(file: UPath, columns: Columns) -> Batches:
    """The rows of a Parquet file, batch by batch.

    Raises:
        InputError: the file is damaged, or a column is of a type that no id, event or time has.
    """
    try:
        with ExitStack() as stack:
            source = str(local_path(file)) if is_local(file) else stack.enter_context(file.open("rb"))
            parquet = stack.enter_context(pq.ParquetFile(source))
            ours = columns.among(parquet.schema_arrow.names, file)
            first_row = 1
            for batch in parquet.iter_batches(_BATCH_ROWS, columns=list(ours)):
                arrays = {name: plain(batch[theirs], theirs, name, file) for theirs, name in ours.items()}
                lines = np.arange(first_row, first_row + batch.num_rows)
                yield Batch(pa.RecordBatch.from_pydict(arrays), lines, typed=True)
                first_row += batch.num_rows
    except (pa.ArrowInvalid, OSError) as error:
        # Of a damaged file Arrow says so in a plain OSError without a number; all others may pass.
        if isinstance(error, OSError) and (error.errno is not None or type(error) is not OSError):
            raise
        raise InputError(f"{file} is not a readable Parquet file: {first_line(error)}") from None


def plain(values: pa.Array, theirs: str, ours: str, file: object) -> pa.Array:
    """The values as one of the types that the pipeline works with.

    Args:
        values: a column with the types of its source.
        theirs: its name there.
        ours: our name of it.
        file: for messages.

    Raises:
        InputError: it is of a type that no id, event or time has.
    """
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    kind = values.type
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return values.cast(pa.string())
    if pa.types.is_string(kind):
        return values
    if pa.types.is_integer(kind) and ours != EVENT:
        try:
            return values.cast(pa.int64())
        except pa.ArrowInvalid:
            raise InputError(
                f"{file}: the column {theirs!r} holds integers beyond 64 bits; write them as text."
            ) from None
    if ours == TIMESTAMP and (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        return values if pa.types.is_timestamp(kind) else values.cast(pa.timestamp("s"))
    if ours == AVAILABLE and pa.types.is_boolean(kind):
        return values.cast(pa.string())
    wanted = {
        EVENT: "text",
        TIMESTAMP: "timestamps, integers or text",
        AVAILABLE: "true or false, integers or text",
    }.get(ours, "integers or text")
    raise InputError(
        f"{file}: the column {theirs!r} holds {kind}; it must hold {wanted}. Cast it at the source."
    )
