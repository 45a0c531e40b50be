"""What all Parquet files of the pipeline have in common."""

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from recsys_pipeline.storage.atomic import is_local, local_path

COMPRESSION = "zstd"
_NOTES = b"recsys_pipeline"


def read_parquet(path: UPath, columns: list[str] | None = None) -> pa.Table:
    """The table of a Parquet file, or some columns of it."""
    if not is_local(path):
        return parse_parquet(path.read_bytes(), columns)
    return pq.read_table(str(local_path(path)), columns=columns, partitioning=None)


def parse_parquet(content: bytes, columns: list[str] | None = None) -> pa.Table:
    """The table in the content of a Parquet file, or some columns of it.

    From a copy in Arrow's own memory: given an object of Python's, bytes or a file, Arrow's threads may still
    hold it when the interpreter ends, which aborts the process.
    """
    copy = pa.BufferOutputStream()
    copy.write(content)
    return pq.read_table(pa.BufferReader(copy.getvalue()), columns=columns)


def with_notes(table: pa.Table, notes: Mapping[str, Any]) -> pa.Table:
    """The table with facts about its making (JSON) in its Parquet footer."""
    text = json.dumps(notes, sort_keys=True).encode()
    return table.replace_schema_metadata({**(table.schema.metadata or {}), _NOTES: text})


def notes_of(table: pa.Table) -> dict[str, Any]:
    """The facts that `with_notes` put there."""
    notes: dict[str, Any] = json.loads((table.schema.metadata or {}).get(_NOTES, b"{}"))
    return notes
