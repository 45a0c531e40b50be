"""Factor tables: a row a user or item, the raw id beside its factors."""

from typing import NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

FACTORS = "factors"

# A table, or a stream of its rows, which can be read once.
Rows: TypeAlias = pa.Table | pa.RecordBatchReader


class FactorTables(NamedTuple):
    """A trained model.

    Attributes:
        users: UserID and factors (a list of float32), a row a user.
        items: ProductCode and factors, a row an item.
        fit_seconds: wall time of the training.
    """

    users: Rows
    items: Rows
    fit_seconds: float


def factor_table(id_name: str, ids: pa.Array, factors: NDArray[np.float32]) -> pa.Table:
    """The table of these ids and their (n, width) factors."""
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(factors.ravel()), factors.shape[1])
    return pa.table({id_name: ids, FACTORS: vectors})


def factors_in(table: pa.Table) -> NDArray[np.float32]:
    """(n, width) the factors of a table, as Arrow lends them: not to be written to."""
    vectors = table[FACTORS].combine_chunks()
    factors: NDArray[np.float32] = vectors.values.to_numpy().reshape(-1, vectors.type.list_size)
    return factors
