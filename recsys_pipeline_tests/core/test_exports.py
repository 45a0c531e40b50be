"""What shops read, from lists of indexes."""

import numpy as np
import pyarrow as pa
import pytest

from recsys_pipeline.core.exports import (
    ListTally,
    popular_items_of,
    recommendations_of,
    recommendations_schema,
    similar_items_of,
)
from recsys_pipeline.core.offer import Lists, Offer, Popularity
from recsys_pipeline.core.ranking import NOTHING

ITEMS = pa.array(["007", "b", "c", "d"])
# The second user gets one item of the model and a popular one, the third a popular one, the last nothing.
LISTS = Lists(
    np.array([[2, 0], [1, 3], [3, NOTHING], [NOTHING, NOTHING]], np.int32),
    np.array([[5, 4], [3, 0.5], [0.5, 0], [0, 0]], np.float32),
    np.array([2, 1, 0, 0]),
)


def test_ids_come_out_as_they_came_in_with_rank_score_and_source():
    table = recommendations_of(LISTS, pa.array([1, 2, 3, 4]), ITEMS, "als")

    assert [tuple(row.values()) for row in table.to_pylist()] == [
        (1, 1, "c", 5, "als"),
        (1, 2, "007", 4, "als"),
        (2, 1, "b", 3, "als"),
        (2, 2, "d", 0.5, "popular"),
        (3, 1, "d", 0.5, "popular"),
    ]
    assert table.schema == recommendations_schema(pa.int64(), pa.string())


def test_a_cosine_is_at_most_1():
    lists = Lists(np.array([[1]], np.int32), np.array([[1.0000001]], np.float32), np.array([1]))

    assert similar_items_of(lists, ITEMS[:1], ITEMS).to_pylist() == [
        {"ProductCode": "007", "rank": 1, "SimilarProductCode": "b", "score": 1.0}
    ]


def test_popular_items_keep_the_rules():
    offer = Offer(np.array([True, True, True, False]), np.array([0, 0, -1, -1], np.int32), 1)
    popularity = Popularity.of(np.array([4, 3, 1, 9]), 10, offer)
    table = popular_items_of(popularity, offer, ITEMS, n=4)

    assert table["ProductCode"].to_pylist() == ["007", "c"]
    assert table["rank"].to_pylist() == [1, 2]
    assert table["score"].to_pylist() == pytest.approx([0.4, 0.1])


@pytest.mark.parametrize("rows_per_batch", [1, 2, 5])
def test_a_stream_is_counted_while_it_passes(rows_per_batch):
    table = pa.Table.from_batches([recommendations_of(LISTS, pa.array([1, 2, 3, 4]), ITEMS, "als")])
    tally = ListTally(2, "ProductCode")
    reader = pa.RecordBatchReader.from_batches(table.schema, table.to_batches(rows_per_batch))

    assert tally.counted(reader).read_all() == table
    assert (tally.n_rows, tally.n_lists, tally.n_full, tally.n_filled_up) == (5, 3, 2, 2)
    assert tally.by_source == {"als": 3, "popular": 2}
    assert tally.n_distinct == 4
