"""The loops of the item-kNN models in compiled code; imported only where they are used.

One pass over the items has the dot products of an item with all others, and the nearest of them by every
shrinkage; no dense items x items matrix. Neighbours are ordered as items are everywhere: the higher
similarity first, among equals the lower item index.
"""

import numpy as np

from recsys_pipeline.core.compiled import compiled


@compiled()
def _is_worse(similarity, item, than, other):  # type: ignore[no-untyped-def]
    """Whether an item comes after another one."""
    return similarity < than or (similarity == than and item > other)


@compiled()
def _bring_forward(similarities, items, n, most):  # type: ignore[no-untyped-def]
    """Reorder the first n so that the best `most` of them come first, in any order.

    Hoare's selection: the order is total, so which these are does not depend on the way.
    """
    low, high = 0, n - 1
    while low < high:
        middle = (low + high) >> 1
        similarity, item = similarities[middle], items[middle]
        left, right = low, high
        while left <= right:
            while _is_worse(similarity, item, similarities[left], items[left]):
                left += 1
            while _is_worse(similarities[right], items[right], similarity, item):
                right -= 1
            if left <= right:
                similarities[left], similarities[right] = similarities[right], similarities[left]
                items[left], items[right] = items[right], items[left]
                left += 1
                right -= 1
        if most - 1 <= right:
            high = right
        elif most >= left + 1:
            low = left
        else:
            break


@compiled()
def nearest_items(  # type: ignore[no-untyped-def]
    indptr,
    indices,
    weights,
    by_item,
    users,
    of_users,
    norms,
    shrinkages,
    numbers,
    begins,
    counts,
    items,
    similarities,
):
    """The nearest other items of each item, by each shrinkage; see `item_knn.NearestItems`.

    Of each item the nearest of the smallest number come first, then what the next number adds, and so on.

    Args:
        indptr: with `indices` and `weights`, the interactions of each user (CSR).
        indices: item indexes.
        weights: float32.
        by_item: with `users` and `of_users`, the same by item (CSC).
        users: user indexes.
        of_users: float32 weights.
        norms: (n_items,) float64.
        shrinkages: (n,) float64.
        numbers: how many neighbours are wanted, descending.
        begins: (n_items + 1,) where the neighbours of each item begin: there is room for so many.
        counts: (n, n_items) int32, the result: how many neighbours there are.
        items: (n, begins[-1]) int32, the result: their indexes.
        similarities: the same, float32.
    """
    n_items = len(norms)
    dots = np.zeros(n_items, np.float64)
    found = np.empty(n_items, np.int32)
    others, of_others = np.empty(n_items, np.int32), np.empty(n_items, np.float32)
    for item in range(n_items):
        n_found = 0
        for place in range(by_item[item], by_item[item + 1]):
            user, weight = users[place], np.float64(of_users[place])
            for position in range(indptr[user], indptr[user + 1]):
                other = indices[position]
                if dots[other] == 0:
                    found[n_found] = other
                    n_found += 1
                dots[other] += weight * weights[position]
        n_others = 0
        for number in range(n_found):
            if found[number] != item:
                found[n_others] = found[number]
                n_others += 1
        begin = begins[item]
        for number in range(len(shrinkages)):
            for place in range(n_others):
                other = found[place]
                of_others[place] = dots[other] / (norms[item] * norms[other] + shrinkages[number])
                others[place] = other
            n = n_others
            for most in numbers:
                if most < n:
                    _bring_forward(of_others, others, n, most)
                    n = most
            n = min(n_others, begins[item + 1] - begin)
            counts[number, item] = n
            items[number, begin : begin + n] = others[:n]
            similarities[number, begin : begin + n] = of_others[:n]
        for number in range(n_others):
            dots[found[number]] = 0
        dots[item] = 0


