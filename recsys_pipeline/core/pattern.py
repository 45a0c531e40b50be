"""Which user touched which item: the part of the matrix that no trial changes."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

# How many are computed with together, where a copy of all would take much memory.
INTERACTIONS_AT_ONCE = 1 << 22
_NOT_SORTED = "interactions must be sorted by user, then item, and be distinct"
# implicit reads 32-bit row pointers.
MOST_INTERACTIONS_OF_IMPLICIT = 2**31 - 1


def row_pointers(user_index: NDArray[np.int32], n_users: int) -> NDArray[np.signedinteger]:
    """(n_users + 1,) where each user's interactions begin; 32 bits where they suffice.

    Raises:
        ValueError: the users do not ascend.
    """
    indptr = np.zeros(n_users + 1, dtype=np.int64)
    last = 0
    for begin in range(0, len(user_index), INTERACTIONS_AT_ONCE):
        block = user_index[begin : begin + INTERACTIONS_AT_ONCE]
        first = int(block[0])
        if first < last or (block[1:] < block[:-1]).any():
            raise ValueError(_NOT_SORTED)
        last = int(block[-1])
        # Of the users of the block alone: there may be many more.
        indptr[first + 1 : last + 2] += np.bincount(block - first)
    np.cumsum(indptr, out=indptr)
    return indptr.astype(np.int32) if len(user_index) <= MOST_INTERACTIONS_OF_IMPLICIT else indptr


@dataclass(frozen=True)
class Pattern:
    """The structure of a CSR users x items matrix; weights come and go, one array a time.

    Attributes:
        indptr: (n_users + 1,), where each user's interactions begin.
        indices: (n_interactions,) int32, the item index of each interaction, ascending within a user.
        n_items: number of columns.
    """

    indptr: NDArray[np.signedinteger]
    indices: NDArray[np.int32]
    n_items: int

    @classmethod
    def from_coordinates(
        cls, user_index: NDArray[np.int32], item_index: NDArray[np.int32], shape: tuple[int, int]
    ) -> Self:
        """The pattern of interactions sorted by user, then item, without repeats.

        Raises:
            ValueError: the interactions are not strictly ascending.
        """
        pattern = cls(row_pointers(user_index, shape[0]), item_index, shape[1])
        pattern.require_ascending()
        return pattern

    def require_ascending(self) -> None:
        """Refuse interactions of a user that do not ascend.

        Raises:
            ValueError: they are not sorted by item, or repeat.
        """
        for first in range(0, max(self.n_interactions - 1, 0), INTERACTIONS_AT_ONCE):
            block = self.indices[first : first + INTERACTIONS_AT_ONCE + 1]
            falling = first + 1 + np.flatnonzero(block[1:] <= block[:-1])
            # It may fall where the next user begins.
            begins = self.indptr[np.minimum(np.searchsorted(self.indptr, falling), self.n_users)]
            if (begins != falling).any():
                raise ValueError(_NOT_SORTED)

    @classmethod
    def empty(cls, n_users: int, n_items: int) -> Self:
        """The pattern without interactions."""
        return cls(np.zeros(n_users + 1, dtype=np.int32), np.empty(0, dtype=np.int32), n_items)

    @property
    def n_users(self) -> int:
        """Number of rows."""
        return len(self.indptr) - 1

    @property
    def n_interactions(self) -> int:
        """Number of stored (user, item) interactions."""
        return len(self.indices)

    @property
    def shape(self) -> tuple[int, int]:
        """(users, items)."""
        return self.n_users, self.n_items

    @cached_property
    def interactions_per_user(self) -> NDArray[np.int64]:
        """(n_users,)."""
        return np.diff(self.indptr).astype(np.int64)

    @cached_property
    def user_of_interaction(self) -> NDArray[np.int32]:
        """(n_interactions,) the user index of each interaction."""
        return np.repeat(np.arange(self.n_users, dtype=np.int32), self.interactions_per_user)

    def user_items(self, weights: NDArray[np.floating]) -> "csr_matrix":
        """The users x items matrix with these float32 weights; shares the pattern's memory."""
        # Imported here: it takes a while, and whoever only describes interactions does not need it.
        from scipy.sparse import csr_matrix

        data = np.ascontiguousarray(weights, dtype=np.float32)
        return csr_matrix((data, self.indices, self.indptr), shape=self.shape, copy=False)

    def select(self, kept: NDArray[np.bool_]) -> "Pattern":
        """The pattern of the interactions where `kept` (n_interactions,) is true."""
        if kept.all():
            return self
        indptr = np.zeros_like(self.indptr)
        np.cumsum(self.per_user(kept), out=indptr[1:])
        return Pattern(indptr, self.indices[kept], self.n_items)

    def per_user(self, counted: NDArray[np.bool_]) -> NDArray[np.int64]:
        """(n_users,) for how many of each user's interactions `counted` (n_interactions,) is true."""
        before = np.zeros(self.n_interactions + 1, dtype=self.indptr.dtype)
        np.cumsum(counted, dtype=before.dtype, out=before[1:])
        counts: NDArray[np.int64] = np.diff(before[self.indptr]).astype(np.int64)
        return counts

    def users_at(self, positions: NDArray[np.integer]) -> NDArray[np.int32]:
        """(len(positions),) the user index of each of these interactions."""
        after: NDArray[np.int64] = np.searchsorted(self.indptr, positions, side="right")
        return (after - 1).astype(np.int32)

    def blocks(self) -> Iterator[tuple[slice, NDArray[np.int32]]]:
        """Consecutive interactions, some million at a time, and the user index of each.

        For what is computed of each interaction: no copy of the users of all of them.
        """
        for first in range(0, self.n_interactions, INTERACTIONS_AT_ONCE):
            end = min(first + INTERACTIONS_AT_ONCE, self.n_interactions)
            start, stop = np.searchsorted(self.indptr, [first, end], side="right") - 1
            stop = min(int(stop), self.n_users - 1)
            bounds = np.clip(self.indptr[start : stop + 2], first, end)
            yield slice(first, end), np.repeat(np.arange(start, stop + 1, dtype=np.int32), np.diff(bounds))

    def interactions_of(self, users: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Of all interactions of these users: the user's place among `users`, and the position."""
        counts = self.interactions_per_user[users]
        rows = np.repeat(np.arange(len(users)), counts)
        begins = self.indptr[users].astype(np.int64) - (np.cumsum(counts) - counts)
        return rows, np.arange(len(rows)) + np.repeat(begins, counts)

    def positions_of(self, user_index: NDArray[np.int32], item_index: NDArray[np.int32]) -> NDArray[np.int64]:
        """Where the given interactions stand in this pattern; -1 for one that it does not have."""
        positions = np.empty(len(user_index), dtype=np.int64)
        for first in range(0, len(user_index), INTERACTIONS_AT_ONCE):
            block = slice(first, first + INTERACTIONS_AT_ONCE)
            positions[block] = self._positions_of(user_index[block], item_index[block])
        return positions

    def _positions_of(
        self, user_index: NDArray[np.int32], item_index: NDArray[np.int32]
    ) -> NDArray[np.int64]:
        begin, end = (self.indptr[user_index + beyond].astype(np.int64) for beyond in (0, 1))
        # Bisection of the slice of each user, of all at once: as many rounds as the longest slice takes.
        low, high = begin, end
        while (open_ := low < high).any():
            middle = (low + high) >> 1
            less = np.zeros(len(low), dtype=bool)
            less[open_] = self.indices[middle[open_]] < item_index[open_]
            low = np.where(open_ & less, middle + 1, low)
            high = np.where(open_ & ~less, middle, high)
        found = low < end
        found[found] = self.indices[low[found]] == item_index[found]
        return np.where(found, low, -1)
