"""Judging rows of raw feedback: which are events, and what is wrong with the others."""

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys_pipeline.core.columns import EVENT, ITEM, TIMESTAMP, USER
from recsys_pipeline.core.ids import as_mask, is_blank, is_integer

TIMESTAMP_TYPE = pa.timestamp("us", tz="UTC")
_MICROSECONDS = {"s": 1_000_000, "ms": 1_000, "us": 1}
# The beginning of 2200, in microseconds, and as long before 1970: beyond lies a unit misread, or a test row.
_LATEST = 7_258_118_400_000_000
# Of an event's name in a reason.
_MOST_LETTERS = 60


class Criteria(NamedTuple):
    """What makes a row an event.

    Attributes:
        known: events that have a strength.
        ignored: events that are left out on purpose.
        timestamp_unit: `s`, `ms` or `us`, of timestamps that are integers since 1970.
        blank_ids: ids that stand for none, in any case.
        integer_ids: columns whose ids must be integers.
    """

    known: Collection[str]
    ignored: Collection[str] = ()
    timestamp_unit: str = "s"
    blank_ids: Collection[str] = ()
    integer_ids: Collection[str] = ()


class Judgement(NamedTuple):
    """What became of the rows of a batch.

    Attributes:
        accepted: the rows that are events, with parsed timestamps.
        places: (n_accepted,) their places among the rows.
        reasons: object array, a row each; None for a row that is not rejected.
        n_ignored: rows whose event is to be ignored.
    """

    accepted: pa.RecordBatch
    places: NDArray[np.int64]
    reasons: NDArray[np.object_]
    n_ignored: int


def judge(rows: pa.RecordBatch, criteria: Criteria) -> Judgement:
    """Sort the rows of a batch into events, ignored ones and rejects.

    Args:
        rows: UserID and ProductCode (strings or integers), Event (strings) and, optionally, Timestamp
            (strings, integers or timestamps).
        criteria: what makes a row an event.
    """
    reasons = np.full(rows.num_rows, None, dtype=object)
    timestamps = None
    if TIMESTAMP in rows.schema.names:
        timestamps = parse_timestamps(rows[TIMESTAMP], criteria.timestamp_unit)
        reasons[as_mask(pc.is_null(timestamps))] = f"{TIMESTAMP} missing, unreadable, or outside 1740 to 2199"
    event = rows[EVENT]
    skipped = as_mask(pc.is_in(event, pa.array(list(criteria.ignored), pa.string())))
    unknown = ~as_mask(pc.is_in(event, pa.array(list(criteria.known), pa.string()))) & ~skipped
    for position in np.flatnonzero(unknown):
        name = event[position].as_py()
        reasons[position] = f"unknown {EVENT} {_shown(name)}" if name and name.strip() else f"blank {EVENT}"
    for column in (ITEM, USER):
        ids = rows[column]
        if column in criteria.integer_ids:
            reasons[~is_integer(ids)] = f"{column} is no integer"
        if pa.types.is_string(ids.type):
            reasons[as_mask(pc.match_substring(ids, "\0"))] = f"{column} holds a NUL character"
        reasons[is_blank(ids, criteria.blank_ids)] = f"blank {column}"

    rejected = reasons != np.array(None)
    places = np.flatnonzero(~rejected & ~skipped)
    accepted = rows.take(pa.array(places)) if len(places) < rows.num_rows else rows
    if timestamps is not None:
        column = accepted.schema.get_field_index(TIMESTAMP)
        accepted = accepted.set_column(column, TIMESTAMP, timestamps.take(pa.array(places)))
    return Judgement(accepted, places, reasons, int(np.count_nonzero(skipped & ~rejected)))


def _shown(name: str) -> str:
    return repr(name if len(name) <= _MOST_LETTERS else f"{name[:_MOST_LETTERS]}...")


def parse_timestamps(values: pa.Array, unit: str) -> pa.TimestampArray:
    """Timestamps in UTC: from integers since 1970 in `unit`, ISO 8601 texts, or timestamps.

    A text without a zone is UTC. What cannot be read, or lies before 1740 or after 2199, becomes null.
    """
    if pa.types.is_timestamp(values.type):
        integers = values.view(pa.int64())
        if values.type.unit == "ns":
            return _since_1970(pc.divide(integers, 1000), "us")
        return _since_1970(integers, values.type.unit)
    if pa.types.is_string(values.type):
        is_number = pc.match_substring_regex(values, r"^-?[0-9]{1,18}$")
        numbers = pc.cast(pc.if_else(is_number, values, pa.scalar(None, pa.string())), pa.int64())
        since_1970 = _since_1970(numbers, unit)
        if pc.all(is_number, skip_nulls=False).as_py():
            return since_1970
        texts = pc.if_else(is_number, pa.scalar(None, pa.string()), values).to_pandas()
        parsed = pd.to_datetime(texts, format="ISO8601", utc=True, errors="coerce").dt.as_unit("us")
        moments = _since_1970(pa.array(parsed, TIMESTAMP_TYPE).cast(pa.int64()), "us")
        return pc.coalesce(since_1970, moments)
    return _since_1970(pc.cast(values, pa.int64()), unit)


def _since_1970(integers: pa.Int64Array, unit: str) -> pa.TimestampArray:
    """What lies within the limits, else null; nothing overflows."""
    factor = _MICROSECONDS[unit]
    latest = _LATEST // factor
    in_range = pc.and_(pc.greater_equal(integers, -latest), pc.less(integers, latest))
    readable = pc.if_else(in_range, integers, pa.scalar(None, pa.int64()))
    return pc.cast(pc.multiply(readable, factor), TIMESTAMP_TYPE)
