"""EASE: the linear model whose every item is explained by all others."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from recsys_pipeline.core.pattern import Pattern
from recsys_pipeline.core.ranking import Scorer

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


def item_weights(user_items: "csr_matrix", penalty: float) -> NDArray[np.float32]:
    """(n_items, n_items) B, what having item i adds to the score of item j; its diagonal is 0.

        B minimises |X - X B|^2 + penalty |B|^2 under diag(B) = 0;  B_ij = -P_ij / P_jj,
        P = (X'X + penalty I)^-1

    Args:
        user_items: X.
        penalty: above 0.

    Source: Steck, "Embarrassingly Shallow Autoencoders for Sparse Data" (WWW 2019).
    """
    # Imported here: it takes a while, and only one baseline needs it.
    from scipy.linalg.lapack import dpotrf, dpotri

    gram = np.asfortranarray((user_items.T @ user_items).toarray(), dtype=np.float64)
    gram[np.diag_indices_from(gram)] += penalty
    # Both work in place and leave the half above the diagonal of a symmetric matrix as it was.
    factor, _ = dpotrf(gram, lower=1, overwrite_a=1)
    half, _ = dpotri(factor, lower=1, overwrite_c=1)
    weights = np.tril(half)
    weights += np.tril(half, -1).T
    weights /= -np.diag(weights).copy()
    np.fill_diagonal(weights, 0.0)
    single: NDArray[np.float32] = weights.astype(np.float32)
    return single


def ease_scorer(training: Pattern, penalty: float) -> Scorer:
    """Scores x_u B of presences; minus infinity to who has nothing, and of an item that nobody has.

    Args:
        training: the interactions.
        penalty: in mean numbers of users of an item, so that a value suits data of any size.
    """
    owners = np.bincount(training.indices, minlength=training.n_items)
    known = np.flatnonzero(owners)
    presences = training.user_items(np.ones(training.n_interactions, dtype=np.float32))[:, known]
    weights = item_weights(presences, penalty * training.n_interactions / max(len(known), 1))

    def scores_of(users: NDArray[np.int32]) -> NDArray[np.float32]:
        scores = np.full((len(users), training.n_items), -np.inf, dtype=np.float32)
        some = np.flatnonzero(training.interactions_per_user[users])
        scores[np.ix_(some, known)] = presences[users[some]] @ weights
        return scores

    return scores_of


def ease_bytes(n_items: int) -> int:
    """What it takes at its worst: three items x items matrices of 64 bits."""
    return 3 * 8 * n_items**2
