"""Raw ids to matrix indexes and back."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_ROWS_AT_ONCE = 1 << 24


def index_ids(raw_ids: pa.ChunkedArray) -> tuple[pa.Array, NDArray[np.int32]]:
    """The sorted distinct ids, and for each row of `raw_ids` its place among them.

    Integers sort by value, strings by code point; both keep their type.

    Args:
        raw_ids: (n,) 64-bit integers or strings without nulls.

    Returns:
        ids: (n_distinct,), `ids[i]` is the raw id of index i.
        index: (n,) int32.
    """
    distinct = pc.unique(raw_ids)
    ids = distinct.take(pc.sort_indices(distinct))
    index = np.empty(len(raw_ids), dtype=np.int32)
    # Some at a time: a look-up makes a hash table of all ids, and in one piece what it gives is there twice.
    for first in range(0, len(raw_ids), _ROWS_AT_ONCE):
        some = raw_ids.slice(first, _ROWS_AT_ONCE)
        index[first : first + len(some)] = pc.index_in(some, value_set=ids).to_numpy()
    return ids, index
