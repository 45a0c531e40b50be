"""Judging rows of raw feedback: which are events, and what is wrong with the others."""

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys_pipeline.core.columns import EVENT, ITEM, TIMESTAMP, USER

TIMESTAMP_TYPE = pa.timestamp("us", tz="UTC")
_MICROSECONDS = {"s": 1_000_000, "ms": 1_000, "us": 1}
# Year 2200: later ones are a unit misread.
_LATEST = 7_258_118_400_000_000


class Judgement(NamedTuple):
    """What became of the rows of a batch.

    Attributes:
        accepted: the rows that are events, with parsed timestamps.
        reasons: (n_rows,) object array, None for a row that is not rejected.
        n_ignored: rows whose event is to be ignored.
    """

    accepted: pa.RecordBatch
    reasons: NDArray[np.object_]
    n_ignored: int


def judge(
    rows: pa.RecordBatch, known: Collection[str], ignored: Collection[str], timestamp_unit: str
) -> Judgement:
    """Sort the rows of a batch into events, ignored ones and rejects.

    Args:
        rows: UserID and ProductCode (strings or integers), Event (strings) and, optionally, Timestamp
            (strings, integers or timestamps).
        known: events that have a strength.
        ignored: events that are left out on purpose.
        timestamp_unit: `s`, `ms` or `us`, of timestamps that are integers since 1970.
    """
    reasons = np.full(rows.num_rows, None, dtype=object)
    timestamps = None
    if TIMESTAMP in rows.schema.names:
        timestamps = parse_timestamps(rows[TIMESTAMP], timestamp_unit)
        _give_reason(reasons, _mask(pc.is_null(timestamps)), f"{TIMESTAMP} missing, unreadable or after 2200")
    event = rows[EVENT]
    skipped = _mask(pc.is_in(event, pa.array(list(ignored), pa.string())))
    unknown = ~_mask(pc.is_in(event, pa.array(list(known), pa.string()))) & ~skipped
    for position in np.flatnonzero(unknown):
        name = event[position].as_py()
        reasons[position] = f"unknown {EVENT} {name!r}" if name and name.strip() else f"blank {EVENT}"
    for column in (ITEM, USER):
        _give_reason(reasons, _blank(rows[column]), f"blank {column}")

    rejected = reasons != np.array(None)
    accepted = rows.filter(pa.array(~rejected & ~skipped))
    if timestamps is not None:
        kept = timestamps.filter(pa.array(~rejected & ~skipped))
        accepted = accepted.set_column(accepted.schema.get_field_index(TIMESTAMP), TIMESTAMP, kept)
    return Judgement(accepted, reasons, int(np.count_nonzero(skipped & ~rejected)))


def _mask(values: pa.BooleanArray) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = pc.fill_null(values, False).to_numpy(zero_copy_only=False)
    return mask


def _give_reason(reasons: NDArray[np.object_], where: NDArray[np.bool_], reason: str) -> None:
    reasons[where] = reason


def _blank(ids: pa.Array) -> NDArray[np.bool_]:
    missing = _mask(pc.is_null(ids))
    if pa.types.is_integer(ids.type):
        return missing
    return missing | _mask(pc.equal(pc.utf8_trim_whitespace(ids), ""))


def as_integers(texts: pa.StringArray) -> pa.Int64Array | None:
    """The texts as 64-bit integers, if each is an integer as Python writes it; else None.

    "007" or "+7" is none: it would not come back as it went in.
    """
    try:
        integers = pc.cast(texts, pa.int64())
    except pa.ArrowInvalid:
        return None
    return integers if pc.cast(integers, pa.string()).equals(texts) else None


def parse_timestamps(values: pa.Array, unit: str) -> pa.TimestampArray:
    """Timestamps in UTC: from integers since 1970 in `unit`, ISO 8601 texts, or timestamps.

    A text without a zone is UTC. What cannot be read, or lies after the year 2200, becomes null.
    """
    if pa.types.is_timestamp(values.type):
        return pc.cast(pc.cast(values, pa.timestamp("us", tz=values.type.tz), safe=False), TIMESTAMP_TYPE)
    if pa.types.is_string(values.type):
        is_number = pc.match_substring_regex(values, r"^-?[0-9]{1,18}$")
        numbers = pc.cast(pc.if_else(is_number, values, pa.scalar(None, pa.string())), pa.int64())
        since_1970 = parse_timestamps(numbers, unit)
        if pc.all(is_number, skip_nulls=False).as_py():
            return since_1970
        texts = pc.if_else(is_number, pa.scalar(None, pa.string()), values).to_pandas()
        parsed = pd.to_datetime(texts, format="ISO8601", utc=True, errors="coerce").dt.as_unit("us")
        return pc.coalesce(since_1970, pa.array(parsed, TIMESTAMP_TYPE))
    factor = _MICROSECONDS[unit]
    latest = _LATEST // factor
    integers = pc.cast(values, pa.int64())
    in_range = pc.and_(pc.greater_equal(integers, -latest), pc.less_equal(integers, latest))
    readable = pc.if_else(in_range, integers, pa.scalar(None, pa.int64()))
    return pc.cast(pc.multiply(readable, factor), TIMESTAMP_TYPE)
