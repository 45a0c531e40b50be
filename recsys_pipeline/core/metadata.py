"""What we say about a table, in the metadata of its schema, so that it travels with the table."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

if TYPE_CHECKING:
    # It loads pandas.
    import pyarrow.dataset as ds

KEY = b"recsys_pipeline"


Described = TypeVar("Described", pa.Table, "ds.Dataset")


def with_metadata(table: Described, metadata: Mapping[str, Any]) -> Described:
    """The table, or dataset that is read as a stream, with this metadata (JSON) in place of what it had."""
    text = json.dumps(metadata, sort_keys=True).encode()
    kept = {**(table.schema.metadata or {}), KEY: text}
    if isinstance(table, pa.Table):
        return table.replace_schema_metadata(kept)
    return table.replace_schema(table.schema.with_metadata(kept))


def stored_metadata(table: "pa.Table | ds.Dataset") -> dict[str, Any]:
    """The metadata of a table, or of a dataset that is read as a stream."""
    metadata: dict[str, Any] = json.loads((table.schema.metadata or {}).get(KEY, b"{}"))
    return metadata
