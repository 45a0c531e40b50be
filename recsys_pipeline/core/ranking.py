"""At which rank a model puts a held-out item, and which items it puts first.

One rule orders the items of a user everywhere, in search, evaluation and recommendations: the higher score
first, among equal scores the lower item index. Excluded items, and items whose score is minus infinity, are
not in the order at all.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_pipeline.core.pattern import Pattern

# Scores of every item for these users: (n,) user indexes to (n, n_items) float32; minus infinity is never
# recommended.
Scorer = Callable[[NDArray[np.int32]], NDArray[np.float32]]

NOTHING = -1
_USERS_PER_BLOCK = 1024
_ITEMS_PER_BLOCK = 512
# By how much a float32 score may exceed the product of the norms; generous.
_ROUNDING = 1e-4
_SCORES_AT_ONCE = 1 << 24
_CHUNK = 64


class Factors(NamedTuple):
    """A trained factor model.

    Attributes:
        users: (n_users, factors) float32.
        items: (n_items, factors) float32.
    """

    users: NDArray[np.float32]
    items: NDArray[np.float32]

    def require_finite(self) -> None:
        """Refuse the factors of a fit that diverged.

        Raises:
            FloatingPointError: a factor is NaN or infinite.
        """
        if not (np.isfinite(self.users).all() and np.isfinite(self.items).all()):
            raise FloatingPointError("the factors hold NaN or infinity: the fit diverged")

    def scorer(self) -> Scorer:
        """Products of the factors; nothing to a user, nor of an item, whose factors are all 0."""
        unknown_items = ~self.items.any(axis=1)

        def scores_of(users: NDArray[np.int32]) -> NDArray[np.float32]:
            scores: NDArray[np.float32] = self.users[users] @ self.items.T
            scores[:, unknown_items] = -np.inf
            scores[~self.users[users].any(axis=1)] = -np.inf
            return scores

        return scores_of


def held_out_ranks(
    factors: Factors,
    exclusions: Pattern,
    users: NDArray[np.int32],
    items: NDArray[np.int32],
    *,
    k: int,
) -> NDArray[np.int64]:
    """The 1-based rank of each held-out item among the items that are not excluded for its user.

    Equal to the place of the item in `implicit`'s `recommend(N=k, filter_already_liked_items=True)`, but for
    equal scores, which `implicit` orders by the way its heap works. Users are scored in blocks against blocks
    of items, long factors first: by Cauchy-Schwarz no later item can beat the held-out one once the product
    of the norms is below its score. Memory is bounded by the block, whatever the number of users and items.
    Nothing is recommended to a user or of an item that the model does not know, nor to a user or of an item
    whose factors are all 0.

    Args:
        factors: of the model.
        exclusions: the interactions that exclude their item from recommendation.
        users: (n,) user index of each held-out interaction; from n_users on for a user who is not known.
        items: (n,) its item index, not excluded for its user; -1 for an item that is not known.
        k: where the list ends.

    Returns:
        (n,) ranks; k + 1 stands for "not among the first k".

    Raises:
        FloatingPointError: a factor is NaN or infinite, so that nothing can be ranked.
    """
    factors.require_finite()
    known = (users < len(factors.users)) & (items >= 0)
    known[known] = factors.users[users[known]].any(axis=1) & factors.items[items[known]].any(axis=1)
    if not known.all():
        ranks = np.full(len(users), k + 1, dtype=np.int64)
        ranks[known] = held_out_ranks(factors, exclusions, users[known], items[known], k=k)
        return ranks
    norms = np.linalg.norm(factors.items, axis=1)
    order = np.argsort(-norms, kind="stable")
    # Items without factors are not recommended.
    order = order[: np.count_nonzero(norms > 0)]
    longest_first = _LongestFirst(np.ascontiguousarray(factors.items[order]), norms[order], order)
    place = np.full(len(norms), NOTHING, dtype=np.int64)
    place[order] = np.arange(len(order))

    ranks = np.empty(len(users), dtype=np.int64)
    for start in range(0, len(users), _USERS_PER_BLOCK):
        block = slice(start, start + _USERS_PER_BLOCK)
        ahead = _count_ahead(
            factors.users[users[block]],
            factors.items[items[block]],
            items[block],
            longest_first,
            _not_rivals(exclusions, users[block], items[block], place),
            k,
        )
        ranks[block] = np.minimum(ahead, k) + 1
    return ranks


class _LongestFirst(NamedTuple):
    """The items by the length of their factors, descending: factors, lengths, item indexes."""

    factors: NDArray[np.float32]
    norms: NDArray[np.float32]
    items: NDArray[np.int64]


def _not_rivals(
    exclusions: Pattern, users: NDArray[np.int32], items: NDArray[np.int32], place: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and places of what is not ahead of anything, sorted by place: excluded items, the item itself."""
    rows, positions = exclusions.interactions_of(users)
    rows = np.concatenate([rows, np.arange(len(users))])
    places = place[np.concatenate([exclusions.indices[positions], items])]
    by_place = np.argsort(places, kind="stable")
    by_place = by_place[places[by_place] != NOTHING]
    return rows[by_place], places[by_place]


