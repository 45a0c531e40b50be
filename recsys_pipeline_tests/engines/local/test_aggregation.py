"""From events to one strength per interaction."""

import errno
import resource
import signal
import subprocess
import sys
import tempfile
from datetime import UTC, datetime

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from dagster import Failure, RetryRequested
from fsspec.implementations.memory import MemoryFile
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_pipeline.core.columns import (
    EVENT,
    EXCLUDED,
    ITEM,
    STRENGTH,
    TARGET,
    TARGET_TIMESTAMP,
    TIMESTAMP,
    USER,
)
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.strengths import Aggregate
from recsys_pipeline.engines.local import aggregation
from recsys_pipeline.engines.local.aggregation import in_equal_parts
from recsys_pipeline.engines.local.aggregation import interaction_strengths as streamed_strengths
from recsys_pipeline.machine.scratch import scratch_folder
from recsys_pipeline.steps.failures import classify_errors
from recsys_pipeline.storage.tables import write_table
from recsys_pipeline.storage.warehouse import Warehouse
from recsys_pipeline_tests.conftest import PROJECT
from recsys_pipeline_tests.storage.bucket import new_bucket

NOTEBOOK = {"view": 1.0, "query_search": 2.0, "click": 3.0, "compare": 4.0}


def interaction_strengths(*arguments, **options):
    return streamed_strengths(*arguments, **options).read_all()


def dataset(rows, *more):
    users, items, events, *rest = zip(*rows, strict=True)
    columns = {USER: users, ITEM: items, EVENT: events, **dict(zip(more, rest, strict=True))}
    return ds.InMemoryDataset(pa.table({name: list(values) for name, values in columns.items()}))


def test_sums_the_events_of_an_interaction():
    events = dataset([(2, "b", "view"), (1, "a", "click"), (2, "b", "compare"), (1, "b", "view")])

    assert interaction_strengths(events, NOTEBOOK).select([USER, ITEM, STRENGTH]).to_pylist() == [
        {USER: 1, ITEM: "a", STRENGTH: 3.0},
        {USER: 1, ITEM: "b", STRENGTH: 1.0},
        {USER: 2, ITEM: "b", STRENGTH: 5.0},
    ]


def test_or_takes_the_strongest():
    events = dataset([(2, "b", "view"), (2, "b", "compare"), (2, "b", "view")])

    assert interaction_strengths(events, NOTEBOOK, Aggregate.max)[STRENGTH].to_pylist() == [4.0]


def test_counts_each_event_and_marks_targets_and_what_is_excluded():
    events = dataset([(1, "a", "view"), (1, "a", "view"), (1, "b", "click"), (1, "c", "compare")])
    interactions = interaction_strengths(
        events, NOTEBOOK, target_events=["click"], seen_events=["click", "compare"]
    )

    assert interactions["count_view"].to_pylist() == [2, 0, 0]
    assert interactions["count_click"].to_pylist() == [0, 1, 0]
    assert interactions[TARGET].to_pylist() == [False, True, False]
    assert interactions[EXCLUDED].to_pylist() == [False, True, True]


def test_every_event_is_a_target_and_excludes_by_default():
    interactions = interaction_strengths(dataset([(1, "a", "view"), (1, "b", "compare")]), NOTEBOOK)

    assert interactions[TARGET].to_pylist() == interactions[EXCLUDED].to_pylist() == [True, True]


def test_the_latest_target_event_has_a_time_of_its_own():
    early, late = datetime(2015, 5, 3, tzinfo=UTC), datetime(2015, 9, 18, tzinfo=UTC)
    events = dataset([(1, 1, "view", late), (1, 1, "click", early), (1, 2, "view", late)], TIMESTAMP)
    interactions = interaction_strengths(events, NOTEBOOK, target_events=["click"])

    assert interactions[TIMESTAMP].to_pylist() == [late, late]
    assert interactions[TARGET_TIMESTAMP].to_pylist() == [early, None]


