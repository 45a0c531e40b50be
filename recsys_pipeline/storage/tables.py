"""What all Parquet files of the pipeline have in common."""

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

COMPRESSION = "zstd"
_NOTES = b"recsys_pipeline"


def with_notes(table: pa.Table, notes: Mapping[str, Any]) -> pa.Table:
    """The table with facts about its making (JSON) in its Parquet footer."""
    text = json.dumps(notes, sort_keys=True).encode()
    return table.replace_schema_metadata({**(table.schema.metadata or {}), _NOTES: text})


def notes_of(table: pa.Table) -> dict[str, Any]:
    """The facts that `with_notes` put there."""
    notes: dict[str, Any] = json.loads((table.schema.metadata or {}).get(_NOTES, b"{}"))
    return notes
