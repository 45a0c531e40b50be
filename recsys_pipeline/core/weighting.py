"""BM25 weights of the pairs."""

import numpy as np
from numpy.typing import NDArray

from recsys_pipeline.core.pattern import Pattern
from recsys_pipeline.core.trials import NO_WEIGHTING, Trial


def weigh(pattern: Pattern, strengths: NDArray[np.float64], trial: Trial) -> NDArray[np.float64]:
    """(n_pairs,) the weights that a trial gives these pairs."""
    if trial.weighting == NO_WEIGHTING:
        return strengths
    return bm25_weights(pattern, strengths, k1=trial.bm25_k1, b=trial.bm25_b)


def bm25_weights(
    pattern: Pattern,
    strengths: NDArray[np.float64],
    *,
    k1: float,
    b: float,
    weighed: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """BM25 weight of each pair: items are the documents, users the terms.

        weight[u, i] = idf[u] * s * (k1 + 1) / (s + k1 * (1 - b + b * length[i] / mean_length))

    where s is the strength of u for i, length[i] the summed strength of item i, and
    idf[u] = ln(n_items) - ln(1 + number of items u touched). The weight is 0 for a user who touched
    all items but one, and negative for a user who touched every item.

    Args:
        pattern: the pairs.
        strengths: (n_pairs,), all > 0.
        k1: in the unit of the strengths; the larger, the longer repeats keep counting.
        b: in [0, 1]; 0 ignores the length of an item, 1 discounts it in full.
        weighed: (n_pairs,) strengths to weigh, where they are not those that idf and lengths come from.

    Returns:
        (n_pairs,) float64, equal to `implicit.nearest_neighbours.bm25_weight` of the items x users matrix.

    Source: Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009), with
    the idf of `implicit`.
    """
    lengths = np.bincount(pattern.indices, weights=strengths, minlength=pattern.n_items)
    length_norm = (1.0 - b) + b * lengths / lengths.mean()
    idf = np.log(float(pattern.n_items)) - np.log1p(pattern.pairs_per_user)
    if weighed is None:
        weighed = strengths
    saturated = weighed * (k1 + 1.0) / (k1 * length_norm[pattern.indices] + weighed)
    weights: NDArray[np.float64] = saturated * idf[pattern.user_of_pair]
    return weights