def test_keeps_the_latest_timestamp():
    early, late = datetime(2015, 5, 3, tzinfo=UTC), datetime(2015, 9, 18, tzinfo=UTC)
    events = dataset([(1, 1, "view", late), (1, 1, "view", early)], TIMESTAMP)

    assert interaction_strengths(events, NOTEBOOK)[TIMESTAMP].to_pylist() == [late]


def test_an_event_without_a_strength_is_named():
    with pytest.raises(InputError, match="no strength: refund"):
        interaction_strengths(dataset([(1, 1, "view"), (1, 1, "refund")]), NOTEBOOK)


# --- Times ---------------------------------------------------------------------------------------

CLOCKS = [
    pytest.param(pa.timestamp("us", tz="UTC"), id="as raw_feedback has it"),
    pytest.param(pa.timestamp("ms", tz="Europe/Berlin"), id="another zone and unit"),
    pytest.param(pa.timestamp("s"), id="no zone"),
]


@pytest.mark.parametrize("clock", CLOCKS)
def test_times_keep_their_type_and_their_value_before_1970_too(clock):
    times = pa.array([1_000_000, -7_000_000, 5_000_000, None, None], pa.int64())
    times = times.cast(pa.timestamp("us", tz=clock.tz)).cast(clock)
    events = ds.InMemoryDataset(
        pa.table({USER: [1, 2, 1, 1, 3], ITEM: [1, 1, 1, 1, 1], EVENT: ["view"] * 5, TIMESTAMP: times})
    )
    latest = interaction_strengths(events, NOTEBOOK)[TIMESTAMP]

    assert latest.type == clock
    assert latest.to_pylist() == [times[2].as_py(), times[1].as_py(), None]


def test_no_event_has_a_time():
    table = dataset([(1, 1, "view"), (2, 1, "click")]).to_table()
    events = table.append_column(TIMESTAMP, pa.nulls(2, pa.timestamp("us", tz="UTC")))
    interactions = interaction_strengths(ds.InMemoryDataset(events), NOTEBOOK)

    assert interactions[TIMESTAMP].to_pylist() == interactions[TARGET_TIMESTAMP].to_pylist() == [None, None]


# --- Names and ids -------------------------------------------------------------------------------


@pytest.mark.parametrize("id_type", [pa.int64(), pa.int32()])
def test_integer_ids_are_ordered_by_value(id_type):
    ids = [10, 9, -1, -10, 2**31 - 1]
    if id_type == pa.int64():
        # 64-bit floats cannot tell the last two apart.
        ids += [-(2**63), 2**63 - 1, 2**53 + 1, 2**53]
    table = pa.table({USER: pa.array(ids, id_type), ITEM: pa.array(ids, id_type), EVENT: ["view"] * len(ids)})
    interactions = interaction_strengths(ds.InMemoryDataset(table), NOTEBOOK)

    assert interactions[USER].type == id_type
    assert interactions[USER].to_pylist() == interactions[ITEM].to_pylist() == sorted(ids)


def test_string_ids_are_ordered_by_their_bytes_and_come_back_as_they_were():
    ids = ["z", "Z", "é", "e\u0301", "\U0001f6d2", "10", "9", "o'clock", '"', "a; DROP", "%", "\\", "?"]
    interactions = interaction_strengths(dataset([(i, i, "view") for i in ids]), NOTEBOOK)

    assert interactions[USER].to_pylist() == sorted(ids, key=str.encode)
    assert interactions[ITEM].to_pylist() == interactions[USER].to_pylist()


def test_the_name_of_an_event_may_hold_anything():
    strengths = {"it's": 1.0, "add to cart": 2.0, '"?%$1': 3.0, "é": 4.0}
    events = dataset([(1, place, event) for place, event in enumerate(strengths)] + [(1, 0, "it's")])
    interactions = interaction_strengths(events, strengths, target_events=["it's"])

    assert interactions["count_it's"].to_pylist() == [2, 0, 0, 0]
    assert interactions[STRENGTH].to_pylist() == [2.0, 2.0, 3.0, 4.0]
    assert interactions[TARGET].to_pylist() == [True, False, False, False]


