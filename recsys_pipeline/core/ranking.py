"""At which rank a model puts a held-out item, and which items it puts first.

One rule orders the items of a user everywhere, in search, evaluation and recommendations: the higher score
first, among equal scores the lower item index. Excluded items, and items whose score is minus infinity, are
not in the order at all.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from recsys_pipeline.core.pattern import Pattern

# Scores of every item for these users: (n,) user indexes to (n, n_items) float32; minus infinity is never
# recommended.
Scorer = Callable[[NDArray[np.int32]], NDArray[np.float32]]

# The best lists of these users, at most k items each, none that is excluded: see `best_lists`.
Lister = Callable[[NDArray[np.int32], Pattern, int], NDArray[np.int32]]

NOTHING = -1
DIVERGED = "the factors hold NaN or infinity: the fit diverged"


class CategoryLimit(NamedTuple):
    """How many items of a category a list may have.

    Attributes:
        categories: (n_items,) int32, -1 for an item of none; not read without a limit.
        most: at most so many; 0 is no limit.
    """

    categories: NDArray[np.int32]
    most: int


NO_ITEMS = np.empty(0, dtype=np.int32)
NO_LIMIT = CategoryLimit(NO_ITEMS, 0)
USERS_PER_BLOCK = 1024
_ITEMS_PER_BLOCK = 512
# By how much a float32 score may exceed the product of the norms; generous.
_ROUNDING = 1e-4
SCORES_AT_ONCE = 1 << 24


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
            raise FloatingPointError(DIVERGED)

    def lister(self) -> Lister:
        """See `best_by_factors`."""
        return partial(best_by_factors, self)

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
    longest_first = LongestFirst.of(factors.items)
    ranks = np.empty(len(users), dtype=np.int64)
    for start in range(0, len(users), USERS_PER_BLOCK):
        block = slice(start, start + USERS_PER_BLOCK)
        ahead = count_ahead(
            factors.users[users[block]],
            factors.items[items[block]],
            items[block],
            longest_first,
            _not_rivals(exclusions, users[block], items[block], longest_first.place),
            k,
        )
        ranks[block] = np.minimum(ahead, k) + 1
    return ranks


class LongestFirst(NamedTuple):
    """The items by the length of their factors, descending.

    Attributes:
        factors: those of items without any, which are not recommended, are left out.
        norms: lengths of the factors.
        items: item indexes.
        place: of each item index, NOTHING for an item that is left out.
    """

    factors: NDArray[np.float32]
    norms: NDArray[np.float32]
    items: NDArray[np.int32]
    place: NDArray[np.int64]

    @classmethod
    def of(cls, items: NDArray[np.float32], allowed: NDArray[np.bool_] | None = None) -> Self:
        """Of (n_items, factors); where `allowed` (n_items,) is given and false, an item is left out."""
        norms = np.linalg.norm(items, axis=1)
        kept = norms > 0 if allowed is None else (norms > 0) & allowed
        order = np.argsort(-norms, kind="stable")
        order = order[kept[order]]
        place = np.full(len(norms), NOTHING, dtype=np.int64)
        place[order] = np.arange(len(order))
        return cls(items[order], norms[order], order.astype(np.int32), place)


def _not_rivals(
    exclusions: Pattern, users: NDArray[np.int32], items: NDArray[np.int32], place: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and places of what is not ahead of anything, sorted by place: excluded items, the item itself."""
    rows, positions = exclusions.interactions_of(users)
    rows = np.concatenate([rows, np.arange(len(items))])
    places = place[np.concatenate([exclusions.indices[positions], items])]
    by_place = np.argsort(places, kind="stable")
    by_place = by_place[places[by_place] != NOTHING]
    return rows[by_place], places[by_place]


