"""From events to one strength per interaction, by DuckDB, which spills to the disk what it cannot hold."""

import errno
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from pyarrow.fs import LocalFileSystem

from recsys_pipeline.core.columns import (
    EVENT,
    EXCLUDED,
    ITEM,
    STRENGTH,
    TARGET,
    TARGET_TIMESTAMP,
    TIMESTAMP,
    USER,
    count_column,
    faded_column,
)
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.strengths import (
    Aggregate,
    combined_strengths,
    no_times,
    require_strengths,
)
from recsys_pipeline.engines.engine import Window
from recsys_pipeline.machine.cores import usable_cores
from recsys_pipeline.machine.memory import memory_limit, told
from recsys_pipeline.machine.scratch import scratch_folder

if TYPE_CHECKING:
    import duckdb

# Rows of each batch: the same table makes the same file, whatever the number of threads.
_ROWS_AT_ONCE = 1 << 20
# Of the memory limit; the rest is for what DuckDB does not count, and for the batches on their way out.
_SHARE_OF_MEMORY = 0.5
# What an event weighs that has not faded; none fades below the smallest integer above 0, so that an old
# interaction still is one.
_ONE = 1 << 40
_MICROSECONDS_PER_DAY = 86_400_000_000.0


def interaction_strengths(
    events: ds.Dataset,
    strengths: Mapping[str, float],
    aggregate: Aggregate = Aggregate.sum,
    target_events: Collection[str] = (),
    seen_events: Collection[str] = (),
    window_days: float = 0.0,
    half_lives: Sequence[float] = (),
    *,
    most_bytes: int | None = None,
) -> pa.RecordBatchReader:
    """One row an interaction of a user and an item: its aggregated strength, and what its events say of it.

    Events and interactions are streamed: memory is bounded by `most_bytes`, whatever the size.

    Args:
        events: columns UserID, ProductCode, Event and, optionally, Timestamp.
        strengths: strength of each event name.
        aggregate: `sum` of the strengths of an interaction's events, or their `max`.
        target_events: events that may be held out; none names all.
        seen_events: events that exclude the item from recommendation; none names all.
        window_days: only events after the latest one less so many days; 0 takes all. Counted from the latest
            event and not from now, so that the same events give the same strengths.
        half_lives: in days, by which the events fade; their age too is counted from the latest event.
        most_bytes: memory that this process should use; by default what `memory_limit` says.

    Returns:
        UserID, ProductCode, strength (float64), where given Timestamp and target_timestamp (the latest of
        all and of the target events), target and excluded (bool), the count of each event (int32), and of
        each half-life what is left of each event (float64, see `core.strengths.faded_strengths`), sorted by
        user, then item: integers by value, strings by their bytes.

    Raises:
        InputError: an event has no strength; a window or a half-life is asked for and there are no times;
            while it is read: there is too little memory.
    """
    has_timestamps = TIMESTAMP in events.schema.names
    names = [USER, ITEM, *([TIMESTAMP, TARGET_TIMESTAMP] if has_timestamps else [])]
    names += map(count_column, strengths)
    fields = [events.schema.field(name).remove_metadata().with_nullable(True) for name in (USER, ITEM)]
    fields.append(pa.field(STRENGTH, pa.float64()))
    if has_timestamps:
        clock = events.schema.field(TIMESTAMP).type
        fields += [pa.field(name, clock) for name in (TIMESTAMP, TARGET_TIMESTAMP)]
    fields += [pa.field(count_column(event), pa.int32()) for event in strengths]
    faded = [faded_column(event, days) for days in half_lives for event in strengths]
    names += faded
    fields += [pa.field(name, pa.bool_()) for name in (TARGET, EXCLUDED)]
    fields += [pa.field(name, pa.float64()) for name in faded]
    schema = pa.schema(fields)

    def finished(batch: pa.RecordBatch) -> pa.RecordBatch:
        """The batch with what follows from the counts."""
        columns = dict(zip(names, batch.columns, strict=True))
        counts = {event: columns[count_column(event)].to_numpy() for event in strengths}
        columns[STRENGTH] = pa.array(combined_strengths(counts, strengths, aggregate))
        for name in (TIMESTAMP, TARGET_TIMESTAMP) if has_timestamps else ():
            columns[name] = columns[name].cast(pa.timestamp("us", clock.tz))
        for name, wanted in ((TARGET, target_events), (EXCLUDED, seen_events)):
            has_one = np.logical_or.reduce([counts[event] > 0 for event in wanted or strengths])
            columns[name] = pa.array(has_one)
        return pa.record_batch([columns[field.name].cast(field.type) for field in schema], schema=schema)

    def batches() -> Iterator[pa.RecordBatch]:
        with _connected(events, most_bytes or memory_limit()) as connection:
            fading, since = [], None
            if window_days or half_lives:
                latest = _latest(connection)
                fading = [_Fade(event, days, latest, aggregate) for days in half_lives for event in strengths]
                since = latest - timedelta(days=window_days) if window_days else None
            query, parameters = _query(
                strengths,
                target_events or strengths,
                has_timestamps=has_timestamps,
                since=since,
                fading=fading,
            )
            found = connection.sql(query, params=parameters).to_arrow_reader(_ROWS_AT_ONCE)
            yield from map(finished, in_equal_parts(found, _ROWS_AT_ONCE))

    _require_strengths(events, strengths)
    if (window_days or half_lives) and not has_timestamps:
        raise no_times("window_days" if window_days else "half_lives")
    return pa.RecordBatchReader.from_batches(schema, batches())