# --- Where events come from ----------------------------------------------------------------------

EVENTS = dataset([(2, "b", "view"), (1, "a", "click"), (2, "b", "compare"), (1, "b", "view")]).to_table()


def written(folder, table=EVENTS, name="part.parquet"):
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / name)
    return folder / name


@pytest.mark.parametrize("folder", ["plain", "shop*", "sh[ao]p", "what?", "Event=view", "it's"])
def test_a_file_is_read_whatever_its_folder_is_called(tmp_path, folder):
    # What the name would match, were it a pattern.
    for other in ("shops", "shop", "whats"):
        written(tmp_path / other, pa.concat_tables([EVENTS] * 3))
    events = ds.dataset(written(tmp_path / folder))

    expected = interaction_strengths(ds.InMemoryDataset(EVENTS), NOTEBOOK)
    assert interaction_strengths(events, NOTEBOOK).equals(expected)


def test_a_folder_of_part_files_is_one_table_whatever_the_order_of_their_columns(tmp_path):
    written(tmp_path, EVENTS.slice(0, 2), "part-0.parquet")
    written(tmp_path, EVENTS.slice(2).select([EVENT, ITEM, USER]), "part-1.parquet")

    expected = interaction_strengths(ds.InMemoryDataset(EVENTS), NOTEBOOK)
    assert interaction_strengths(ds.dataset(tmp_path, format="parquet"), NOTEBOOK).equals(expected)


def test_an_object_store_is_read_too(monkeypatch):
    warehouse = Warehouse(path=str(new_bucket(monkeypatch)))
    warehouse.write_tables("raw_feedback", {"raw_feedback": EVENTS})

    expected = interaction_strengths(ds.InMemoryDataset(EVENTS), NOTEBOOK)
    assert interaction_strengths(warehouse.open_table("raw_feedback"), NOTEBOOK).equals(expected)


@pytest.mark.parametrize("stored", [True, False])
def test_no_events_make_no_interactions(tmp_path, stored):
    events = ds.dataset(written(tmp_path, EVENTS.slice(0, 0))) if stored else EVENTS.slice(0, 0)
    interactions = interaction_strengths(events if stored else ds.InMemoryDataset(events), NOTEBOOK)

    assert interactions.num_rows == 0
    assert interactions.schema == interaction_strengths(ds.InMemoryDataset(EVENTS), NOTEBOOK).schema


# --- What comes out ------------------------------------------------------------------------------


def numbers(n):
    return pa.record_batch({"n": np.arange(n)})


@given(st.lists(st.integers(0, 9)), st.integers(1, 7))
def test_batches_of_any_size_become_equal_parts(sizes, n_rows):
    rows = numbers(sum(sizes))
    batches = [rows.slice(sum(sizes[:place]), size) for place, size in enumerate(sizes)]
    parts = list(in_equal_parts(batches, n_rows))

    assert [number for part in parts for number in part["n"].to_pylist()] == rows["n"].to_pylist()
    assert all(part.num_rows == n_rows for part in parts[:-1])
    assert all(0 < part.num_rows <= n_rows for part in parts)


@pytest.mark.parametrize("stored", [True, False])
def test_the_file_is_the_same_whatever_the_number_of_threads(tmp_path, monkeypatch, stored):
    monkeypatch.setattr(aggregation, "_ROWS_AT_ONCE", 5000)
    pq.write_table(MANY, tmp_path / "events.parquet", row_group_size=10_000)
    files = []
    for threads in (1, 2, 7):
        monkeypatch.setattr(aggregation, "usable_cores", lambda threads=threads: threads)
        files.append(tmp_path / f"{threads}.parquet")
        events = ds.dataset(tmp_path / "events.parquet") if stored else ds.InMemoryDataset(MANY)
        write_table(streamed_strengths(events, VIEWS), files[-1])

    assert len({file.read_bytes() for file in files}) == 1
    with pq.ParquetFile(files[0]) as file:
        sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
    assert set(sizes[:-1]) == {5000}


