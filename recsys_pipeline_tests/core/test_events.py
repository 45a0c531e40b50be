"""Judging rows of raw feedback."""

from datetime import UTC, datetime

import pyarrow as pa
import pytest

from recsys_pipeline.core.events import Criteria, judge, parse_timestamps


def rows(users, items, events):
    return pa.record_batch({"UserID": users, "ProductCode": items, "Event": pa.array(events, pa.string())})


def test_sorts_rows_into_events_ignored_and_rejected():
    batch = rows(
        ["1", " ", None, "4", "5", "6"], ["a", "b", "c", "", "e", "f"], ["view"] * 4 + ["gift", "noise"]
    )
    judged = judge(batch, Criteria(["view"], ignored=["noise"]))

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
    judged = judge(rows([1, 2], [1, 2], [None, "  "]), Criteria(["view"]))

    assert judged.reasons.tolist() == ["blank Event", "blank Event"]


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
        pytest.param("2999-01-01", "s", None, id="a text after 2200"),
        pytest.param(datetime(2999, 1, 1, tzinfo=UTC), "s", None, id="a timestamp after 2200"),
        pytest.param("1000-01-01", "s", None, id="long ago"),
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


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_timestamps_of_any_unit_are_read_and_none_overflows(unit):
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    typed = pa.array([1430623510 * per_second, 2**62], pa.timestamp(unit, tz="Europe/Berlin"))
    beyond = None if unit != "ns" else datetime(2116, 2, 20, 23, 53, 38, 427387, tzinfo=UTC)

    assert parse_timestamps(typed, "s").to_pylist() == [MAY_3, beyond]


def test_an_id_with_a_nul_character_is_rejected():
    judged = judge(rows(["1\0", "2"], ["a", "b"], ["view"] * 2), Criteria(["view"]))

    assert judged.reasons.tolist() == ["UserID holds a NUL character", None]


def test_a_long_event_name_is_cut_in_its_reason():
    judged = judge(rows([1], [2], ["x" * 300_000]), Criteria(["view"]))

    assert judged.reasons[0] == f"unknown Event '{'x' * 60}...'"
