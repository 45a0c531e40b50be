"""Raw ids to matrix indexes and back."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


def index_ids(raw_ids: pa.ChunkedArray) -> tuple[pa.Array, NDArray[np.int32]]:
    """The sorted distinct ids, and for each row of `raw_ids` its place among them.

    Integers sort by value, strings by code point; both keep their type.

    Args:
        raw_ids: (n,) 64-bit integers or strings without nulls.

    Returns:
        ids: (n_distinct,), `ids[i]` is the raw id of index i.
        index: (n,) int32.
    """
    # Chunk by chunk: in one piece they would be there twice.
    encoded = raw_ids.dictionary_encode().unify_dictionaries()
    distinct = encoded.chunk(0).dictionary if encoded.num_chunks else pa.array([], raw_ids.type)
    order = pc.sort_indices(distinct)
    rank = np.empty(len(order), dtype=np.int32)
    rank[order.to_numpy()] = np.arange(len(order), dtype=np.int32)
    index = np.empty(len(raw_ids), dtype=np.int32)
    first = 0
    for chunk in encoded.chunks:
        index[first : first + len(chunk)] = rank[chunk.indices.to_numpy()]
        first += len(chunk)
    return distinct.take(order), index
