"""Judging rows of raw feedback."""

from datetime import UTC, datetime

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_pipeline.core.events import as_integers, judge, parse_timestamps


def rows(users, items, events):
    return pa.record_batch({"UserID": users, "ProductCode": items, "Event": pa.array(events, pa.string())})


def test_sorts_rows_into_events_ignored_and_rejected():
    batch = rows(
        ["1", " ", None, "4", "5", "6"], ["a", "b", "c", "", "e", "f"], ["view"] * 4 + ["gift", "noise"]
    )
    judged = judge(batch, ["view"], ["noise"], "s")

    assert judged.accepted["UserID"].to_pylist() == ["1"]
    assert judged.reasons.tolist() == [
        None,
        "blank UserID",
        "blank UserID",
        "blank ProductCode",
        "unknown Event 'gift'",
        None,
    ]
    assert judged.n_ignored == 1


def test_a_missing_event_is_blank_not_unknown():
    judged = judge(rows([1, 2], [1, 2], [None, "  "]), ["view"], [], "s")

    assert judged.reasons.tolist() == ["blank Event", "blank Event"]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["1", "-7", "9223372036854775807"], [1, -7, 2**63 - 1]),
        (["1", "007"], None),
        (["1", "+7"], None),
        (["-0"], None),
        (["0x1F"], None),
        (["1 "], None),
        (["9223372036854775808"], None),
        (["1.0"], None),
    ],
)
def test_integers_are_only_what_reads_back_the_same(texts, expected):
    integers = as_integers(pa.array(texts))

    assert (integers if integers is None else integers.to_pylist()) == expected


@given(st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_every_64_bit_integer_is_one(values):
    assert as_integers(pa.array([str(value) for value in values], pa.string())).to_pylist() == values


MAY_3 = datetime(2015, 5, 3, 3, 25, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        pytest.param("1430623510", "s", MAY_3, id="seconds as text"),
        pytest.param(1430623510000, "ms", MAY_3, id="milliseconds"),
        pytest.param("2015-05-03T03:25:10Z", "s", MAY_3, id="ISO 8601"),
        pytest.param("2015-05-03 05:25:10+02:00", "s", MAY_3, id="another zone"),
        pytest.param("2015-05-03 03:25:10", "s", MAY_3, id="no zone is UTC"),
        pytest.param(1430623510000, "s", None, id="a unit misread lies after 2200"),
        pytest.param("yesterday", "s", None, id="no timestamp"),
        pytest.param("", "s", None, id="missing"),
        pytest.param(-(2**63), "us", None, id="the smallest integer"),
    ],
)
def test_timestamps(value, unit, expected):
    assert parse_timestamps(pa.array([value]), unit).to_pylist() == [expected]


def test_one_bad_timestamp_spoils_no_other():
    mixed = parse_timestamps(pa.array(["1430623510", "", "2015-05-03T03:25:10Z"]), "s")

    assert mixed.to_pylist() == [MAY_3, None, MAY_3]
