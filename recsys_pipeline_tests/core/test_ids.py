"""Which ids are none, and of which type a column of them is."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.ids import IdColumn, IdType, as_integers, is_blank, is_integer

BLANK = ["null", "nan", "none", "na", "\\N"]


@pytest.mark.parametrize("blank", [None, "", "  ", "\t", "null", "NULL", "NaN", "None", " na ", "\\N", "\\n"])
def test_these_are_no_ids(blank):
    assert is_blank(pa.array([blank, "7"], pa.string()), BLANK).tolist() == [True, False]


def test_which_words_are_blank_is_configuration():
    assert is_blank(pa.array(["na", "-", ""]), ["-"]).tolist() == [False, True, True]


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


@given(st.lists(st.one_of(st.integers(-(2**70), 2**70).map(str), st.text("0123456789-+. ", max_size=4))))
def test_one_id_is_an_integer_where_a_column_of_it_is(texts):
    alone = [as_integers(pa.array([text], pa.string())) is not None for text in texts]

    assert is_integer(pa.array(texts, pa.string())).tolist() == alone


INTEGERS, STRINGS = pa.int64(), pa.string()


def converted(column, ids, *, typed=False):
    ids = pa.array(ids)
    return column.convert(ids, np.arange(2, 2 + len(ids)), "feed.csv", typed=typed).to_pylist()


def column(wanted=IdType.auto, last=None):
    return IdColumn("UserID", "user_id_type", wanted, last)


def test_a_first_run_takes_integers_for_what_they_are_until_one_is_none():
    first = column()

    assert converted(first, ["1", "2"]) == [1, 2]
    assert converted(first, ["3", "x"]) == ["3", "x"]
    assert converted(first, ["4"]) == ["4"]
    assert first.type == STRINGS


def test_after_integers_a_text_is_refused_by_name_and_line():
    with pytest.raises(
        InputError,
        match=r"UserID ids were integers in the last run and are text now: 'x', '1e5'"
        r" \(the first in line 3\).*RECSYS_USER_ID_TYPE\) to `integer`",
    ):
        converted(column(last=INTEGERS), ["1", "x", "1e5"])


def test_after_text_integers_stay_text():
    assert converted(column(last=STRINGS), ["1", "2"]) == ["1", "2"]


@pytest.mark.parametrize(("last", "ids"), [(STRINGS, [1, 2]), (INTEGERS, ["1", "2"])])
def test_a_source_with_types_is_taken_at_its_word(last, ids):
    assert converted(column(), ids, typed=True) == ids
    with pytest.raises(InputError, match="in the last run"):
        converted(column(last=last), ids, typed=True)


@pytest.mark.parametrize("last", [None, INTEGERS, STRINGS])
def test_a_pinned_type_holds_whatever_was_before(last):
    assert converted(column(IdType.integer, last), ["1", "2"]) == [1, 2]
    assert converted(column(IdType.string, last), ["1", "2"]) == ["1", "2"]
    assert converted(column(IdType.string, last), [1, 2], typed=True) == ["1", "2"]


@pytest.mark.parametrize("odd", [" 1 ", "1e5", "+7", "x"])
def test_an_oddity_that_makes_text_of_integers_is_remarked_upon(odd):
    first = column()
    converted(first, ["1", odd])

    assert (
        f"kept as text, although most may be integers: {odd!r} (the first in line 3 of feed.csv)"
        in first.remark
    )


@pytest.mark.parametrize("codes", [["0073504200641", "4006381333931"], ["a", "b"]])
def test_codes_are_text_without_a_remark(codes):
    first = column()

    assert converted(first, codes) == codes
    assert first.remark == ""
