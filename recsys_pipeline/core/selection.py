"""The k best items of each user in one compiled pass over the scores; imported only where it is used.

The order is that of `ranking`: the higher score first, among equal scores the lower item index. Minus
infinity and NaN are never selected. Lists are (n, k) int32 and hold -1 where they end early.

At most `most` items of a category are listed, the best of them; 0 is no limit. `categories` are (n_items,)
int32, -1 for an item of none, and are not read where there is no limit.
"""

import numpy as np

from recsys_pipeline.core.compiled import compiled

# Scores that are looked at together, on vector instructions: is one of them worth a place? That takes a loop
# over a slice by places from 0 on, for numba to know that no index is negative.
_AT_ONCE = 64


@compiled()
def _insert(score, item, n, scores, items):  # type: ignore[no-untyped-def]
    """Put an item that is worth a place where it belongs, behind what equals it and has a lower index."""
    place = n
    while place > 0 and (
        scores[place - 1] < score or (scores[place - 1] == score and items[place - 1] > item)
    ):
        if place < len(items):
            scores[place] = scores[place - 1]
            items[place] = items[place - 1]
        place -= 1
    scores[place] = score
    items[place] = item


@compiled()
def _take(score, item, n, scores, items, categories, most):  # type: ignore[no-untyped-def]
    """Put an item where it belongs among the n that are listed, if its category has room for it.

    Of a category that is full the worst item makes way for a better one. So the lists are those of taking one
    item after the other, the best first, while its category has room, in whatever order the items come.

    Returns:
        How many are listed now.
    """
    if most > 0 and categories[item] >= 0:
        count, worst = 0, 0
        for place in range(n):
            if categories[items[place]] == categories[item]:
                count += 1
                worst = place
        if count == most:
            if score > scores[worst] or (score == scores[worst] and item < items[worst]):
                _insert(score, item, worst, scores, items)
            return n
    _insert(score, item, n, scores, items)
    return min(n + 1, len(items))


@compiled()
def select_more(scores, rows, items, best, lists, categories, most):  # type: ignore[no-untyped-def]
    """Take what is better than the lists have it from the scores of some more items.

    Args:
        scores: (n_rows, n_more) float32.
        rows: (n_rows,) the list of each row of scores.
        items: (n_more,) item indexes, in any order; none is listed yet.
        best: (n, k) float32, the scores of the lists, minus infinity where they end early; changed.
        lists: (n, k), changed.
        categories: see above.
        most: see above.
    """
    k = lists.shape[1]
    for number in range(len(rows)):
        own, row = scores[number], rows[number]
        listed, of_listed = lists[row], best[row]
        n = k
        while n > 0 and listed[n - 1] < 0:
            n -= 1
        for first in range(0, len(items), _AT_ONCE):
            some = own[first : first + _AT_ONCE]
            least = of_listed[k - 1]
            worth = 0
            for place in range(len(some)):
                worth += some[place] >= least
            if not worth:
                continue
            for place in range(len(some)):
                score, item = some[place], items[first + place]
                last = listed[k - 1]
                if score > of_listed[k - 1] or (score == of_listed[k - 1] and item < last):
                    n = _take(score, item, n, of_listed, listed, categories, most)


@compiled()
def select_dense(scores, users, excluded_indptr, excluded_items, barred, lists, categories, most):  # type: ignore[no-untyped-def]
    """The best of (n, n_items) scores, where what is excluded or barred becomes minus infinity.

    Args:
        scores: float32; changed.
        users: (n,) the row of the exclusions that belongs to each row of scores.
        excluded_indptr: with `excluded_items`, the items that are excluded for each user (CSR).
        excluded_items: item indexes.
        barred: indexes of items that nobody is shown.
        lists: the result.
        categories: see above.
        most: see above.
    """
    n_rows, n_items = scores.shape
    k = lists.shape[1]
    best = np.empty(k, np.float32)
    for row in range(n_rows):
        own, items = scores[row], lists[row]
        for position in range(excluded_indptr[users[row]], excluded_indptr[users[row] + 1]):
            own[excluded_items[position]] = -np.inf
        for item in barred:
            own[item] = -np.inf
        items[:] = -1
        n = 0
        least = np.float32(-np.inf)
        for first in range(0, n_items, _AT_ONCE):
            some = own[first : first + _AT_ONCE]
            worth = 0
            for place in range(len(some)):
                worth += some[place] > least
            if not worth:
                continue
            for place in range(len(some)):
                if some[place] > least:
                    n = _take(some[place], first + place, n, best, items, categories, most)
                    if n == k:
                        least = best[k - 1]