def _require_strengths(events: ds.Dataset, strengths: Mapping[str, float]) -> None:
    stray = ~ds.field(EVENT).isin(pa.array(list(strengths), pa.string()))
    unknown = events.scanner(columns=[EVENT], filter=stray).to_table()[EVENT].unique().to_pylist()
    require_strengths(unknown)


def window_of(events: ds.Dataset, window_days: float, *, most_bytes: int | None = None) -> Window:
    """What a window of so many days before the latest event takes in; see `interaction_strengths`.

    Args:
        events: with the column Timestamp.
        window_days: above 0.
        most_bytes: as there.
    """
    with _connected(events, most_bytes or memory_limit()) as connection:
        latest = _latest(connection)
        since = latest - timedelta(days=window_days)
        taken = f"count(*) FILTER ({TIMESTAMP} > {_literal(since)})"
        n_all, n_events = connection.sql(f"SELECT count(*), {taken} FROM events").fetchall()[0]  # noqa: S608
    return Window(since, latest, n_events, n_all - n_events)


def _latest(connection: "duckdb.DuckDBPyConnection") -> datetime:
    (latest,) = connection.sql(f"SELECT epoch_us(max({TIMESTAMP})) FROM events").fetchall()[0]  # noqa: S608
    if latest is None:
        raise InputError("raw_feedback holds no events: materialize it again.")
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=latest)


def _literal(when: datetime) -> str:
    """A constant, which DuckDB compares with the statistics of a Parquet file before it reads rows."""
    return f"TIMESTAMPTZ '{when:%Y-%m-%d %H:%M:%S.%f}+00'"


class _Fade(NamedTuple):
    """What is asked of the times of an event in an interaction."""

    event: str
    half_life_days: float
    latest: datetime
    aggregate: Aggregate


