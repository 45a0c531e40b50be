"""A few users by whom a person can judge a model."""

from typing import NamedTuple

import numpy as np

from recsys_pipeline.core.model import Contents
from recsys_pipeline.core.pattern import Pattern

# Which users, by their place among all users in the order of how many interactions they have.
_PLACES = (0.1, 0.5, 0.9, 0.99, 1.0)


class ExampleUser(NamedTuple):
    """A user of some activity.

    Attributes:
        user: index.
        interactions: how many the user has.
        share: of the users who have no more interactions, in the order that they were chosen by.
    """

    user: int
    interactions: int
    share: float


def example_users(pattern: Pattern) -> list[ExampleUser]:
    """The users at the quantiles 10, 50, 90 and 99 % of activity and the most active; fewer of few users.

    The same for the same interactions: among users of equal activity the order is that of the ids. Users
    without interactions do not count.
    """
    counts = pattern.interactions_per_user
    active = np.flatnonzero(counts)
    by_activity = active[np.argsort(counts[active], kind="stable")]
    chosen: dict[int, float] = {}
    for share in _PLACES:
        if len(by_activity):
            chosen[int(by_activity[round(share * (len(by_activity) - 1))])] = share
    return [ExampleUser(user, int(counts[user]), share) for user, share in chosen.items()]


def strongest_interactions(contents: Contents, user: int, n: int) -> list[tuple[int, dict[str, int]]]:
    """The item index and the counts of the events of a user's n interactions of the most weight in training.

    Among equals the lower item index comes first, as in every list.
    """
    pattern = contents.pattern
    begin, end = (int(pattern.indptr[user + beyond]) for beyond in (0, 1))
    order = begin + np.argsort(-contents.weights[begin:end], kind="stable")[:n]
    return [(int(pattern.indices[at]), _events_at(contents, int(at))) for at in order]


def _events_at(contents: Contents, position: int) -> dict[str, int]:
    counts = {event: int(count[position]) for event, count in contents.counts.items()}
    return {event: count for event, count in counts.items() if count}
