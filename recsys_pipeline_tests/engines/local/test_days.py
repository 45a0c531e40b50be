"""How many events each day has."""

from datetime import UTC, date, datetime

import pyarrow as pa
import pyarrow.dataset as ds

from recsys_pipeline.engines.local.days import events_of_days


def feed(zone):
    times = [
        datetime(2026, 3, 1, 23, 59, 59, tzinfo=UTC),
        datetime(2026, 3, 2, 0, 0, 0, tzinfo=UTC),
        None,
        datetime(1969, 12, 31, 12, tzinfo=UTC),
    ]
    table = pa.table(
        {
            "Event": ["view", "view", "view", "buy"],
            "Timestamp": pa.array(times, pa.timestamp("us", "UTC")).cast(pa.timestamp("us", zone)),
        }
    )
    # A batch a row: what is counted apart is added.
    return ds.InMemoryDataset(table.to_batches(max_chunksize=1))


def test_days_are_those_of_utc_whatever_the_zone_of_the_column():
    expected = {
        "view": {date(2026, 3, 1): 1, date(2026, 3, 2): 1},
        "buy": {date(1969, 12, 31): 1},
    }

    assert events_of_days(feed("UTC")) == expected
    assert events_of_days(feed("Asia/Tokyo")) == expected


def test_without_timestamps_there_are_no_days():
    assert events_of_days(ds.InMemoryDataset(pa.table({"Event": ["view"]}))) == {}
