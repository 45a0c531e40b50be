"""What recommended lists are like, whether or not they hit."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_pipeline.core.pattern import Pattern
from recsys_pipeline.core.ranking import NOTHING


class BeyondAccuracy(NamedTuple):
    """What lists are like.

    Attributes:
        coverage: share of all items that somebody is recommended.
        novelty: mean self-information of the recommended items, in bits: -log2 of the share of users who
            have the item in training (Zhou et al. 2010, "Solving the apparent diversity-accuracy dilemma of
            recommender systems"); an item that nobody has counts as if one user had it.
        popularity: mean share of users who have the recommended item in training.
        users_reached: share of users whose list is full.
    """

    coverage: float
    novelty: float
    popularity: float
    users_reached: float


def beyond_accuracy(lists: NDArray[np.int32], training: Pattern) -> BeyondAccuracy:
    """What these lists, a row a user, are like; popularity is that among the training interactions."""
    owners = np.bincount(training.indices, minlength=training.n_items)
    return beyond_accuracy_by_owners(lists, owners[lists[lists != NOTHING]], *training.shape)


def beyond_accuracy_by_owners(
    lists: NDArray[np.int32], owners: NDArray[np.int64], n_users: int, n_items: int
) -> BeyondAccuracy:
    """The same, where (n_recommended,) `owners` says of each entry how many users have its item."""
    recommended = lists[lists != NOTHING]
    share = np.maximum(owners, 1) / n_users
    return BeyondAccuracy(
        coverage=len(np.unique(recommended)) / n_items,
        novelty=float(-np.log2(share).mean()) if len(recommended) else float("nan"),
        popularity=float(owners.mean() / n_users) if len(recommended) else float("nan"),
        users_reached=float((lists != NOTHING).all(axis=1).mean()),
    )


def mean_beyond_accuracy(found: Sequence[BeyondAccuracy]) -> BeyondAccuracy:
    """The mean over seeds."""
    return BeyondAccuracy(*np.mean(np.array(found), axis=0).tolist())