TIMES = st.none() | st.integers(-(10**15), 10**15)
ROWS = st.tuples(
    st.integers(-2, 3), st.sampled_from(["a", "B", "é"]), st.sampled_from(sorted(NOTEBOOK)), TIMES
)


@settings(max_examples=30)
@given(
    rows=st.lists(ROWS, min_size=1, max_size=40),
    aggregate=st.sampled_from(Aggregate),
    targets=st.sets(st.sampled_from(sorted(NOTEBOOK))),
    seen=st.sets(st.sampled_from(sorted(NOTEBOOK))),
)
def test_equals_the_groups_of_pandas(rows, aggregate, targets, seen):
    users, items, names, times = zip(*rows, strict=True)
    clock = pa.timestamp("us", tz="UTC")
    table = pa.table({USER: users, ITEM: items, EVENT: names, TIMESTAMP: pa.array(times, clock)})
    found = interaction_strengths(
        ds.InMemoryDataset(table), NOTEBOOK, aggregate, target_events=targets, seen_events=seen
    )

    events = pd.DataFrame({USER: users, ITEM: items, EVENT: names, "time": pd.array(times, "Int64")})
    events["worth"] = events[EVENT].map(NOTEBOOK)
    events["target"] = events[EVENT].isin(targets or NOTEBOOK)
    events["excludes"] = events[EVENT].isin(seen or NOTEBOOK)
    events["target_time"] = events["time"].where(events["target"])
    groups = events.groupby([USER, ITEM])
    expected = {
        STRENGTH: groups["worth"].agg(aggregate.value).tolist(),
        TARGET: groups["target"].any().tolist(),
        EXCLUDED: groups["excludes"].any().tolist(),
        **{f"count_{name}": groups[EVENT].agg(lambda of: sum(of == name)).tolist() for name in NOTEBOOK},  # noqa: B023
    }
    assert list(zip(found[USER].to_pylist(), found[ITEM].to_pylist(), strict=True)) == list(groups.groups)
    assert {name: found[name].to_pylist() for name in expected} == expected
    for name, column in ((TIMESTAMP, "time"), (TARGET_TIMESTAMP, "target_time")):
        latest = [None if pd.isna(time) else int(time) for time in groups[column].max()]
        assert found[name].cast(pa.int64()).to_pylist() == latest


# --- Memory and disk -----------------------------------------------------------------------------

VIEWS = {"view": 1.0, "buy": 2.0}


def many_events(n):
    rng = np.random.default_rng(0)
    return pa.table(
        {
            USER: rng.integers(0, 10**12, n),
            ITEM: pa.array(rng.integers(0, 10**6, n)).cast(pa.string()),
            EVENT: np.array(list(VIEWS))[rng.integers(0, 2, n)],
        }
    )


MANY = many_events(60_000)
# With 400,000 of these events and one thread: they go to the disk, and get by; they do not get by.
TIGHT, TOO_TIGHT = 50 * 10**6, 10 * 10**6


