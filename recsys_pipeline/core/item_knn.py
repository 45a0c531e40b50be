"""Item-kNN: what the people who have the user's items have besides."""

from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from recsys_pipeline.core.pattern import Pattern
from recsys_pipeline.core.ranking import NOTHING, Lister
from recsys_pipeline.core.weighting import bm25_weights, inverse_document_frequency

# Of BM25 as it is used on text.
_BM25_K1, _BM25_B = 1.2, 0.75
# A user who has all items says nothing of which of them go together; the loops want weights above 0.
_LEAST_WEIGHT = 1e-6


class SimilarityWeighting(Enum):
    """What stands in an item's vector for each of its users."""

    presence = "presence"
    strengths = "strengths"
    tf_idf = "tf_idf"
    bm25 = "bm25"


def similarity_weights(
    pattern: Pattern, strengths: NDArray[np.float64], weighting: SimilarityWeighting
) -> NDArray[np.float32]:
    """(n_interactions,) the weights of interactions of these strengths, all above 0.

    `presence` is 1, `strengths` are the strengths s, `tf_idf` is sqrt(s) ln(n_items / (1 + items of the
    user)), and `bm25` is `weighting.bm25_weights` with K1 1.2 and B 0.75.

    Source: the feature weightings of Ferrari Dacrema et al., see `NearestItems`.
    """
    if weighting is SimilarityWeighting.presence:
        return np.ones(pattern.n_interactions, dtype=np.float32)
    if weighting is SimilarityWeighting.strengths:
        return strengths.astype(np.float32)
    weights: NDArray[np.floating]
    if weighting is SimilarityWeighting.tf_idf:
        idf = inverse_document_frequency(pattern.interactions_per_user, pattern.n_items)
        weights = np.sqrt(strengths) * idf[pattern.user_of_interaction]
    else:
        weights = bm25_weights(pattern, strengths, k1=_BM25_K1, b=_BM25_B)
    positive: NDArray[np.float32] = np.maximum(weights, _LEAST_WEIGHT).astype(np.float32)
    return positive


