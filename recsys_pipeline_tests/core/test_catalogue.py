"""What may be recommended, and why other items are not."""

import numpy as np
import pyarrow as pa
import pytest

from recsys_pipeline.core.catalogue import Entries, Listed, catalogue_table, offer_in

ITEMS = pa.array(["007", "a", "b", "c"])
# "b" is not in it; "z" nobody has touched.
ENTRIES = Entries(
    Listed(pa.array(["007", "a", "c", "z"]), n_other=2),
    np.array([True, False, True, True]),
    pa.array(["shoes", "hats", None, "hats"]),
)


def reasons(entries=None, allowed=None, denied=None):
    listed = (None if ids is None else Listed(pa.array(ids, pa.string()), 0) for ids in (allowed, denied))
    table = catalogue_table(ITEMS, entries, *listed, 0)
    assert table["recommendable"].to_pylist() == [reason == "" for reason in table["reason"].to_pylist()]
    return table["reason"].to_pylist()


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param({}, ["", "", "", ""], id="no file"),
        pytest.param({"entries": ENTRIES}, ["", "not available", "not in the catalogue", ""], id="catalogue"),
        pytest.param(
            {"allowed": ["a", "z"]},
            ["not on the allow-list", "", "not on the allow-list", "not on the allow-list"],
            id="allow-list",
        ),
        pytest.param({"denied": ["a", "z"]}, ["", "on the deny-list", "", ""], id="deny-list"),
        pytest.param({"denied": []}, ["", "", "", ""], id="empty deny-list"),
        pytest.param(
            {"entries": ENTRIES, "denied": ["007", "a"], "allowed": ["007"]},
            ["on the deny-list", "not available", "not in the catalogue", "not on the allow-list"],
            id="all of them",
        ),
    ],
)
def test_an_item_is_recommendable_or_there_is_a_reason(files, expected):
    assert reasons(**files) == expected


def test_the_offer_is_what_the_table_says():
    offer = offer_in(catalogue_table(ITEMS, ENTRIES, None, None, 3))

    assert offer.allowed.tolist() == [True, False, False, True]
    assert offer.category.tolist() == [0, 1, -1, -1]
    assert offer.max_per_category == 3


def test_without_a_catalogue_everything_is_on_offer():
    offer = offer_in(catalogue_table(ITEMS, None, None, None, 0))

    assert (offer.longest_list, offer.limit.most) == (4, 0)
    assert set(offer.category.tolist()) == {-1}


def test_items_that_nobody_touched_are_counted():
    assert ENTRIES.listed.untouched(ITEMS) == 1 + 2
