"""Lists as the tables that shops read: raw ids, ranks, scores and who recommends."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys_pipeline.core.columns import ITEM, RANK, SCORE, SIMILAR, SOURCE, USER
from recsys_pipeline.core.offer import Lists, Offer, Popularity
from recsys_pipeline.core.ranking import NOTHING
from recsys_pipeline.core.sources import POPULAR


def recommendations_schema(users: pa.DataType, items: pa.DataType) -> pa.Schema:
    """Of `recommendations`, by the types of the ids."""
    return pa.schema(
        [(USER, users), (RANK, pa.int32()), (ITEM, items), (SCORE, pa.float32()), (SOURCE, pa.string())]
    )


def similar_items_schema(items: pa.DataType) -> pa.Schema:
    """Of `similar_items`, by the type of the ids."""
    return pa.schema([(ITEM, items), (RANK, pa.int32()), (SIMILAR, items), (SCORE, pa.float32())])


def recommendations_of(lists: Lists, users: pa.Array, items: pa.Array, source: str) -> pa.RecordBatch:
    """The rows of `recommendations`, by user, then rank.

    Args:
        lists: of these users.
        users: (n,) raw id of each list's user.
        items: raw id of each item index.
        source: who recommends what is the model's.
    """
    row, place = np.nonzero(lists.items != NOTHING)
    of_model = pa.array(place < lists.n_of_model[row])
    columns = [
        users.take(pa.array(row)),
        _ranks(place),
        items.take(pa.array(lists.items[row, place])),
        pa.array(lists.scores[row, place]),
        pc.if_else(of_model, source, POPULAR),
    ]
    return pa.record_batch(columns, schema=recommendations_schema(users.type, items.type))


def similar_items_of(
    lists: Lists, of_items: pa.Array, items: pa.Array, *, by_cosine: bool = True
) -> pa.RecordBatch:
    """The rows of `similar_items`, by item, then rank.

    Args:
        lists: of these items.
        of_items: (n,) raw id of each list's item.
        items: raw id of each item index.
        by_cosine: whether the scores are cosines.
    """
    row, place = np.nonzero(lists.items != NOTHING)
    scores = lists.scores[row, place]
    columns = [
        of_items.take(pa.array(row)),
        _ranks(place),
        items.take(pa.array(lists.items[row, place])),
        pa.array(cosines(scores) if by_cosine else scores),
    ]
    return pa.record_batch(columns, schema=similar_items_schema(items.type))


def cosines(products: NDArray[np.float32]) -> NDArray[np.float32]:
    """Products of vectors of length 1, which may exceed 1 by rounding, within -1 to 1."""
    return np.clip(products, -1, 1)


def popular_items_of(popularity: Popularity, offer: Offer, items: pa.Array, n: int) -> pa.Table:
    """The table `popular_items`: for people never seen, under the rules of the offer."""
    # The popular items of somebody who is excluded from nothing.
    from recsys_pipeline.core.selection import fill_up

    listed = np.full((1, n), NOTHING, dtype=np.int32)
    nobody = np.zeros(1, np.int32), np.zeros(2, np.int32), np.empty(0, np.int32)
    fill_up(popularity.order, *nobody, len(items), listed, *offer.limit)
    kept = listed[listed != NOTHING]
    return pa.table(
        {
            RANK: _ranks(np.arange(len(kept))),
            ITEM: items.take(pa.array(kept)),
            SCORE: pa.array(popularity.share[kept]),
        }
    )


def _ranks(places: NDArray[np.int64]) -> pa.Array:
    return pa.array((places + 1).astype(np.int32))


class ListTally:
    """Counts what a stream of lists holds while it passes.

    Attributes:
        n_rows: of all batches.
        n_lists: lists with an entry.
        n_full: lists with n entries.
        n_filled_up: lists that a popular item is in.
        by_source: rows of each source.
    """

    def __init__(self, n: int, listed: str) -> None:
        """`n` entries are a full list; `listed` is the column of the listed ids."""
        self.n_rows = self.n_lists = self.n_full = self.n_filled_up = 0
        self.by_source: dict[str, int] = {}
        self._n, self._listed = n, listed
        self._distinct: pa.Array | None = None
        self._popular_before = False

    @property
    def n_distinct(self) -> int:
        """Distinct items that are listed."""
        return 0 if self._distinct is None else len(self._distinct)

    def counted(self, batches: pa.RecordBatchReader) -> pa.RecordBatchReader:
        """The same stream."""
        return pa.RecordBatchReader.from_batches(batches.schema, self._counted(batches))

    def _counted(self, batches: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            self._count(batch)
            yield batch

    def _count(self, batch: pa.RecordBatch) -> None:
        if not batch.num_rows:
            return
        ranks = batch[RANK].to_numpy()
        self.n_rows += batch.num_rows
        self.n_lists += int(np.count_nonzero(ranks == 1))
        self.n_full += int(np.count_nonzero(ranks == self._n))
        known = [] if self._distinct is None else [self._distinct]
        self._distinct = pc.unique(pa.concat_arrays([*known, pc.unique(batch[self._listed])]))
        if SOURCE in batch.schema.names:
            for entry in batch[SOURCE].value_counts().to_pylist():
                self.by_source[entry["values"]] = self.by_source.get(entry["values"], 0) + entry["counts"]
            popular = pc.equal(batch[SOURCE], POPULAR).to_numpy(zero_copy_only=False)
            before = np.concatenate([[self._popular_before], popular[:-1]])
            # The first popular entry of each list that has one: popular entries are its last.
            self.n_filled_up += int(np.count_nonzero(popular & ((ranks == 1) | ~before)))
            self._popular_before = bool(popular[-1])