@compiled()
def select_sparse(indptr, indices, scores, users, excluded_indptr, excluded_items, n_items, lists):  # type: ignore[no-untyped-def]
    """The best of the scores that a sparse matrix stores; the others, and what is at or below 0, are nothing.

    Args:
        indptr: with `indices` and `scores`, the scores of each row (CSR, in any order).
        indices: item indexes.
        scores: float32.
        users: (n,) the row of the exclusions that belongs to each row of scores.
        excluded_indptr: with `excluded_items`, the items that are excluded for each user (CSR).
        excluded_items: item indexes.
        n_items: number of items.
        lists: the result.
    """
    k = lists.shape[1]
    best = np.empty(k, np.float32)
    excluded_for = np.full(n_items, -1, np.int64)
    for row in range(len(users)):
        items = lists[row]
        for position in range(excluded_indptr[users[row]], excluded_indptr[users[row] + 1]):
            excluded_for[excluded_items[position]] = row
        items[:] = -1
        n = 0
        for position in range(indptr[row], indptr[row + 1]):
            score, item = scores[position], indices[position]
            if not score > 0 or excluded_for[item] == row:
                continue
            if n < k or score > best[k - 1] or (score == best[k - 1] and item < items[k - 1]):
                _insert(score, item, n, best, items)
                n = min(n + 1, k)


@compiled()
def _has_room(item, n, items, categories, most):  # type: ignore[no-untyped-def]
    """Whether the category of an item has room among the n that are listed."""
    if most <= 0 or categories[item] < 0:
        return True
    count = 0
    for place in range(n):
        count += categories[items[place]] == categories[item]
    return count < most


@compiled()
def fill_up(order, users, excluded_indptr, excluded_items, n_items, lists, categories, most):  # type: ignore[no-untyped-def]
    """Continue the lists that end early with the first items of `order` that are neither listed nor excluded.

    An item whose category is full is passed over.

    Args:
        order: item indexes.
        users: (n,) the row of the exclusions that belongs to each list.
        excluded_indptr: with `excluded_items`, the items that are excluded for each user (CSR).
        excluded_items: item indexes.
        n_items: number of items.
        lists: completed in place.
        categories: see above.
        most: see above.
    """
    k = lists.shape[1]
    taken_for = np.full(n_items, -1, np.int64)
    for row in range(len(users)):
        items = lists[row]
        n = 0
        while n < k and items[n] >= 0:
            taken_for[items[n]] = row
            n += 1
        if n == k:
            continue
        for position in range(excluded_indptr[users[row]], excluded_indptr[users[row] + 1]):
            taken_for[excluded_items[position]] = row
        for item in order:
            if n == k:
                break
            if taken_for[item] != row and _has_room(item, n, items, categories, most):
                items[n] = item
                n += 1


def compile_all() -> None:
    """Compile the loops for the types that they get, or read the machine code that is kept."""
    users, lists = np.zeros(1, np.int32), np.full((1, 1), -1, np.int32)
    excluded = np.zeros(2, np.int32), np.zeros(0, np.int32)
    none_stored = np.zeros(2, np.int32), np.zeros(0, np.int32), np.zeros(0, np.float32)
    none_yet = np.full((1, 1), -np.inf, np.float32)
    no_limit = np.zeros(0, np.int32), 0
    select_more(none_yet, np.zeros(1, np.int64), users, none_yet.copy(), lists, *no_limit)
    select_dense(np.zeros((1, 1), np.float32), users, *excluded, np.zeros(0, np.int32), lists, *no_limit)
    select_sparse(*none_stored, users, *excluded, 1, lists)
    fill_up(np.zeros(1, np.int32), users, *excluded, 1, lists, *no_limit)
