"""Folding in: the factors of a user whom the model was not trained with.

With the item factors Y fixed, the loss of `loss` has one best x for the interactions of one user. In the
principal axes of the items, Y'Y = V diag(s) V', with x = V z, the rows Z = V'y[i] of the user's items,
d = 1 / (w0 * s + r) and W = diag(c - w0), it solves

    (diag(1/d) + Z'WZ) z = Z'c        as many equations as factors, or

    z = diag(d) Z't,  (I + W Z diag(d) Z') t = c        as many as interactions: the same z.

Whichever is smaller is solved. The models of an ensemble are folded into one by one, as they were trained.
"""

from collections.abc import Iterator
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.loss import confidences, penalties
from recsys_pipeline.core.pattern import Pattern

_ITEMS_PER_BLOCK = 1 << 12
# Numbers in the arrays of users who are solved together.
_NUMBERS_AT_ONCE = 1 << 22
# An eigenvalue this small beside the largest is rounding.
_NEGLIGIBLE = 1e-7


class _Axes(NamedTuple):
    """The principal axes of the items of one model.

    Attributes:
        lengths: (n_axes,) eigenvalues of Y'Y.
        directions: (factors, n_axes) eigenvectors.
    """

    lengths: NDArray[np.float64]
    directions: NDArray[np.float64]

    @classmethod
    def of(cls, items: NDArray[np.float32], *, penalised: bool) -> Self:
        gram = np.zeros((items.shape[1], items.shape[1]))
        for first in range(0, len(items), _ITEMS_PER_BLOCK):
            rows = items[first : first + _ITEMS_PER_BLOCK].astype(np.float64)
            gram += rows.T @ rows
        lengths, directions = np.linalg.eigh(gram)
        lengths = np.maximum(lengths, 0)
        if not penalised:
            # No item has a part in the others: no score depends on what a user's factors have there.
            kept = lengths > _NEGLIGIBLE * lengths.max(initial=0)
            lengths, directions = lengths[kept], directions[:, kept]
        return cls(lengths, directions)


class FoldIn:
    """Finds the factors of users by their interactions, the item factors staying as they are."""

    def __init__(self, items: NDArray[np.float32], hyperparameters: Hyperparameters) -> None:
        """`items` are the (n_items, width) factors that were trained with these hyperparameters."""
        self._hyperparameters = hyperparameters
        self._models = np.split(items, hyperparameters.ensemble_size, axis=1)
        penalised = hyperparameters.regularization > 0
        self._axes = [_Axes.of(model, penalised=penalised) for model in self._models]

    def users(self, pattern: Pattern, weights: NDArray[np.float32]) -> NDArray[np.float32]:
        """The factors under which the loss of each user is least.

        Args:
            pattern: the interactions of the users.
            weights: (n_interactions,) weight of each, as in training; what is not above 0 does not count.

        Returns:
            (n_users, width); 0 for users without interactions, as in training.
        """
        trained = weights > 0
        pattern, weights = pattern.select(trained), weights[trained]
        confidence = confidences(weights, self._hyperparameters).astype(np.float64)
        penalty = penalties(pattern.interactions_per_user, pattern.n_items, self._hyperparameters)
        factors = self._hyperparameters.factors
        solved = np.zeros((pattern.n_users, self._hyperparameters.width), dtype=np.float32)
        for users, n in _users_with_as_many(pattern.interactions_per_user, factors):
            positions = pattern.indptr[users].astype(np.int64)[:, None] + np.arange(n)
            items, c = pattern.indices[positions], confidence[positions]
            for number, (model, axes) in enumerate(zip(self._models, self._axes, strict=True)):
                z = self._solve(model[items] @ axes.directions, c, axes.lengths, penalty[users])
                solved[users, number * factors : (number + 1) * factors] = z @ axes.directions.T
        return solved

    def _solve(
        self,
        rows: NDArray[np.float64],
        c: NDArray[np.float64],
        lengths: NDArray[np.float64],
        penalty: NDArray[np.float32],
    ) -> NDArray[np.float64]:
        """(n_users, n_axes) the z of users with the same number n of interactions.

        Args:
            rows: (n_users, n, n_axes) Z of each.
            c: (n_users, n) confidence.
            lengths: (n_axes,) eigenvalues.
            penalty: (n_users,).
        """
        w0 = self._hyperparameters.unobserved_weight
        diagonal = w0 * lengths + penalty[:, None].astype(np.float64)
        excess = (c - w0)[:, :, None]
        transposed = rows.transpose(0, 2, 1)
        if rows.shape[1] < rows.shape[2]:
            scaled = rows / diagonal[:, None, :]
            t = np.linalg.solve(excess * (scaled @ transposed) + np.eye(rows.shape[1]), c[:, :, None])
            return (scaled.transpose(0, 2, 1) @ t)[:, :, 0]
        a = transposed @ (excess * rows)
        a += diagonal[:, :, None] * np.eye(rows.shape[2])
        return np.linalg.solve(a, transposed @ c[:, :, None])[:, :, 0]


def _users_with_as_many(counts: NDArray[np.int64], factors: int) -> Iterator[tuple[NDArray[np.intp], int]]:
    """Users with the same number of interactions, and that number, some at a time; not those without any."""
    for n in np.unique(counts[counts > 0]).tolist():
        users = np.flatnonzero(counts == n)
        at_once = max(1, _NUMBERS_AT_ONCE // (n * factors))
        for first in range(0, len(users), at_once):
            yield users[first : first + at_once], n
