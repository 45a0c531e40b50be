"""Training and ranking the models of an evaluation on one split."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys_pipeline.core.beyond_accuracy import BeyondAccuracy, beyond_accuracy
from recsys_pipeline.core.columns import ITEM_INDEX, SPLIT, USER_INDEX
from recsys_pipeline.core.evaluation import HeldOutRanks
from recsys_pipeline.core.holdout import Split
from recsys_pipeline.core.hyperparameters import DEFAULT_STRENGTHS
from recsys_pipeline.core.ranking import NOTHING, best_lists, held_out_ranks, ranks_in_lists
from recsys_pipeline.engines.local.contenders import Contender, Contenders


class Measured(NamedTuple):
    """What came of one split.

    Attributes:
        ranks: by model, (n_held_out,) the 1-based rank; k + 1 is beyond k.
        lists: by model, what its lists are like.
        interactions_of_user: (n_held_out,) training interactions of the user.
        popularity_of_item: (n_held_out,) training interactions of the item.
    """

    ranks: Mapping[str, NDArray[np.int64]]
    lists: Mapping[str, BeyondAccuracy]
    interactions_of_user: NDArray[np.int64]
    popularity_of_item: NDArray[np.int64]


def measure(contenders: Contenders, split: Split, k: int, seed: int) -> Measured:
    """Train and rank all models on one split."""
    training = split.training[DEFAULT_STRENGTHS]
    ranks, lists_of = {}, {}
    for contender in contenders.trained_on(split, seed):
        ranks[contender.name], lists = _rank(contender, split, k)
        lists_of[contender.name] = beyond_accuracy(lists, training)
    of_users = np.zeros(max(training.n_users, int(split.users.max()) + 1), dtype=np.int64)
    of_users[: training.n_users] = training.interactions_per_user
    popularity = np.bincount(training.indices, minlength=training.n_items)
    return Measured(
        ranks,
        lists_of,
        of_users[split.users],
        np.where(split.items < 0, 0, popularity[split.items]),
    )


def _rank(contender: Contender, split: Split, k: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """The rank of each held-out interaction, and the list of each user."""
    users, row = np.unique(split.users, return_inverse=True)
    known = users < split.pattern.n_users
    lists = np.full((len(users), k), NOTHING, dtype=np.int32)
    lists[known] = best_lists(contender.scorer, users[known], split.exclusions, k)
    if contender.factors:
        # By the ranker of the search, which scores equal factors equally.
        ranks = held_out_ranks(contender.factors, split.exclusions, split.users, split.items, k=k)
    else:
        ranks = ranks_in_lists(lists, row.reshape(-1), split.items)
    return ranks, lists


def all_ranks(held_out: pa.Table, measured: Sequence[Measured]) -> HeldOutRanks:
    """The ranks of all splits, in the order of the table of what they hold out."""
    return HeldOutRanks(
        seed=held_out[SPLIT].to_numpy().astype(np.int64),
        users=held_out[USER_INDEX].to_numpy(),
        items=held_out[ITEM_INDEX].to_numpy(),
        interactions_of_user=np.concatenate([each.interactions_of_user for each in measured]),
        popularity_of_item=np.concatenate([each.popularity_of_item for each in measured]),
        ranks={name: np.concatenate([each.ranks[name] for each in measured]) for name in measured[0].ranks},
    )