@pytest.fixture(scope="module")
def large():
    return ds.InMemoryDataset(many_events(400_000))


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Where the temporary files go; batches are small, so that one comes before the last was computed."""
    monkeypatch.setattr(aggregation, "usable_cores", lambda: 1)
    monkeypatch.setattr(aggregation, "_ROWS_AT_ONCE", 4096)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def spilled(folder):
    return [file.stat().st_size for file in folder.glob("recsys-search-*/duckdb_temp_*.tmp")]


def test_what_memory_does_not_hold_goes_to_the_disk_and_the_table_is_the_same(temporary, large):
    stream = streamed_strengths(large, VIEWS, most_bytes=TIGHT)
    first = stream.read_next_batch()
    assert sum(spilled(temporary)) > 10**6
    rest = stream.read_all()

    assert not list(temporary.iterdir())
    whole = interaction_strengths(large, VIEWS, most_bytes=10**9)
    assert pa.concat_tables([pa.Table.from_batches([first]), rest]).equals(whole)


def test_too_little_memory_says_what_to_raise_and_leaves_nothing_behind(temporary, large):
    with pytest.raises(InputError, match=r"the limit is 10 MB\. Raise memory_limit of feedback_strengths \("):
        interaction_strengths(large, VIEWS, most_bytes=TOO_TIGHT)
    assert not list(temporary.iterdir())


def test_a_stream_that_nobody_reads_to_its_end_leaves_nothing_behind(temporary, large):
    stream = streamed_strengths(large, VIEWS, most_bytes=TIGHT)
    stream.read_next_batch()
    assert spilled(temporary)
    stream.close()
    del stream

    assert not list(temporary.iterdir())


def test_a_full_disk_is_no_lack_of_memory(temporary, large, monkeypatch):
    connect = duckdb.connect

    def on_a_full_disk(config):
        # The default is what is free on the disk.
        return connect(config={**config, "max_temp_directory_size": "1MB"})

    monkeypatch.setattr(duckdb, "connect", on_a_full_disk)
    with pytest.raises(OSError, match="No space left on device") as raised:
        interaction_strengths(large, VIEWS, most_bytes=TIGHT)
    assert raised.value.errno == errno.ENOSPC
    assert raised.value.filename.startswith(f"{temporary}/recsys-search-")

    with (
        pytest.raises(
            Failure, match=r"recsys-search-.*no space left: free some, or choose .* TMPDIR"
        ) as raised,
        classify_errors(),
    ):
        interaction_strengths(large, VIEWS, most_bytes=TIGHT)
    assert not raised.value.allow_retries
    assert not list(temporary.iterdir())


def test_another_error_of_the_disk_is_one_of_the_system_and_names_the_file(temporary, large):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        with pytest.raises(OSError, match=r"recsys-search-.*: File too large") as raised:
            interaction_strengths(large, VIEWS, most_bytes=TIGHT)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert raised.value.errno == errno.EFBIG
    assert not list(temporary.iterdir())


@pytest.mark.parametrize(
    ("code", "outcome"),
    [(errno.ETIMEDOUT, RetryRequested), (errno.EACCES, Failure)],
    ids=["time", "a person"],
)
def test_an_error_that_arrow_meets_is_one_of_the_system(monkeypatch, code, outcome):
    """Time mends a lost connection, a person must mend a lack of permission."""
    path = new_bucket(monkeypatch) / "events.parquet"
    with path.open("wb") as file:
        pq.write_table(EVENTS, file)
    # Which Arrow reads, and not DuckDB.
    events = ds.dataset(path.path, format="parquet", filesystem=path.fs)

    def broken(*_):
        raise OSError(code, "no answer")

    # It breaks once DuckDB reads.
    monkeypatch.setattr(
        aggregation, "_require_strengths", lambda *_: monkeypatch.setattr(MemoryFile, "read", broken)
    )
    with pytest.raises(OSError, match="no answer") as raised:
        interaction_strengths(events, NOTEBOOK)
    assert raised.value.errno == code
    with pytest.raises(outcome), classify_errors():
        raise raised.value


KILLED = """
import sys, time
import pyarrow.dataset as ds
from recsys_pipeline.engines.local import aggregation
aggregation.usable_cores, aggregation._ROWS_AT_ONCE = lambda: 1, 4096
events = ds.dataset(sys.argv[1])
stream = aggregation.interaction_strengths(events, {"view": 1.0, "buy": 2.0}, most_bytes=int(sys.argv[2]))
stream.read_next_batch()
print("spilled", flush=True)
time.sleep(600)
"""


def test_what_a_killed_run_left_on_the_disk_goes_with_the_next_one(temporary, large, monkeypatch):
    pq.write_table(large.to_table(), temporary / "events.parquet", row_group_size=20_000)
    monkeypatch.setenv("TMPDIR", str(temporary))
    run = subprocess.Popen(
        [sys.executable, "-c", KILLED, temporary / "events.parquet", str(TIGHT)],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert run.stdout.readline() == "spilled\n"
    run.send_signal(signal.SIGKILL)
    run.communicate()
    assert spilled(temporary)

    with scratch_folder():
        assert not spilled(temporary)
