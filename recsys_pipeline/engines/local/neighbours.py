"""Item-item models, solved by `implicit`: what a tuned model should beat."""

import warnings
from enum import Enum

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys_pipeline.core.ranking import Scorer
from recsys_pipeline.engines.local.cores import usable_cores


class Neighbours(Enum):
    """How alike two items are: `implicit`'s BM25 and cosine item-item models."""

    bm25 = "bm25"
    cosine = "cosine"


def by_neighbours(user_items: csr_matrix, kind: Neighbours, n_neighbours: int) -> Scorer:
    """Sum over the user's items of strength times similarity; an item like none of them is not recommended.

    Args:
        user_items: strengths of the training interactions.
        kind: of the similarity.
        n_neighbours: of each item that count.
    """
    # Imported here: it takes a while, and only an evaluation needs it.
    from implicit.nearest_neighbours import BM25Recommender, CosineRecommender
    from implicit.utils import ParameterWarning

    recommender = BM25Recommender if kind is Neighbours.bm25 else CosineRecommender
    model = recommender(K=n_neighbours, num_threads=usable_cores())
    with warnings.catch_warnings():
        # It warns that it has to convert a matrix of its own making.
        warnings.simplefilter("ignore", ParameterWarning)
        # implicit cannot work on arrays that Arrow lends.
        model.fit(user_items.copy(), show_progress=False)
    similarity = model.similarity

    def scorer(users: NDArray[np.int32]) -> NDArray[np.float32]:
        scores: NDArray[np.float32] = (user_items[users] @ similarity).toarray().astype(np.float32)
        scores[scores <= 0] = -np.inf
        return scores

    return scorer
