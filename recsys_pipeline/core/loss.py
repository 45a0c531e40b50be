"""What the factors minimise: the confidence of an interaction and the penalty of a row.

The loss, with confidence c[u, i] of the observed interactions S and w0 of all others:

    sum over S of c[u, i] * (1 - x[u] . y[i])^2  +  w0 * sum outside S of (x[u] . y[i])^2
    + sum over u of r[u] * |x[u]|^2  +  sum over i of r[i] * |y[i]|^2

With the item factors Y fixed, the best x[u] solves A x = b, where

    A = w0 * Y'Y + sum over i in S[u] of (c[u, i] - w0) * y[i] y[i]' + r[u] * I
    b = sum over i in S[u] of c[u, i] * y[i]

and the other way round for the items. With nu 0 and w0 1 the loss is that of `implicit`.

Sources: Hu, Koren and Volinsky, "Collaborative Filtering for Implicit Feedback Datasets" (2008) for the loss;
Rendle, Krichene, Zhang and Koren, "Revisiting the Performance of iALS on Item Recommendation Benchmarks"
(2021) for nu and w0.
"""

import numpy as np
from numpy.typing import NDArray

from recsys_pipeline.core.hyperparameters import ONE_PLUS_ALPHA_W, Hyperparameters


def confidences(weights: NDArray[np.floating], trial: Hyperparameters) -> NDArray[np.float32]:
    """(n_interactions,) c: alpha * w (`implicit`) or 1 + alpha * w (Hu et al., Spark)."""
    confidence = np.float32(trial.alpha) * weights.astype(np.float32)
    if trial.confidence == ONE_PLUS_ALPHA_W:
        confidence += np.float32(1)
    return confidence


def penalties(
    interactions_per_row: NDArray[np.integer], n_columns: int, trial: Hyperparameters
) -> NDArray[np.float32]:
    """(n_rows,) r: regularization * (interactions of the row + w0 * n_columns)^nu."""
    frequency = interactions_per_row + trial.unobserved_weight * n_columns
    return np.asarray(trial.regularization * frequency**trial.nu, dtype=np.float32)
