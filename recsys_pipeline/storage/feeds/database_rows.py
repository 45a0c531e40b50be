"""Rows of a table or query of a database."""

import numpy as np
import pyarrow as pa

from recsys_pipeline.core.errors import InputError, naming
from recsys_pipeline.core.ids import as_integers
from recsys_pipeline.core.locations import DatabaseFeed
from recsys_pipeline.storage.feeds.parquet_rows import plain
from recsys_pipeline.storage.feeds.rows import Batch, Batches, Columns
from recsys_pipeline.storage.locations import opened_location
from recsys_pipeline.storage.postgres import Session, quoted, session

_SETTING = "RECSYS_FEEDBACK"
_BATCH_ROWS = 1 << 17
# What the driver gathers before it hands it on.
_BATCH_BYTES = 4 << 20
_NUMERIC = b"numeric"


def read_database(feed: DatabaseFeed, columns: Columns) -> Batches:
    """The rows of a table or query, batch by batch, all of one snapshot; `lines` are their numbers.

    Raises:
        InputError: the driver is missing; the server refuses; there is no such table or file; the query is
            none; or a column is missing or of a type that no id, event or time has.
        ConnectionError: the server cannot be reached, or was lost; it may come back.
    """
    query = _query(feed)
    with session(feed.url, _SETTING, reads_only=True) as connected:
        # A role's limits are for pages of a shop, not for a feed.
        connected.execute("SET LOCAL statement_timeout = 0")
        connected.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        # The same rows come in the same order, so that an unchanged table is an unchanged feed.
        connected.execute("SET LOCAL synchronize_seqscans = off")
        connected.execute("SET LOCAL max_parallel_workers_per_gather = 0")
        found = _columns_of(connected, query, feed)
        ours = columns.among(found.names, feed)
        selected = ", ".join(_selected(found.field(name)) for name in ours)
        numerics = {name for name in ours if _is_numeric(found.field(name))}
        n_rows = 0
        for batch in connected.stream(f"SELECT {selected} FROM ({query}\n) AS feed", _BATCH_BYTES):
            for begin in range(0, batch.num_rows, _BATCH_ROWS):
                some = batch.slice(begin, _BATCH_ROWS)
                arrays = {}
                for theirs, name in ours.items():
                    values = some[theirs]
                    whole = as_integers(values) if theirs in numerics else None
                    arrays[name] = plain(values if whole is None else whole, theirs, name, feed)
                lines = np.arange(n_rows + 1, n_rows + 1 + some.num_rows)
                yield Batch(pa.RecordBatch.from_pydict(arrays), lines, typed=True)
                n_rows += some.num_rows


def _query(feed: DatabaseFeed) -> str:
    """One SELECT without its semicolon."""
    if feed.table:
        return "SELECT * FROM " + ".".join(quoted(part) for part in feed.table.split("."))
    file = opened_location(feed.query)
    if not file.is_file():
        raise InputError(f"{_SETTING}: there is no file {feed.query} with a query. Write one SELECT into it.")
    with naming(file):
        try:
            query = file.read_text(encoding="utf-8").strip().removesuffix(";")
        except UnicodeDecodeError as error:
            raise InputError(f"{file} is not UTF-8 text ({error}). Write one SELECT into it.") from None
    if not query:
        raise InputError(f"{file} is empty. Write one SELECT into it.")
    return query


def _columns_of(connected: Session, query: str, feed: DatabaseFeed) -> pa.Schema:
    try:
        return connected.columns(query)
    except InputError as error:
        mend = "" if feed.table else " The file must hold one SELECT and nothing else."
        raise InputError(f"{_SETTING}: {feed}: {error}{mend}") from None


def _is_numeric(field: pa.Field) -> bool:
    return (field.metadata or {}).get(b"POSTGRESQL:type") == _NUMERIC


def _selected(field: pa.Field) -> str:
    """The column as Arrow knows its type; of what Arrow lacks, such as uuid, the text."""
    name = quoted(field.name)
    if _is_numeric(field):
        return f"trim_scale({name})::text AS {name}"
    if isinstance(field.type, pa.BaseExtensionType):
        return f"{name}::text AS {name}"
    return name
