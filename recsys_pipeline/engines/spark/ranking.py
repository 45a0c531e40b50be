"""At which rank the models of a state put each held-out item.

Held-out interactions are spread over the cluster; each worker takes the vectors of their users and items,
maps those of all items, a block at a time, and counts how many come first. The rule is that of
`core.ranking`, and so is the arithmetic.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyspark.sql.functions as sf
from numpy.typing import NDArray

from recsys_pipeline.core.columns import ITEM_INDEX, USER_INDEX
from recsys_pipeline.core.pattern import Pattern
from recsys_pipeline.core.ranking import (
    NOTHING,
    USERS_PER_BLOCK,
    LongestFirst,
    count_ahead,
    scored_by_factors,
)
from recsys_pipeline.engines.spark.frames import Kept, Scratch, as_bytes, collected
from recsys_pipeline.engines.spark.vectors import Same, Vectors

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

# Held-out interactions that a worker ranks at once: each time it reads the vectors of all items.
_AT_ONCE = 1 << 14
_RANKS = "held int, ranks binary"
_LISTS = "held int, items binary"


def held_frame(scratch: Scratch, held: pa.Table, exclusions: "DataFrame | None") -> Kept:
    """The held-out interactions by number, with the items that are excluded for their user.

    Args:
        scratch: where it is kept.
        held: rows of a `leave_one_out_split`, of one split.
        exclusions: of each user, see `SplitFrames.exclusions`; None excludes nothing.
    """
    numbered = pa.table(
        {
            "held": np.arange(held.num_rows, dtype=np.int32),
            USER_INDEX: held[USER_INDEX],
            ITEM_INDEX: held[ITEM_INDEX],
        }
    )
    frame = scratch.spark.createDataFrame(numbered)
    if exclusions is None:
        frame = frame.withColumn("excluded", sf.array().cast("array<int>"))
    else:
        frame = frame.join(exclusions, USER_INDEX, "left")
    columns = ["held", USER_INDEX, ITEM_INDEX, "excluded"]
    return scratch.kept(frame.select(*columns), "held")


def ranks_of(
    held: Kept, users: Vectors | Same, items: Vectors, parts: Sequence[slice], k: int
) -> NDArray[np.int64]:
    """(n_parts, n_held_out) the 1-based rank of each held-out item by each part of the vectors.

    Args:
        held: see `held_frame`.
        users: the vectors.
        items: the vectors.
        parts: of the vectors; each is a model.
        k: ranks beyond are k + 1.
    """
    table = collected(held.frame.mapInArrow(_worker(_ranked, users, items, parts, k), _RANKS))
    ranks = np.full((len(parts), held.n_rows), k + 1, dtype=np.int64)
    if table.num_rows:
        ranks[:, table["held"].to_numpy()] = _from_rows(table["ranks"], np.int16).T
    return ranks


def lists_of(held: Kept, users: Vectors | Same, items: Vectors, part: slice, k: int) -> NDArray[np.int32]:
    """(n_held_out, k) the best items of the user of each held-out interaction; arguments as above."""
    table = collected(held.frame.mapInArrow(_worker(_listed, users, items, [part], k), _LISTS))
    lists = np.full((held.n_rows, k), NOTHING, dtype=np.int32)
    if table.num_rows:
        lists[table["held"].to_numpy()] = _from_rows(table["items"], np.int32)
    return lists


def _from_rows(column: pa.ChunkedArray, kind: type[np.integer]) -> NDArray[Any]:
    return np.stack([np.frombuffer(each.as_buffer(), kind) for each in column.combine_chunks()])


def _worker(
    work: Callable[..., Iterator[pa.RecordBatch]],
    users: Vectors | Same,
    items: Vectors,
    parts: Sequence[slice],
    k: int,
) -> Any:
    """Some of the rows at a time."""

    def together(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        waiting: list[pa.RecordBatch] = []
        for batch in batches:
            waiting.append(batch)
            if sum(each.num_rows for each in waiting) >= _AT_ONCE:
                yield from work(waiting, users, items, parts, k)
                waiting = []
        yield from work(waiting, users, items, parts, k)

    return together


def _known(batches: Sequence[pa.RecordBatch], sides: Mapping[str, Vectors | Same]) -> pa.Table | None:
    """The rows whose indexes on these sides have vectors; None without any."""
    if not batches:
        return None
    table = pa.Table.from_batches(batches).combine_chunks()
    for name, vectors in sides.items():
        index = table[name].to_numpy()
        table = table.filter(pa.array((index >= 0) & (index < vectors.n_rows)))
    return table if table.num_rows else None


def _excluded(table: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """The row and the item of each exclusion, by row."""
    excluded = table["excluded"].combine_chunks()
    lengths = excluded.value_lengths().fill_null(0).to_numpy()
    return np.repeat(np.arange(len(lengths)), lengths), excluded.flatten().to_numpy()


def _listed(
    batches: Sequence[pa.RecordBatch],
    users: Vectors | Same,
    items: Vectors,
    parts: Sequence[slice],
    k: int,
) -> Iterator[pa.RecordBatch]:
    from recsys_pipeline.engines.local.compiling import ready

    (part,) = parts
    table = _known(batches, {USER_INDEX: users})
    if table is None:
        return
    ready("recsys_pipeline.core.selection")
    own = np.ascontiguousarray(users.take(table[USER_INDEX].to_numpy())[:, part])
    row, item = _excluded(table)
    n = len(own)
    lists, scores = np.full((n, k), NOTHING, np.int32), np.full((n, k), -np.inf, np.float32)
    for index, vectors in items.blocks():
        places = np.minimum(np.searchsorted(index, item), len(index) - 1)
        here = index[places] == item
        indptr = np.zeros(n + 1, np.int64)
        np.cumsum(np.bincount(row[here], minlength=n), out=indptr[1:])
        exclusions = Pattern(indptr, places[here].astype(np.int32), len(index))
        longest_first = LongestFirst.of(np.ascontiguousarray(vectors[:, part]))
        rows = np.arange(n, dtype=np.int32)
        found, of_found = scored_by_factors(own, longest_first, rows, exclusions, k)
        of_found = np.where(found == NOTHING, np.float32(-np.inf), of_found)
        found = np.where(found == NOTHING, NOTHING, index[found])
        all_items, all_scores = np.hstack([lists, found]), np.hstack([scores, of_found])
        # The higher score first, among equals the lower index; what is nothing comes last.
        best = np.lexsort((all_items, -all_scores), axis=1)[:, :k]
        lists, scores = (np.take_along_axis(each, best, axis=1) for each in (all_items, all_scores))
    yield pa.record_batch([table["held"].combine_chunks(), as_bytes(lists)], names=["held", "items"])


def _ranked(
    batches: Sequence[pa.RecordBatch],
    users: Vectors | Same,
    items: Vectors,
    parts: Sequence[slice],
    k: int,
) -> Iterator[pa.RecordBatch]:
    # Nobody recommends anything to who is not known, nor an item that is not.
    table = _known(batches, {USER_INDEX: users, ITEM_INDEX: items})
    if table is None:
        return
    item = table[ITEM_INDEX].to_numpy()
    of_users, own = users.take(table[USER_INDEX].to_numpy()), items.take(item)
    row_of_excluded, item_of_excluded = _excluded(table)
    ahead = np.zeros((len(parts), len(item)), dtype=np.int64)
    for index, vectors in items.blocks():
        for number, part in enumerate(parts):
            ahead[number] += _ahead_in(
                index,
                vectors[:, part],
                of_users[:, part],
                own[:, part],
                item,
                row_of_excluded,
                item_of_excluded,
                k,
            )
    ranks = np.minimum(ahead, k) + 1
    for number, part in enumerate(parts):
        nothing = ~(of_users[:, part].any(axis=1) & own[:, part].any(axis=1))
        ranks[number, nothing] = k + 1
    content = as_bytes(ranks.T.astype(np.int16))
    yield pa.record_batch([table["held"].combine_chunks(), content], names=["held", "ranks"])


def _ahead_in(
    index: NDArray[np.int32],
    vectors: NDArray[np.float32],
    users: NDArray[np.float32],
    own: NDArray[np.float32],
    items: NDArray[np.int32],
    row_of_excluded: NDArray[np.int64],
    item_of_excluded: NDArray[np.int32],
    k: int,
) -> NDArray[np.int64]:
    """(n,) how many of these items come before each row's own item, counted until k at least.

    Args:
        index: (n_items,) of these items, ascending.
        vectors: (n_items, factors) of them.
        users: (n, factors).
        own: (n, factors) of each row's own item.
        items: (n,) index of the own item.
        row_of_excluded: (n_excluded,) ascending.
        item_of_excluded: (n_excluded,) index of the item.
        k: where the list ends.
    """
    longest_first = LongestFirst.of(np.ascontiguousarray(vectors))
    longest_first = longest_first._replace(items=index[longest_first.items])
    ahead = np.empty(len(items), dtype=np.int64)
    for first in range(0, len(items), USERS_PER_BLOCK):
        block = slice(first, first + USERS_PER_BLOCK)
        begin, end = np.searchsorted(row_of_excluded, (first, first + len(items[block])))
        rows = np.concatenate([row_of_excluded[begin:end] - first, np.arange(len(items[block]))])
        others = np.concatenate([item_of_excluded[begin:end], items[block]])
        places = np.searchsorted(index, others)
        here = places < len(index)
        here[here] = index[places[here]] == others[here]
        places = np.where(here, longest_first.place[np.minimum(places, len(index) - 1)], NOTHING)
        by_place = np.argsort(places, kind="stable")
        by_place = by_place[places[by_place] != NOTHING]
        ahead[block] = count_ahead(
            np.ascontiguousarray(users[block]),
            np.ascontiguousarray(own[block]),
            items[block],
            longest_first,
            (rows[by_place], places[by_place]),
            k,
        )
    return ahead
