"""Walks over the graph of users and items, compiled; imported only where they are used.

Matrices are CSR as three arrays: row pointers, indexes, float32 values.
"""

import numpy as np

from recsys_pipeline.core.compiled import compiled


@compiled()
def walk(indptr, items, values, known, users_of_item, items_of_user, item_scale, user_exponent, scores):  # type: ignore[no-untyped-def]
    """Add up, for each person, the walks from the own items over users who share them to these users' items.

    The person is one of these users, with the row that is given, whatever the graph says of them.

    Args:
        indptr: with `items` and `values`, the row of each person.
        items: item indexes.
        values: of the row.
        known: (n,) the user of the graph who the person is; -1 for nobody.
        users_of_item: by item, its users and the value of the step; three arrays.
        items_of_user: by user, their items and the value of the step; three arrays.
        item_scale: (n_items,) float32 share of an item's degree in a step.
        user_exponent: of the person's own degree in a step.
        scores: (n, n_items) float32, the result.
    """
    item_indptr, item_users, item_values = users_of_item
    user_indptr, user_items, user_values = items_of_user
    reached = np.zeros(len(user_indptr) - 1, np.float32)
    touched = np.empty(len(reached), np.int32)
    for row in range(len(known)):
        own = scores[row]
        own[:] = 0
        n_touched = 0
        degree, through_self = np.float32(0), np.float32(0)
        for position in range(indptr[row], indptr[row + 1]):
            item, value = items[position], values[position]
            degree += value
            through_self += value * value * item_scale[item]
            for step in range(item_indptr[item], item_indptr[item + 1]):
                user = item_users[step]
                if reached[user] == 0:
                    touched[n_touched] = user
                    n_touched += 1
                reached[user] += value * item_values[step]
        for place in range(n_touched):
            user = touched[place]
            weight = reached[user]
            reached[user] = 0
            if user == known[row]:
                continue
            for step in range(user_indptr[user], user_indptr[user + 1]):
                own[user_items[step]] += weight * user_values[step]
        if degree > 0:
            through_self *= degree ** (-2 * user_exponent)
            for position in range(indptr[row], indptr[row + 1]):
                own[items[position]] += through_self * values[position] * item_scale[items[position]]


def compile_all() -> None:
    """Compile the loops for the types that they get, or read the machine code that is kept."""
    nobody, scores = np.full(1, -1, np.int32), np.zeros((1, 1), np.float32)
    for indptr in (np.zeros(2, np.int32), np.zeros(2, np.int64)):
        graph = indptr, np.zeros(0, np.int32), np.zeros(0, np.float32)
        rows = np.zeros(2, np.int32), *graph[1:]
        walk(*rows, nobody, graph, graph, np.zeros(1, np.float32), 0.5, scores)
