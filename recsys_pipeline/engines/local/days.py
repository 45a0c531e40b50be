"""How many events of each kind each day has."""

from datetime import date

import pyarrow as pa
import pyarrow.dataset as ds

from recsys_pipeline.core.columns import EVENT, TIMESTAMP


def events_of_days(events: ds.Dataset) -> dict[str, dict[date, int]]:
    """By kind of event, the number of events of each day, UTC; nothing where events have no timestamps.

    Events are streamed: memory is bounded by the number of different days.

    Args:
        events: columns Event and, optionally, Timestamp; rows without one do not count.
    """
    if TIMESTAMP not in events.schema.names:
        return {}
    found: dict[str, dict[date, int]] = {}
    for batch in events.to_batches(columns=[EVENT, TIMESTAMP]):
        # Without the zone it is UTC; with one the cast would be the same, but asks for a database of zones.
        clock = batch.column(TIMESTAMP)
        days = clock.cast(pa.timestamp(clock.type.unit)).cast(pa.date32(), safe=False)
        table = pa.table({EVENT: batch.column(EVENT).cast(pa.string()), "day": days})
        counts = table.group_by([EVENT, "day"], use_threads=False).aggregate([([], "count_all")])
        for row in counts.to_pylist():
            if row["day"] is not None and row[EVENT] is not None:
                of_kind = found.setdefault(row[EVENT], {})
                of_kind[row["day"]] = of_kind.get(row["day"], 0) + row["count_all"]
    return found
