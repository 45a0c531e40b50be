"""Raw ids to indexes and back."""

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from recsys_pipeline.core import indexing
from recsys_pipeline.core.indexing import index_ids

ids = st.one_of(
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1),
    st.lists(st.text(st.characters(codec="utf-8"), max_size=4), min_size=1),
)


@given(ids)
def test_every_row_finds_its_own_id_among_the_sorted_distinct_ones(raw):
    distinct, index = index_ids(pa.chunked_array([raw[:2], raw[2:]], pa.array(raw).type))

    assert distinct.take(pa.array(index)).to_pylist() == raw
    assert distinct.to_pylist() == sorted(set(raw))


def test_rows_are_looked_up_some_at_a_time(monkeypatch):
    monkeypatch.setattr(indexing, "_ROWS_AT_ONCE", 2)
    distinct, index = index_ids(pa.chunked_array([["b"], ["c", "a", "b"], ["a"]]))

    assert distinct.to_pylist() == ["a", "b", "c"]
    assert index.tolist() == [1, 2, 0, 1, 0]
