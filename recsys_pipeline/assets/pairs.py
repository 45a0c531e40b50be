"""The tables of `bm25_matrix` and the arrays that the arithmetic works on."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys_pipeline.core.columns import (
    ITEM,
    ITEM_INDEX,
    STRENGTH,
    TIMESTAMP,
    USER,
    USER_INDEX,
    WEIGHT,
)
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.indexing import index_ids
from recsys_pipeline.core.pattern import Pattern

Tables = dict[str, pa.Table]


@dataclass(frozen=True)
class Pairs:
    """All pairs with what is known of them.

    Attributes:
        users: raw id of each row.
        items: raw id of each column.
        pattern: which user touched which item.
        strengths: (n_pairs,) float64.
        timestamps: (n_pairs,) microseconds since 1970, or None.
    """

    users: pa.Array
    items: pa.Array
    pattern: Pattern
    strengths: NDArray[np.float64]
    timestamps: NDArray[np.int64] | None

    @classmethod
    def from_strengths(cls, feedback_strengths: pa.Table) -> Self:
        """Index the ids of `feedback_strengths`."""
        users, user_index = index_ids(feedback_strengths[USER])
        items, item_index = index_ids(feedback_strengths[ITEM])
        return cls._from_columns(feedback_strengths, users, items, user_index, item_index)

    @classmethod
    def from_tables(cls, tables: Tables) -> Self:
        """Read the tables of `bm25_matrix`."""
        pairs = tables["pairs"]
        return cls._from_columns(
            pairs,
            tables["users"][USER].combine_chunks(),
            tables["items"][ITEM].combine_chunks(),
            pairs[USER_INDEX].to_numpy(),
            pairs[ITEM_INDEX].to_numpy(),
        )

    @classmethod
    def _from_columns(
        cls,
        table: pa.Table,
        users: pa.Array,
        items: pa.Array,
        user_index: NDArray[np.int32],
        item_index: NDArray[np.int32],
    ) -> Self:
        timestamps = None
        if TIMESTAMP in table.schema.names:
            timestamps = table[TIMESTAMP].cast(pa.int64()).to_numpy()
        pattern = Pattern.from_coordinates(user_index, item_index, (len(users), len(items)))
        return cls(users, items, pattern, table[STRENGTH].to_numpy(), timestamps)

    def to_tables(self, weights: NDArray[np.float64]) -> Tables:
        """The tables of `bm25_matrix`: pairs, users, items."""
        columns = {
            USER_INDEX: self.pattern.user_of_pair,
            ITEM_INDEX: self.pattern.indices,
            STRENGTH: self.strengths,
            WEIGHT: weights,
        }
        if self.timestamps is not None:
            columns[TIMESTAMP] = pa.array(self.timestamps).cast(pa.timestamp("us", tz="UTC"))
        n_users, n_items = self.pattern.shape
        return {
            "pairs": pa.table(columns),
            "users": pa.table({USER_INDEX: np.arange(n_users, dtype=np.int32), USER: self.users}),
            "items": pa.table({ITEM_INDEX: np.arange(n_items, dtype=np.int32), ITEM: self.items}),
        }

    def without_signal(self, weights: NDArray[np.float64]) -> pa.Array:
        """Raw ids of the users who have a weight at or below zero."""
        return self.users.take(pa.array(np.unique(self.pattern.user_of_pair[weights <= 0])))

    def require_no_dislikes(self, weights: NDArray[np.float64]) -> None:
        """Stop before ALS reads a weight at or below zero as "does not like".

        Raises:
            InputError: there is one; the message names the users and the cause.
        """
        if culprits := self.without_signal(weights).to_pylist():
            shown = ", ".join(str(user) for user in culprits[:5]) + (", ..." if len(culprits) > 5 else "")
            raise InputError(
                f"{np.count_nonzero(weights <= 0):,} BM25 weights are at or below zero, which ALS takes for "
                f"dislikes: {len(culprits):,} users touched all {self.pattern.n_items:,} items, or all but "
                f"one, so that the idf ln(items) - ln(1 + items touched) leaves nothing: {shown}. "
                "Leave such users out of the feedback (a crawler?), or bring more items."
            )
