"""From events to one strength per interaction."""

from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given
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
from recsys_pipeline.engines.local.aggregation import interaction_strengths as streamed_strengths

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


@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.sampled_from("abc"), st.sampled_from(sorted(NOTEBOOK))), min_size=1
    )
)
def test_equals_a_plain_loop(rows):
    expected: dict[tuple[int, str], float] = {}
    for user, item, event in rows:
        expected[user, item] = expected.get((user, item), 0) + NOTEBOOK[event]

    table = interaction_strengths(dataset(rows), NOTEBOOK)
    interactions = zip(*(table[name].to_pylist() for name in (USER, ITEM, STRENGTH)), strict=True)
    assert [((user, item), strength) for user, item, strength in interactions] == sorted(expected.items())


@pytest.mark.parametrize("name", ["shop[1].parquet", "what?.parquet", "all*.parquet"])
def test_the_name_of_a_file_is_no_pattern(name, tmp_path):
    table = dataset([(1, "a", "view"), (1, "a", "view")]).to_table()
    pq.write_table(table, tmp_path / name)
    pq.write_table(table, tmp_path / "whatever.parquet")
    pq.write_table(table, tmp_path / "all of it.parquet")

    found = interaction_strengths(ds.dataset(tmp_path / name, format="parquet"), NOTEBOOK)
    assert found[STRENGTH].to_pylist() == [2.0]