def _count_ahead(
    vectors: NDArray[np.float32],
    own_factors: NDArray[np.float32],
    own_items: NDArray[np.int32],
    items: _LongestFirst,
    not_rivals: tuple[NDArray[np.int64], NDArray[np.int64]],
    k: int,
) -> NDArray[np.int64]:
    """How many items come before each row's own item; counted until k."""
    not_rival_rows, not_rival_places = not_rivals
    own, own_norms = _scores_of_pairs(vectors, own_factors), np.linalg.norm(own_factors, axis=1)
    lengths = np.linalg.norm(vectors, axis=1)
    # A product of matrices rounds each score in its own way. What lies nearer than that is scored again, as
    # the own item was, so that equal factors have equal scores.
    rounding = np.finfo(np.float32).eps * vectors.shape[1] * lengths
    reach = lengths * (1 + _ROUNDING)
    ahead = np.zeros(len(vectors), dtype=np.int64)
    row_in_active = np.empty(len(vectors), dtype=np.int64)
    active = np.arange(len(vectors))
    for first in range(0, len(items.factors), _ITEMS_PER_BLOCK):
        active = active[(reach[active] * items.norms[first] >= own[active]) & (ahead[active] < k)]
        if not len(active):
            break
        scores = vectors[active] @ items.factors[first : first + _ITEMS_PER_BLOCK].T

        row_in_active.fill(-1)
        row_in_active[active] = np.arange(len(active))
        begin, end = np.searchsorted(not_rival_places, (first, first + _ITEMS_PER_BLOCK))
        row = row_in_active[not_rival_rows[begin:end]]
        still_active = row >= 0
        scores[row[still_active], not_rival_places[begin:end][still_active] - first] = -np.inf

        near = (rounding * np.maximum(own_norms, items.norms[first])).astype(np.float32)
        above, below = (own + near)[active, None], (own - near)[active, None]
        surely = np.count_nonzero(scores > above, axis=1)
        perhaps = np.count_nonzero(scores >= below, axis=1)
        ahead[active] += surely
        unsure = np.flatnonzero(perhaps > surely)
        if len(unsure):
            rows, places = np.nonzero((scores[unsure] >= below[unsure]) & (scores[unsure] <= above[unsure]))
            rows, places = active[unsure[rows]], first + places
            rival = _scores_of_pairs(vectors[rows], items.factors[places])
            equal_and_lower = (rival == own[rows]) & (items.items[places] < own_items[rows])
            first_of_two = rows[(rival > own[rows]) | equal_and_lower]
            ahead += np.bincount(first_of_two, minlength=len(ahead))
    return ahead


def _scores_of_pairs(users: NDArray[np.float32], items: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n,) product of each row of `users` with the same row of `items`, whatever the other rows."""
    scores: NDArray[np.float32] = np.einsum("uf,uf->u", users, items)
    return scores


def best_lists(scorer: Scorer, users: NDArray[np.int32], exclusions: Pattern, k: int) -> NDArray[np.int32]:
    """The k best items of each user that are not excluded, best first; among equals the lower index first.

    Args:
        scorer: of the items.
        users: (n,) user index.
        exclusions: the interactions that exclude their item.
        k: length of the lists.

    Returns:
        (n, k) item indexes; NOTHING where a list ends early.
    """
    lists = np.full((len(users), k), NOTHING, dtype=np.int32)
    at_once = max(1, _SCORES_AT_ONCE // exclusions.n_items)
    length = min(k, exclusions.n_items)
    for first in range(0, len(users), at_once):
        block = users[first : first + at_once]
        scores = scorer(block)
        rows, positions = exclusions.interactions_of(block)
        scores[rows, exclusions.indices[positions]] = -np.inf
        best = _best(scores, length)
        nothing = np.isneginf(np.take_along_axis(scores, best, axis=1))
        lists[first : first + at_once, :length] = np.where(nothing, NOTHING, best)
    return lists


def _best(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """(n, k) places of the k largest scores of each row, largest first, among equals the first.

    The k best lie within the k chunks of the largest maxima: far less to sort, and, unlike a partition of
    whole rows, no slower where most scores are equal.
    """
    n, n_items = scores.shape
    n_chunks = n_items // _CHUNK
    rest = np.broadcast_to(np.arange(n_chunks * _CHUNK, n_items), (n, n_items - n_chunks * _CHUNK))
    chunks = scores[:, : n_chunks * _CHUNK].reshape(n, n_chunks, _CHUNK)
    chosen = np.sort(np.argsort(-chunks.max(axis=2), axis=1, kind="stable")[:, :k], axis=1)
    within = (chosen[:, :, None] * _CHUNK + np.arange(_CHUNK)).reshape(n, -1)
    places = np.concatenate([within, rest], axis=1)
    order = np.argsort(-np.take_along_axis(scores, places, axis=1), axis=1, kind="stable")[:, :k]
    return np.take_along_axis(places, order, axis=1)


def ranks_in_lists(
    lists: NDArray[np.int32], row: NDArray[np.int64], items: NDArray[np.int32]
) -> NDArray[np.int64]:
    """(n,) the 1-based rank of each item in the list of its row; k + 1 where it is not listed."""
    k = lists.shape[1]
    found = (lists[row] == items[:, None]) & (items[:, None] >= 0)
    ranks: NDArray[np.int64] = np.where(found.any(axis=1), found.argmax(axis=1), k) + 1
    return ranks