@compiled()
def by_neighbour(begins, counts, items, similarities, most, out_begins, out_items, out_similarities):  # type: ignore[no-untyped-def]
    """Turn the lists of the nearest items round: which items have each item among their first `most`.

    Args:
        begins: (n_items + 1,) where the neighbours of each item begin.
        counts: (n_items,) how many there are.
        items: their indexes, the first `most` the nearest.
        similarities: float32.
        most: of each item so many count.
        out_begins: (n_items + 1,) int64, filled with 0; the result: CSR by neighbour.
        out_items: int32, the result: ascending for each neighbour.
        out_similarities: float32, the result.
    """
    for item in range(len(counts)):
        for place in range(begins[item], begins[item] + min(counts[item], most)):
            out_begins[items[place] + 1] += 1
    for item in range(len(counts)):
        out_begins[item + 1] += out_begins[item]
    following = out_begins[:-1].copy()
    for item in range(len(counts)):
        for place in range(begins[item], begins[item] + min(counts[item], most)):
            to = following[items[place]]
            following[items[place]] += 1
            out_items[to], out_similarities[to] = item, similarities[place]


@compiled()
def list_by_similarity(  # type: ignore[no-untyped-def]
    indptr, indices, weights, users, begins, items, similarities, own, excluded_indptr, excluded_items, lists
):
    """The best items of each user by the similarity to the own; see `item_knn.NearestItems.lister`.

    Args:
        indptr: with `indices` and `weights`, the interactions of each user (CSR).
        indices: item indexes.
        weights: float32, above 0.
        users: (n,) whose lists are wanted.
        begins: with `items` and `similarities`, what each item contributes to (CSR).
        items: item indexes.
        similarities: float32, above 0.
        own: (n_items,) float32, the similarity of each item to itself.
        excluded_indptr: with `excluded_items`, the items that are excluded for each user (CSR).
        excluded_items: item indexes.
        lists: (n, k) int32, the result; -1 where a list ends early.
    """
    n_items, k = len(own), lists.shape[1]
    scores = np.zeros(n_items, np.float64)
    found = np.empty(n_items, np.int32)
    best = np.empty(k, np.float64)
    for row in range(len(users)):
        user, listed = users[row], lists[row]
        n_found = 0
        for position in range(indptr[user], indptr[user + 1]):
            item, weight = indices[position], np.float64(weights[position])
            if scores[item] == 0:
                found[n_found] = item
                n_found += 1
            scores[item] += weight * own[item]
            for place in range(begins[item], begins[item + 1]):
                other = items[place]
                if scores[other] == 0:
                    found[n_found] = other
                    n_found += 1
                scores[other] += weight * similarities[place]
        for place in range(excluded_indptr[user], excluded_indptr[user + 1]):
            scores[excluded_items[place]] = 0
        n = 0
        listed[:] = -1
        for number in range(n_found):
            item = found[number]
            score = scores[item]
            scores[item] = 0
            if score <= 0 or (n == k and not _is_worse(best[k - 1], listed[k - 1], score, item)):
                continue
            place = min(n, k - 1)
            while place > 0 and _is_worse(best[place - 1], listed[place - 1], score, item):
                best[place], listed[place] = best[place - 1], listed[place - 1]
                place -= 1
            best[place], listed[place] = score, item
            n = min(n + 1, k)


def compile_all() -> None:
    """Compile the loops for the types that they get, or read the machine code that is kept."""
    for index in (np.int32, np.int64):
        pointers, nothing, of_nothing = np.zeros(2, index), np.zeros(0, np.int32), np.zeros(0, np.float32)
        norms, none = np.zeros(1), np.zeros((1, 0), np.int32)
        matrix = pointers, nothing, of_nothing
        begins = np.zeros(2, np.int64)
        of_items = np.zeros(1, np.int32), nothing, of_nothing
        by_neighbour(begins, *of_items, 1, begins.copy(), nothing, of_nothing)
        result = np.zeros((1, 1), np.int32), none, none.astype(np.float32)
        nearest_items(*matrix, *matrix, norms, norms, np.ones(1, np.int64), begins, *result)
        excluded = pointers, nothing
        list_by_similarity(
            *matrix, nothing, begins, nothing, of_nothing, np.zeros(1, np.float32), *excluded, none
        )
