"""What all Parquet files of the pipeline have in common."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from recsys_pipeline.storage.atomic import is_local, local_path

COMPRESSION = "zstd"
_NOTES = b"recsys_pipeline"


def read_parquet(path: UPath, columns: Sequence[str] | None = None) -> pa.Table:
    """The table of a Parquet file, or some columns of it.

    Never by a file object of Python's: Arrow's threads may still hold it when the interpreter ends, which
    aborts the process.
    """
    names = list(columns) if columns is not None else None
    if is_local(path):
        return pq.read_table(str(local_path(path)), columns=names, partitioning=None)
    return pq.read_table(pa.BufferReader(path.read_bytes()), columns=names)


def with_notes(table: pa.Table, notes: Mapping[str, Any]) -> pa.Table:
    """The table with facts about its making (JSON) in its Parquet footer."""
    text = json.dumps(notes, sort_keys=True).encode()
    return table.replace_schema_metadata({**(table.schema.metadata or {}), _NOTES: text})


def notes_of(table: pa.Table) -> dict[str, Any]:
    """The facts that `with_notes` put there."""
    notes: dict[str, Any] = json.loads((table.schema.metadata or {}).get(_NOTES, b"{}"))
    return notes
