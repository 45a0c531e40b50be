"""Item-item models, solved by `implicit`: what a tuned model should beat."""

import warnings
from enum import Enum

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys_pipeline.core.baselines import sparse_lists
from recsys_pipeline.core.pattern import Pattern
from recsys_pipeline.core.ranking import Lister

_USERS_AT_ONCE = 1024


class Neighbours(Enum):
    """How alike two items are: `implicit`'s BM25 and cosine item-item models."""

    bm25 = "bm25"
    cosine = "cosine"


def by_neighbours(user_items: csr_matrix, kind: Neighbours, n_neighbours: int, num_threads: int) -> Lister:
    """Sum over the user's items of strength times similarity; an item like none of them is not recommended.

    Args:
        user_items: strengths of the training interactions.
        kind: of the similarity.
        n_neighbours: of each item that count.
        num_threads: of `implicit`, for the similarities.
    """
    # Imported here: it takes a while, and only an evaluation needs it.
    from implicit.nearest_neighbours import BM25Recommender, CosineRecommender
    from implicit.utils import ParameterWarning

    recommender = BM25Recommender if kind is Neighbours.bm25 else CosineRecommender
    model = recommender(K=n_neighbours, num_threads=num_threads)
    with warnings.catch_warnings():
        # It warns that it has to convert a matrix of its own making.
        warnings.simplefilter("ignore", ParameterWarning)
        # implicit cannot work on arrays that Arrow lends.
        model.fit(user_items.copy(), show_progress=False)
    similarity = model.similarity

    def lister(users: NDArray[np.int32], exclusions: Pattern, k: int) -> NDArray[np.int32]:
        lists = np.empty((len(users), k), dtype=np.int32)
        for first in range(0, len(users), _USERS_AT_ONCE):
            block = users[first : first + _USERS_AT_ONCE]
            scores = (user_items[block] @ similarity).astype(np.float32)
            lists[first : first + len(block)] = sparse_lists(scores, block, exclusions, k)
        return lists

    return lister
