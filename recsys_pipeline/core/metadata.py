"""What we say about a table, in the metadata of its schema, so that it travels with the table."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

if TYPE_CHECKING:
    # It loads pandas.
    import pyarrow.dataset as ds

KEY = b"recsys_pipeline"
# The metadata of the events say under the first name what was read; whom that leaves out, under the second.
FEED = "feed"
FORGOTTEN = "forgotten"


Described = TypeVar("Described", pa.Table, "ds.Dataset", pa.RecordBatchReader)


def with_metadata(table: Described, metadata: Mapping[str, Any]) -> Described:
    """The table, dataset or stream of batches with this metadata (JSON) in place of what it had."""
    text = json.dumps(metadata, sort_keys=True).encode()
    kept = {**(table.schema.metadata or {}), KEY: text}
    if isinstance(table, pa.Table):
        return table.replace_schema_metadata(kept)
    if isinstance(table, pa.RecordBatchReader):
        return pa.RecordBatchReader.from_batches(table.schema.with_metadata(kept), table)
    return table.replace_schema(table.schema.with_metadata(kept))


def metadata_of_schema(schema: pa.Schema | None) -> dict[str, Any]:
    """The metadata of what has this schema; none of no schema."""
    metadata: dict[str, Any] = json.loads(((schema and schema.metadata) or {}).get(KEY, b"{}"))
    return metadata


def stored_metadata(table: "pa.Table | ds.Dataset | pa.RecordBatchReader") -> dict[str, Any]:
    """The metadata of a table, dataset or stream of batches."""
    return metadata_of_schema(table.schema)
