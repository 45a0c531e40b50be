"""ALS whose conjugate-gradient steps need no dense product a row: one product serves all rows at once.

`core/loss.py` has the loss: with the item factors Y fixed, the best x[u] solves A x = b, where

    A = w0 * Y'Y + sum over i in S[u] of (c[u, i] - w0) * y[i] y[i]' + r[u] * I
    b = sum over i in S[u] of c[u, i] * y[i]

and the other way round for the items.

`implicit` solves row after row; most of the arithmetic is p -> Y'Y p, four times a row. Here both sides are
first turned into the principal axes of the fixed one: with Y'Y = V diag(s) V', x = V z and p = V q,

    V'AV = diag(w0 * s + r[u]) + sum over i in S[u] of (c[u, i] - w0) * (V'y[i]) (V'y[i])'

so that the dense part of a step is n_factors multiplications, and only the observed interactions remain.
Turning is one matrix product for all rows of a side: half of the arithmetic that it saves, at the machine's
best speed.
Conjugate gradient takes the same steps in any orthogonal basis, and the scores x . y are the same in each.
Start, order of updates, number of steps and stopping rule are `implicit`'s, so the factors follow the same
path up to rounding and a common rotation of both sides, which is left in place.

Source of the steps: Takács, Pilászy and Tikk, "Applications of the Conjugate Gradient Method for Implicit
Feedback Collaborative Filtering" (2011).
"""

import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.loss import confidences, penalties
from recsys_pipeline.engines.local.compiling import ready
from recsys_pipeline.engines.local.training import Checkpoint, Fit, random_start

_CG_STEPS = 3
# Rows of a matrix product: enough to be efficient, few enough to fit the cache and to need no copy of a side.
_ROWS_PER_PRODUCT = 1 << 12


class BatchedTrainer:
    """Trains on one core."""

    def __init__(self) -> None:
        """Compiles the loops where nobody has yet."""
        self._kernels = ready("recsys_pipeline.engines.local.kernels")

    def train(
        self, user_items: csr_matrix, fit: Fit, seed: int, start: Checkpoint | None = None
    ) -> Iterator[Checkpoint]:
        """See `recsys_pipeline.engines.local.training.Trainer`."""
        trial = fit.longest
        begin = time.perf_counter()
        by_user = _with_confidence(user_items, trial)
        by_item = by_user.T.tocsr()
        user_ridge, item_ridge = (
            penalties(np.diff(matrix.indptr), matrix.shape[1], trial) for matrix in (by_user, by_item)
        )
        if start:
            done, users, items = start.iterations, start.user_factors, start.item_factors
        else:
            done = 0
            users, items = random_start(user_items.shape, trial.factors, seed)
        seconds = (start.seconds if start else 0.0) + time.perf_counter() - begin
        for checkpoint in fit.checkpoints:
            begin = time.perf_counter()
            with threadpool_limits(1, "blas"):
                for _ in range(checkpoint - done):
                    self._solve(by_user, users, items, user_ridge, trial)
                    self._solve(by_item, items, users, item_ridge, trial)
            seconds += time.perf_counter() - begin
            done = checkpoint
            yield Checkpoint(done, users, items, seconds)

    def _solve(
        self,
        matrix: csr_matrix,
        solved: NDArray[np.float32],
        fixed: NDArray[np.float32],
        ridge: NDArray[np.float32],
        trial: Hyperparameters,
    ) -> None:
        """Turn both sides, in place, and take the conjugate-gradient steps of every row of `solved`."""
        spectrum, axes = _principal_axes(fixed)
        for rows in (*_blocks(fixed), *_blocks(solved)):
            rows[:] = rows @ axes
        unobserved = np.float32(trial.unobserved_weight)
        self._kernels.solve_rows(
            matrix.indptr,
            matrix.indices,
            matrix.data,
            fixed,
            unobserved * spectrum,
            unobserved,
            ridge,
            _CG_STEPS,
            solved,
        )


def _principal_axes(factors: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The eigenvalues and, as columns, the eigenvectors of the factors' Gram matrix.

    A fit that diverged has none: its factors become NaN, and whoever reads them says so.
    """
    gram = np.zeros((factors.shape[1], factors.shape[1]))
    for rows in _blocks(factors):
        gram += rows.T @ rows  # 32 bits within a block, 64 across: as fast, and closer to the exact sum
    if not np.isfinite(gram).all():
        return np.full(len(gram), np.nan, dtype=np.float32), np.eye(len(gram), dtype=np.float32)
    eigenvalues, axes = np.linalg.eigh(gram)
    return np.maximum(eigenvalues, 0).astype(np.float32), axes.astype(np.float32)


def _blocks(factors: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Views of consecutive rows."""
    return [factors[row : row + _ROWS_PER_PRODUCT] for row in range(0, len(factors), _ROWS_PER_PRODUCT)]


def _with_confidence(user_items: csr_matrix, trial: Hyperparameters) -> csr_matrix:
    """The matrix with the confidence of each interaction in place of its weight."""
    confidence = confidences(user_items.data, trial)
    return csr_matrix((confidence, user_items.indices, user_items.indptr), shape=user_items.shape)