def _query(
    events: Iterable[str],
    target_events: Collection[str],
    *,
    has_timestamps: bool,
    since: datetime | None,
    fading: Sequence[_Fade],
) -> tuple[str, list[Any]]:
    """SQL and its parameters: a row an interaction; users, items, times, counts, what is left by fading."""
    columns = [USER, ITEM]
    parameters: list[Any] = []
    if has_timestamps:
        # As integers: of time zones there is nothing to compute.
        columns.append(f"epoch_us(max({TIMESTAMP}))")
        columns.append(f"epoch_us(max({TIMESTAMP}) FILTER ({EVENT} IN (SELECT unnest(?))))")
        parameters.append(list(target_events))
    for event in events:
        columns.append(f"CAST(count(*) FILTER ({EVENT} = ?) AS INTEGER)")
        parameters.append(event)
    for event, days, latest, aggregate in fading:
        # As integers, whose sum does not depend on the order in which threads add them.
        age = f"(epoch_us({_literal(latest)}) - epoch_us({TIMESTAMP}))"
        share = f"pow(0.5, {age} / CAST({days * _MICROSECONDS_PER_DAY!r} AS DOUBLE))"
        left = f"greatest(1, CAST(round({share} * {_ONE}) AS BIGINT))"
        combined = f"{aggregate.value}({left}) FILTER ({EVENT} = ?)"
        columns.append(f"coalesce(CAST({combined} AS DOUBLE), 0) / {_ONE}")
        parameters.append(event)
    within = f" WHERE {TIMESTAMP} > {_literal(since)}" if since else ""
    selected = ", ".join(f"{column} AS c{place}" for place, column in enumerate(columns))
    return f"SELECT {selected} FROM events{within} GROUP BY {USER}, {ITEM} ORDER BY c0, c1", parameters  # noqa: S608


@contextmanager
def _connected(events: ds.Dataset, most_bytes: int) -> Iterator["duckdb.DuckDBPyConnection"]:
    """A database in memory that has the events as the table `events`."""
    import duckdb

    with scratch_folder() as folder:
        options: dict[str, Any] = {
            "memory_limit": f"{int(most_bytes * _SHARE_OF_MEMORY) // 10**6}MB",
            "temp_directory": str(folder),
            "threads": usable_cores(),
        }
        try:
            with duckdb.connect(config=options) as connection:
                # What comes out is sorted; to keep the order of what comes in would take memory.
                connection.execute("SET preserve_insertion_order = false")
                connection.execute("SET enable_progress_bar = false")
                if _is_local_parquet(events):
                    # Read by DuckDB itself, with half the memory.
                    connection.read_parquet(events.files, hive_partitioning=False).create_view("events")
                else:
                    connection.register("events", events)
                yield connection
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            if meant := _meant_by(error, folder, most_bytes):
                raise meant from error
            raise


def _meant_by(error: Exception, folder: Path, most_bytes: int) -> Exception | None:
    """What an error of DuckDB means, also one that Arrow passes on; None where it says so itself."""
    import duckdb

    text = str(error)
    # DuckDB counts a temporary folder on a full disk as memory.
    if "No space left" in text or "max_temp_directory_size" in text:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
    if isinstance(error, duckdb.OutOfMemoryException) or "Out of Memory" in text:
        return InputError(
            f"feedback_strengths has too little memory: the limit is {told(most_bytes)}. Raise "
            "memory_limit of feedback_strengths (RECSYS_MEMORY_LIMIT)."
        )
    # "IOError" is what Arrow met that reads for DuckDB, say from an object store.
    if isinstance(error, duckdb.IOException) or (isinstance(error, duckdb.Error) and "IOError" in text):
        return OSError(_code_in(text), text)
    return None


def _code_in(text: str) -> int:
    """The code of the system that a message names by number or by its words."""
    if named := re.search(r"\[Errno (\d+)\]", text):
        return int(named[1])
    return next((code for code in errno.errorcode if os.strerror(code) in text), errno.EIO)


def _is_local_parquet(events: ds.Dataset) -> bool:
    return (
        isinstance(events, ds.FileSystemDataset)
        and isinstance(events.filesystem, LocalFileSystem)
        and isinstance(events.format, ds.ParquetFileFormat)
        # DuckDB would take the name for a pattern.
        and not any(letter in name for name in events.files for letter in "*?[")
    )


def in_equal_parts(batches: Iterable[pa.RecordBatch], n_rows: int) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of `n_rows`, but for the last."""
    waiting: list[pa.RecordBatch] = []
    n_waiting = 0
    for whole in batches:
        batch = whole
        while n_waiting + batch.num_rows >= n_rows:
            missing = n_rows - n_waiting
            yield pa.concat_batches([*waiting, batch.slice(0, missing)])
            batch, waiting, n_waiting = batch.slice(missing), [], 0
        if batch.num_rows:
            waiting.append(batch)
            n_waiting += batch.num_rows
    if waiting:
        yield pa.concat_batches(waiting)
