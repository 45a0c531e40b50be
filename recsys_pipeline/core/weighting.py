"""BM25 weights of the interactions."""

import numpy as np
from numpy.typing import NDArray

from recsys_pipeline.core.hyperparameters import NO_WEIGHTING, Hyperparameters
from recsys_pipeline.core.pattern import Pattern


def weigh(
    pattern: Pattern,
    strengths: NDArray[np.float64],
    hyperparameters: Hyperparameters,
    lengths: NDArray[np.float64] | None = None,
) -> NDArray[np.float32]:
    """(n_interactions,) the weights that the hyperparameters give these interactions; `lengths` as below."""
    if hyperparameters.weighting == NO_WEIGHTING:
        return strengths.astype(np.float32)
    k1, b = hyperparameters.bm25_K1, hyperparameters.bm25_B
    weights: NDArray[np.float32] = bm25_weights(
        pattern, strengths, k1=k1, b=b, lengths=lengths, dtype=np.float32
    )
    return weights


def weigh_trained(
    pattern: Pattern,
    strengths: NDArray[np.float64],
    hyperparameters: Hyperparameters,
    lengths: NDArray[np.float64] | None = None,
) -> NDArray[np.float32]:
    """(n_interactions,) the same; what has no strength is not trained on, weighs 0 and counts for nobody."""
    trained = strengths > 0
    if trained.all():
        return weigh(pattern, strengths, hyperparameters, lengths)
    weights = np.zeros(pattern.n_interactions, dtype=np.float32)
    weights[trained] = weigh(pattern.select(trained), strengths[trained], hyperparameters, lengths)
    return weights


def item_lengths(
    items: NDArray[np.int32], strengths: NDArray[np.float64], n_items: int
) -> NDArray[np.float64]:
    """(n_items,) the summed strengths of each item, of interactions with these items."""
    return np.bincount(items, weights=strengths, minlength=n_items).astype(np.float64)


def inverse_document_frequency(per_user: NDArray[np.integer], n_items: int) -> NDArray[np.float64]:
    """(n,) ln(n_items) - ln(1 + items of the user): 0 for who has all items but one."""
    idf: NDArray[np.float64] = np.log(float(n_items)) - np.log1p(per_user)
    # Where the two logarithms differ in the last bit, as they do on some processors, they would not cancel.
    idf[per_user == n_items - 1] = 0.0
    return idf


def length_norms(lengths: NDArray[np.float64], mean_length: float, b: float) -> NDArray[np.float64]:
    """(n,) by which K1 is multiplied for items of these lengths."""
    return (1.0 - b) + b * lengths / mean_length


def saturated(strengths: NDArray[np.float64], norms: NDArray[np.float64], k1: float) -> NDArray[np.float64]:
    """(n,) what strengths count, with the `length_norms` of their items."""
    return strengths * (k1 + 1.0) / (k1 * norms + strengths)


def bm25_weights(
    pattern: Pattern,
    strengths: NDArray[np.float64],
    *,
    k1: float,
    b: float,
    weighed: NDArray[np.float64] | None = None,
    lengths: NDArray[np.float64] | None = None,
    dtype: type[np.floating] = np.float64,
) -> NDArray[np.floating]:
    """BM25 weight of each interaction: items are the documents, users the terms.

        weight[u, i] = idf[u] * s * (k1 + 1) / (s + k1 * (1 - b + b * length[i] / mean_length))

    where s is the strength of u for i, length[i] the summed strength of item i, and
    idf[u] = ln(n_items) - ln(1 + number of items u touched). The weight is 0 for a user who touched
    all items but one, and negative for a user who touched every item.

    Args:
        pattern: the interactions.
        strengths: (n_interactions,), all > 0.
        k1: in the unit of the strengths; the larger, the longer repeats keep counting.
        b: in [0, 1]; 0 ignores the length of an item, 1 discounts it in full.
        weighed: (n_interactions,) strengths to weigh, where idf and lengths come from others.
        lengths: (n_items,) of the items, where they come from other users than these.
        dtype: of the result, which is computed with 64 bits in any case.

    Returns:
        (n_interactions,), equal to `implicit`'s `bm25_weight` of the items x users matrix.

    Source: Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009), with
    the idf of `implicit`.
    """
    if lengths is None:
        lengths = item_lengths(pattern.indices, strengths, pattern.n_items)
    norms = length_norms(lengths, float(lengths.mean()), b)
    idf = inverse_document_frequency(pattern.interactions_per_user, pattern.n_items)
    if weighed is None:
        weighed = strengths
    weights: NDArray[np.floating] = np.empty(pattern.n_interactions, dtype=dtype)
    for block, users in pattern.blocks():
        weights[block] = saturated(weighed[block], norms[pattern.indices[block]], k1) * idf[users]
    return weights
