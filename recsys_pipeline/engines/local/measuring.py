"""Ranking what a split holds out by a trained model, and what the model's lists are like."""

import numpy as np
from numpy.typing import NDArray

from recsys_pipeline.core.beyond_accuracy import BeyondAccuracy, beyond_accuracy
from recsys_pipeline.core.holdout import Split
from recsys_pipeline.core.hyperparameters import DEFAULT_STRENGTHS
from recsys_pipeline.core.ranking import NOTHING, held_out_ranks, ranks_in_lists
from recsys_pipeline.engines.local.contenders import Contender


def measure(contender: Contender, split: Split, k: int) -> tuple[NDArray[np.int64], BeyondAccuracy | None]:
    """Where a model ranks what is held out, and what its lists are like.

    Returns:
        (n_held_out,) the 1-based rank of each held-out interaction, k + 1 beyond k; and, where the model has
        lists, those of the users.
    """
    if contender.lister is None:
        return _ranks_by_factors(contender, split, k), None
    users, row = np.unique(split.users, return_inverse=True)
    known = users < split.pattern.n_users
    lists = np.full((len(users), k), NOTHING, dtype=np.int32)
    lists[known] = contender.lister(users[known], split.exclusions, k)
    if contender.factors:
        ranks = _ranks_by_factors(contender, split, k)
    else:
        ranks = ranks_in_lists(lists, row.reshape(-1), split.items)
    return ranks, beyond_accuracy(lists, split.training[DEFAULT_STRENGTHS])


def _ranks_by_factors(contender: Contender, split: Split, k: int) -> NDArray[np.int64]:
    """By the ranker of the search, which scores equal factors equally."""
    assert contender.factors
    return held_out_ranks(contender.factors, split.exclusions, split.users, split.items, k=k)
