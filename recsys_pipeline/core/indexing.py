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
    encoded = raw_ids.combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):  # combine_chunks keeps several chunks of huge strings
        encoded = encoded.unify_dictionaries().combine_chunks()
    order = pc.sort_indices(encoded.dictionary)
    rank = np.empty(len(order), dtype=np.int32)
    rank[order.to_numpy()] = np.arange(len(order), dtype=np.int32)
    return encoded.dictionary.take(order), rank[encoded.indices.to_numpy()]
