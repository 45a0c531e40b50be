"""Which user touched which item: the part of the matrix that no trial changes."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


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
        n_users, n_items = shape
        same_user = user_index[1:] == user_index[:-1]
        ascending = (user_index[1:] > user_index[:-1]) | (same_user & (item_index[1:] > item_index[:-1]))
        if not ascending.all():
            raise ValueError("interactions must be sorted by user, then item, and be distinct")
        # implicit reads 32-bit row pointers; they suffice for 2 thousand million interactions.
        width = np.dtype(np.int32 if len(item_index) < 2**31 else np.int64)
        indptr = np.searchsorted(user_index, np.arange(n_users + 1, dtype=np.int32))
        return cls(indptr.astype(width), item_index, n_items)

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
        # Imported here: it takes a while, and who only describes interactions needs it not.
        from scipy.sparse import csr_matrix

        data = np.ascontiguousarray(weights, dtype=np.float32)
        return csr_matrix((data, self.indices, self.indptr), shape=self.shape, copy=False)

    def select(self, kept: NDArray[np.bool_]) -> "Pattern":
        """The pattern of the interactions where `kept` (n_interactions,) is true."""
        indptr = np.zeros_like(self.indptr)
        np.cumsum(np.bincount(self.user_of_interaction[kept], minlength=self.n_users), out=indptr[1:])
        return Pattern(indptr, self.indices[kept], self.n_items)

    def interactions_of(self, users: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Of all interactions of these users: the user's place among `users`, and the position."""
        counts = self.interactions_per_user[users]
        rows = np.repeat(np.arange(len(users)), counts)
        begins = self.indptr[users].astype(np.int64) - (np.cumsum(counts) - counts)
        return rows, np.arange(len(rows)) + np.repeat(begins, counts)

    def positions_of(self, user_index: NDArray[np.int32], item_index: NDArray[np.int32]) -> NDArray[np.int64]:
        """Where the given interactions stand in this pattern; -1 for one that it does not have."""
        keys = self.user_of_interaction.astype(np.int64) * self.n_items + self.indices
        wanted = user_index.astype(np.int64) * self.n_items + item_index
        found = np.minimum(np.searchsorted(keys, wanted), max(len(keys) - 1, 0))
        if not len(keys):
            return np.full(len(wanted), -1)
        return np.where(keys[found] == wanted, found, -1)