def _scores_of_block(
    vectors: NDArray[np.float32],
    active: NDArray[np.int64],
    items: LongestFirst,
    block: slice,
    not_rivals: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> NDArray[np.float32]:
    """(n_active, block) scores of the items at these places; minus infinity for what is no rival."""
    scores: NDArray[np.float32] = vectors[active] @ items.factors[block].T
    rows, places = not_rivals
    row_in_active = np.full(len(vectors), NOTHING, dtype=np.int64)
    row_in_active[active] = np.arange(len(active))
    begin, end = np.searchsorted(places, (block.start, block.stop))
    row = row_in_active[rows[begin:end]]
    still_active = row != NOTHING
    scores[row[still_active], places[begin:end][still_active] - block.start] = -np.inf
    return scores


def count_ahead(
    vectors: NDArray[np.float32],
    own_factors: NDArray[np.float32],
    own_items: NDArray[np.int32],
    items: LongestFirst,
    not_rivals: tuple[NDArray[np.int64], NDArray[np.int64]],
    k: int,
) -> NDArray[np.int64]:
    """How many items come before each row's own item; counted until k."""
    own, own_norms = _scores_of_pairs(vectors, own_factors), np.linalg.norm(own_factors, axis=1)
    lengths = np.linalg.norm(vectors, axis=1)
    # A product of matrices rounds each score in its own way. What lies nearer than that is scored again, as
    # the own item was, so that equal factors have equal scores.
    rounding = np.finfo(np.float32).eps * vectors.shape[1] * lengths
    reach = lengths * (1 + _ROUNDING)
    ahead = np.zeros(len(vectors), dtype=np.int64)
    active = np.arange(len(vectors))
    for first in range(0, len(items.factors), _ITEMS_PER_BLOCK):
        active = active[(reach[active] * items.norms[first] >= own[active]) & (ahead[active] < k)]
        if not len(active):
            break
        block = slice(first, first + _ITEMS_PER_BLOCK)
        scores = _scores_of_block(vectors, active, items, block, not_rivals)
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
    return scored_lists(scorer, users, exclusions, k)[0]


def scored_lists(
    scorer: Scorer,
    users: NDArray[np.int32],
    exclusions: Pattern,
    k: int,
    *,
    barred: NDArray[np.int32] = NO_ITEMS,
    limit: CategoryLimit = NO_LIMIT,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """As `best_lists`, without the items that are `barred`, within the limit, and with the scores.

    Returns:
        (n, k) item indexes and their scores; NOTHING and 0 where a list ends early.
    """
    from recsys_pipeline.core.selection import select_dense  # numba: half a second that not everybody needs

    lists = np.full((len(users), k), NOTHING, dtype=np.int32)
    of_lists = np.zeros((len(users), k), dtype=np.float32)
    at_once = max(1, SCORES_AT_ONCE // exclusions.n_items)
    excluded = exclusions.indptr, exclusions.indices
    for first in range(0, len(users), at_once):
        block = slice(first, first + at_once)
        scores = np.ascontiguousarray(scorer(users[block]), dtype=np.float32)
        select_dense(scores, users[block], *excluded, barred, lists[block], *limit)
        listed = lists[block] != NOTHING
        of_lists[block][listed] = scores[np.nonzero(listed)[0], lists[block][listed]]
    return lists, of_lists


def best_by_factors(
    factors: Factors, users: NDArray[np.int32], exclusions: Pattern, k: int
) -> NDArray[np.int32]:
    """As `best_lists` by the products of the factors, up to rounding, without scoring every item."""
    return scored_by_factors(factors.users, LongestFirst.of(factors.items), users, exclusions, k)[0]


def scored_by_factors(
    user_factors: NDArray[np.float32],
    longest_first: LongestFirst,
    users: NDArray[np.int32],
    exclusions: Pattern,
    k: int,
    *,
    limit: CategoryLimit = NO_LIMIT,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """As `scored_lists` by the products of the factors, up to rounding, without scoring every item.

    Long factors first: by Cauchy-Schwarz no later item can enter a list once the product of the norms is
    below its last score.
    """
    from recsys_pipeline.core.selection import select_more

    lists = np.full((len(users), k), NOTHING, dtype=np.int32)
    scores_of_lists = np.full((len(users), k), -np.inf, dtype=np.float32)
    for start in range(0, len(users), USERS_PER_BLOCK):
        block = slice(start, start + USERS_PER_BLOCK)
        vectors = user_factors[users[block]]
        best = scores_of_lists[block]
        excluded = _not_rivals(exclusions, users[block], NO_ITEMS, longest_first.place)
        reach = np.linalg.norm(vectors, axis=1) * (1 + _ROUNDING)
        active = np.flatnonzero(reach)
        for of_items in _growing_blocks(len(longest_first.items), len(vectors)):
            active = active[reach[active] * longest_first.norms[of_items.start] >= best[active, -1]]
            if not len(active):
                break
            scores = _scores_of_block(vectors, active, longest_first, of_items, excluded)
            select_more(scores, active, longest_first.items[of_items], best, lists[block], *limit)
    scores_of_lists[lists == NOTHING] = 0
    return lists, scores_of_lists


def _growing_blocks(n_items: int, n_users: int) -> Iterator[slice]:
    """Blocks of items, ever larger for few users: for one of them a block is worth little beside a call."""
    first, size = 0, _ITEMS_PER_BLOCK
    while first < n_items:
        yield slice(first, first + size)
        first += size
        if 2 * size * n_users <= USERS_PER_BLOCK * _ITEMS_PER_BLOCK:
            size *= 2


def lists_by(scorer: Scorer) -> Lister:
    """The lists of the best scores of all items."""
    return partial(best_lists, scorer)


def ranks_in_lists(
    lists: NDArray[np.int32], row: NDArray[np.int64], items: NDArray[np.int32]
) -> NDArray[np.int64]:
    """(n,) the 1-based rank of each item in the list of its row; k + 1 where it is not listed."""
    k = lists.shape[1]
    found = (lists[row] == items[:, None]) & (items[:, None] >= 0)
    ranks: NDArray[np.int64] = np.where(found.any(axis=1), found.argmax(axis=1), k) + 1
    return ranks
