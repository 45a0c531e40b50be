"""At which rank a model puts the held-out item, without ranking everything."""

import numpy as np
from numpy.typing import NDArray

from recsys_pipeline.core.pattern import Pattern

_USERS_PER_BLOCK = 1024
_ITEMS_PER_BLOCK = 512
# By how much a float32 score may exceed the product of the norms; generous.
_ROUNDING = 1e-4


def require_finite(user_factors: NDArray[np.float32], item_factors: NDArray[np.float32]) -> None:
    """Refuse the factors of a fit that diverged.

    Raises:
        FloatingPointError: a factor is NaN or infinite.
    """
    if not (np.isfinite(user_factors).all() and np.isfinite(item_factors).all()):
        raise FloatingPointError("the factors hold NaN or infinity: the fit diverged")


def held_out_ranks(
    user_factors: NDArray[np.float32],
    item_factors: NDArray[np.float32],
    seen: Pattern,
    users: NDArray[np.int32],
    items: NDArray[np.int32],
    *,
    k: int,
) -> NDArray[np.int64]:
    """The 1-based rank of each held-out item among the items that are not hidden from the user.

    Equal to the place of the item in `implicit`'s `recommend(N=k, filter_already_liked_items=True)`,
    equal scores included. Users are scored in blocks against blocks of items, long factors first: by
    Cauchy-Schwarz no later item can beat the held-out one once the product of the norms is below its
    score. Memory is bounded by the block, whatever the number of users and items. Nothing is recommended
    to a user or of an item that the model does not know, nor to a user whose factors are all 0.

    Args:
        user_factors: (n_users, factors).
        item_factors: (n_items, factors).
        seen: the pairs that hide their item from recommendation.
        users: (n,) user index of each held-out pair; from n_users on for a user who is not known.
        items: (n,) item index of each held-out pair, not hidden from its user; -1 for one that is not known.
        k: where the list ends.

    Returns:
        (n,) ranks; k + 1 stands for "not among the first k".

    Raises:
        FloatingPointError: a factor is NaN or infinite, so that nothing can be ranked.
    """
    require_finite(user_factors, item_factors)
    known = (users < len(user_factors)) & (items >= 0)
    known[known] = user_factors[users[known]].any(axis=1)
    if not known.all():
        ranks = np.full(len(users), k + 1, dtype=np.int64)
        ranks[known] = held_out_ranks(user_factors, item_factors, seen, users[known], items[known], k=k)
        return ranks
    norms = np.linalg.norm(item_factors, axis=1)
    order = np.argsort(-norms, kind="stable")
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    longest_first = np.ascontiguousarray(item_factors[order])

    ranks = np.empty(len(users), dtype=np.int64)
    for start in range(0, len(users), _USERS_PER_BLOCK):
        block = slice(start, start + _USERS_PER_BLOCK)
        vectors = user_factors[users[block]]
        scores = np.einsum("uf,uf->u", vectors, item_factors[items[block]])
        greater, tied = _count_rivals(
            vectors,
            scores,
            longest_first,
            norms[order],
            _hidden(seen, users[block], items[block], place),
            k,
        )
        ranks[block] = np.minimum(greater, k) + 1
        for position in start + np.flatnonzero(tied & (greater < k)):
            user, item = users[position], items[position]
            hidden = seen.indices[seen.indptr[user] : seen.indptr[user + 1]]
            ranks[position] = _rank_among_ties(item_factors @ user_factors[user], hidden, item, k)
    return ranks


def _hidden(
    seen: Pattern, users: NDArray[np.int32], items: NDArray[np.int32], place: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and places of what must not count as a rival, sorted by place: hidden items, the item itself."""
    rows, positions = seen.pairs_of(users)
    hidden = seen.indices[positions]
    rows = np.concatenate([rows, np.arange(len(users))])
    places = place[np.concatenate([hidden, items])]
    by_place = np.argsort(places, kind="stable")
    return rows[by_place], places[by_place]


def _count_rivals(
    vectors: NDArray[np.float32],
    scores: NDArray[np.float32],
    longest_first: NDArray[np.float32],
    norms: NDArray[np.float32],
    hidden: tuple[NDArray[np.int64], NDArray[np.int64]],
    k: int,
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """How many items beat each row's score (counted until k), and whether one equals it."""
    n_rows, n_items = len(vectors), len(longest_first)
    hidden_rows, hidden_places = hidden
    greater = np.zeros(n_rows, dtype=np.int64)
    tied = np.zeros(n_rows, dtype=bool)
    reach = np.linalg.norm(vectors, axis=1) * (1 + _ROUNDING)
    row_in_active = np.empty(n_rows, dtype=np.int64)
    active = np.arange(n_rows)
    for first in range(0, n_items, _ITEMS_PER_BLOCK):
        active = active[(reach[active] * norms[first] >= scores[active]) & (greater[active] < k)]
        if not len(active):
            break
        block_scores = vectors[active] @ longest_first[first : first + _ITEMS_PER_BLOCK].T

        row_in_active.fill(-1)
        row_in_active[active] = np.arange(len(active))
        near, far = np.searchsorted(hidden_places, (first, first + _ITEMS_PER_BLOCK))
        hidden_row = row_in_active[hidden_rows[near:far]]
        still_active = hidden_row >= 0
        block_scores[hidden_row[still_active], hidden_places[near:far][still_active] - first] = -np.inf

        own = scores[active, None]
        greater[active] += np.count_nonzero(block_scores > own, axis=1)
        tied[active] |= (block_scores == own).any(axis=1)
    return greater, tied


def _rank_among_ties(scores: NDArray[np.float32], hidden: NDArray[np.int32], item: np.int32, k: int) -> int:
    """The rank `implicit`'s selection of the k best gives `item` when other items score the same.

    It reads the items in order of their index and keeps k: a later item enters only by a higher score,
    and pushes out the lowest score, among equal ones the lowest index. The kept are then sorted by score
    and index, both descending. So the first k items that score at least as much as `item` are what
    remains to choose from among equals, and of those the last ones stay.
    """
    scores[hidden] = -np.inf
    own = scores[item]
    greater = int(np.count_nonzero(scores > own))
    entered = np.flatnonzero(scores >= own)[:k]
    if item not in entered:
        return k + 1
    later_equals = int(np.count_nonzero(scores[entered[entered > item]] == own))
    return min(greater + later_equals, k) + 1