class NearestItems(NamedTuple):
    """The nearest other items of each item, by several shrinkages and numbers of neighbours.

        similarity(i, j) = w_i . w_j / (|w_i| |w_j| + shrinkage * m)

    where w_i are the weights of item i by user, and m is the mean squared weight, so that a shrinkage means
    the same whatever the weights are: where all are 1, it is a number of users.

    Attributes:
        pattern: the interactions.
        weights: (n_interactions,) float32.
        shrinkages: by which they were found.
        numbers: of neighbours, for which they are ready.
        own: (n_shrinkages, n_items) float32, the similarity of an item to itself.
        begins: (n_items + 1,) where the neighbours of each item begin: first the nearest of the smallest
            number, then what the next one adds.
        counts: (n_shrinkages, n_items) how many an item has.
        items: (n_shrinkages, begins[-1]) int32.
        similarities: the same, float32.

    Source: the cosine with shrinkage of Ferrari Dacrema et al., "A Troubling Analysis of Reproducibility and
    Progress in Recommender Systems Research" (TOIS 2021), where m is 1.
    """

    pattern: Pattern
    weights: NDArray[np.float32]
    shrinkages: tuple[float, ...]
    numbers: tuple[int, ...]
    own: NDArray[np.float32]
    begins: NDArray[np.int64]
    counts: NDArray[np.int32]
    items: NDArray[np.int32]
    similarities: NDArray[np.float32]

    @classmethod
    def of(
        cls,
        pattern: Pattern,
        weights: NDArray[np.float32],
        numbers: Iterable[int],
        shrinkages: Iterable[float],
    ) -> Self:
        """The dot products are computed once for all.

        Args:
            pattern: the interactions.
            weights: (n_interactions,) above 0.
            numbers: of neighbours of an item.
            shrinkages: at or above 0.
        """
        from recsys_pipeline.core.similarity import nearest_items  # numba: not everybody needs it

        descending = sorted(set(numbers), reverse=True)
        by = tuple(dict.fromkeys(shrinkages))
        item_users = pattern.user_items(weights).tocsc()
        squared = np.square(weights.astype(np.float64))
        squared_norms = np.bincount(pattern.indices, weights=squared, minlength=pattern.n_items)
        shrunk_by = np.array(by, dtype=np.float64) * (squared.mean() if len(squared) else 1.0)
        begins = np.zeros(pattern.n_items + 1, dtype=np.int64)
        np.cumsum(np.minimum(descending[0], most_neighbours(pattern)), out=begins[1:])
        counts = np.zeros((len(by), pattern.n_items), dtype=np.int32)
        items = np.empty((len(by), begins[-1]), dtype=np.int32)
        similarities = np.empty(items.shape, dtype=np.float32)
        nearest_items(
            *(pattern.indptr, pattern.indices, weights),
            *(item_users.indptr, item_users.indices, item_users.data),
            *(np.sqrt(squared_norms), shrunk_by, np.array(descending, dtype=np.int64)),
            *(begins, counts, items, similarities),
        )
        own = squared_norms / np.maximum(squared_norms + shrunk_by[:, None], np.finfo(np.float64).tiny)
        return cls(
            *(pattern, weights, by, tuple(descending), own.astype(np.float32)),
            *(begins, counts, items, similarities),
        )

    def lister(self, n_neighbours: int, shrinkage: float) -> Lister:
        """Lists by what the user's items add to the items that count them among their nearest.

            score(u, i) = sum of w(u, j) similarity(i, j) over the items j of u
                          that are i or among the n_neighbours nearest items of i

        An item like none of the user's is not recommended.

        Args:
            n_neighbours: one of the numbers for which the neighbours are ready.
            shrinkage: one of those by which they were found.

        Raises:
            ValueError: the neighbours are not ready for these.
        """
        from recsys_pipeline.core.similarity import by_neighbour, list_by_similarity

        if n_neighbours not in self.numbers:
            raise ValueError(f"the nearest items are ready for {self.numbers} neighbours, not {n_neighbours}")
        number = self.shrinkages.index(shrinkage)
        n_all = int(np.minimum(self.counts[number], n_neighbours).sum())
        begins = np.zeros(self.pattern.n_items + 1, dtype=np.int64)
        items, similarities = np.empty(n_all, dtype=np.int32), np.empty(n_all, dtype=np.float32)
        of_items = self.counts[number], self.items[number], self.similarities[number]
        by_neighbour(self.begins, *of_items, n_neighbours, begins, items, similarities)
        interactions = self.pattern.indptr, self.pattern.indices, self.weights
        contributions = begins, items, similarities, self.own[number]

        def lister(users: NDArray[np.int32], exclusions: Pattern, k: int) -> NDArray[np.int32]:
            lists = np.full((len(users), k), NOTHING, dtype=np.int32)
            excluded = exclusions.indptr, exclusions.indices
            list_by_similarity(*interactions, users, *contributions, *excluded, lists)
            return lists

        return lister


def most_neighbours(pattern: Pattern) -> NDArray[np.int64]:
    """(n_items,) how many other items at most occur beside each item in somebody's interactions."""
    per_user = pattern.interactions_per_user
    others = np.repeat(per_user - 1, per_user)
    found = np.bincount(pattern.indices, weights=others, minlength=pattern.n_items).astype(np.int64)
    return np.minimum(found, max(pattern.n_items - 1, 0))


def nearest_bytes(pattern: Pattern, most: int, n_shrinkages: int) -> int:
    """What the nearest items take, while those of one shrinkage are turned round to make lists."""
    n_neighbours = int(np.minimum(most, most_neighbours(pattern)).sum())
    return 8 * n_neighbours * (n_shrinkages + 1) + 12 * pattern.n_interactions + 64 * pattern.n_items
