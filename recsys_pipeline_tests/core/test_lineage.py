"""Tables say what they were made from, and refuse to be combined when that differs."""

import pyarrow as pa
import pytest

from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.lineage import Lineage, ancestors_of, as_written, with_ancestors
from recsys_pipeline.core.metadata import stored_metadata, with_metadata


def table_of(asset, write_id, **ancestors):
    table = with_metadata(pa.table({"x": [1]}), {"seed": 42})
    return as_written(with_ancestors(table, ancestors), asset, write_id)


def test_a_table_knows_its_asset_its_state_and_its_ancestors_beside_what_else_is_said_of_it():
    table = table_of("split", "s1", matrix="m1")

    assert Lineage.of(table) == ("split", "s1", {"matrix": "m1"})
    assert Lineage.of({"users": table}) == Lineage.of(table)
    assert stored_metadata(table)["seed"] == 42


@pytest.mark.parametrize("value", [pa.table({"x": [1]}), {}, None, 3, "text"])
def test_what_is_no_table_of_an_asset_has_no_lineage(value):
    assert Lineage.of(value) is None
    assert ancestors_of([value]) == {}


def test_the_ancestors_of_several_inputs_are_theirs_and_the_inputs_themselves():
    matrix = table_of("matrix", "m1", strengths="t1")
    split = table_of("split", "s1", matrix="m1", strengths="t1")

    assert ancestors_of([matrix, split, "a setting"]) == {"matrix": "m1", "split": "s1", "strengths": "t1"}


def test_an_input_that_was_made_from_another_state_of_the_other_is_to_be_materialized_again():
    matrix, split = table_of("matrix", "m2"), table_of("split", "s1", matrix="m1")

    with pytest.raises(InputError, match=r"split was made from another matrix .*: materialize split again"):
        ancestors_of([matrix, split])


def test_inputs_whose_common_ancestor_differs_are_both_to_be_materialized_again():
    results = table_of("results", "r1", matrix="m1")
    split = table_of("split", "s1", matrix="m2")

    with pytest.raises(InputError, match=r"different states of matrix: materialize results and split again"):
        ancestors_of([results, split])
