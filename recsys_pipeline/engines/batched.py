"""ALS whose conjugate-gradient steps are taken for a block of rows at once.

The loss, with confidence c[u, i] of the observed pairs S and w0 of all others:

    sum over S of c[u, i] * (1 - x[u] . y[i])^2  +  w0 * sum outside S of (x[u] . y[i])^2
    + sum over u of r[u] * |x[u]|^2  +  sum over i of r[i] * |y[i]|^2

With the item factors Y fixed, the best x[u] solves A x = b, where

    A = w0 * Y'Y + sum over i in S[u] of (c[u, i] - w0) * y[i] y[i]' + r[u] * I
    b = sum over i in S[u] of c[u, i] * y[i]

and the other way round for the items. c is alpha * w (`implicit`) or 1 + alpha * w (Hu et al., Spark), and
r[u] = regularization * (pairs of u + w0 * number of items)^nu: with nu 0 and w0 1 the loss is `implicit`'s.

`implicit` solves row after row; most of the arithmetic is p -> Y'Y p for one vector p. Here the vectors of
a block of rows make one matrix product; only the observed pairs remain for a compiled loop. Start, order of
updates, number of steps and stopping rule are `implicit`'s, so the factors follow the same path up to
rounding.

Sources: Hu, Koren and Volinsky, "Collaborative Filtering for Implicit Feedback Datasets" (2008) for the loss;
Takács, Pilászy and Tikk, "Applications of the Conjugate Gradient Method for Implicit Feedback
Collaborative Filtering" (2011) for the steps; Rendle, Krichene, Zhang and Koren, "Revisiting the Performance
of iALS on Item Recommendation Benchmarks" (2021) for nu and w0.
"""

import importlib
import time
from collections.abc import Iterator
from types import ModuleType

import numpy as np
from implicit.utils import check_random_state
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.search import Checkpoint
from recsys_pipeline.core.trials import ONE_PLUS_ALPHA_W, Fit, Trial

_CG_STEPS = 3
# Factors of a block's rows: enough of them for an efficient product, few enough to stay in the cache.
_FLOATS_PER_BLOCK = 1 << 15


def require_numba() -> ModuleType:
    """The compiled loops.

    Raises:
        InputError: numba is not installed.
    """
    try:
        return importlib.import_module("recsys_pipeline.engines.kernels")
    except ModuleNotFoundError as error:
        if error.name != "numba":
            raise
        raise InputError(
            "solver `batched` needs numba: pip install 'recsys_pipeline[fast]', or choose solver `implicit`."
        ) from None


class BatchedTrainer:
    """Trains on one core."""

    def __init__(self) -> None:
        """Raises `InputError` when numba is missing."""
        self._kernels = require_numba()

    def train(
        self, user_items: csr_matrix, fit: Fit, seed: int, start: Checkpoint | None = None
    ) -> Iterator[Checkpoint]:
        """See `recsys_pipeline.core.search.Trainer`."""
        trial = fit.longest
        begin = time.perf_counter()
        by_user = _with_confidence(user_items, trial)
        by_item = by_user.T.tocsr()
        n_users, n_items = user_items.shape
        user_ridge = _ridge(by_user, trial)
        item_ridge = _ridge(by_item, trial)
        if start:
            done, users, items = start.iterations, start.user_factors, start.item_factors
        else:
            done, rng = 0, check_random_state(seed)
            users = rng.random((n_users, trial.factors), dtype=np.float32) * np.float32(0.01)
            items = rng.random((n_items, trial.factors), dtype=np.float32) * np.float32(0.01)
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
        trial: Trial,
    ) -> None:
        """Take the conjugate-gradient steps of every row of `solved`, in place."""
        kernels = self._kernels
        observed = (matrix.indptr, matrix.indices, matrix.data, fixed)
        unobserved = np.float32(trial.unobserved_weight)
        gram = unobserved * (fixed.T @ fixed)
        if trial.nu == 0:
            # As implicit does, so that rounding is the same; the ridge of the rows is then zero.
            gram += np.float32(trial.regularization) * np.eye(trial.factors, dtype=np.float32)
        negative_gram = -gram
        has_pairs = np.diff(matrix.indptr) > 0
        solved[~has_pairs] = 0
        rows_to_solve = np.flatnonzero(has_pairs)
        n_rows = max(1, _FLOATS_PER_BLOCK // trial.factors)
        for first in range(0, len(rows_to_solve), n_rows):
            rows = rows_to_solve[first : first + n_rows]
            residual = solved[rows] @ negative_gram
            kernels.add_first_residual(*observed, solved, unobserved, ridge, rows, residual)
            direction = residual.copy()
            squared = np.einsum("uk,uk->u", residual, residual)
            active = squared >= kernels.CONVERGED
            product = np.empty_like(direction)
            for _ in range(_CG_STEPS):
                np.matmul(direction, gram, out=product)
                kernels.add_observed(*observed, direction, unobserved, ridge, active, rows, product)
                kernels.step(solved, residual, direction, product, squared, active, rows)


def _with_confidence(user_items: csr_matrix, trial: Trial) -> csr_matrix:
    """The matrix with the confidence of each pair in place of its weight."""
    confidence = np.float32(trial.alpha) * user_items.data.astype(np.float32)
    if trial.confidence == ONE_PLUS_ALPHA_W:
        confidence += np.float32(1)
    return csr_matrix((confidence, user_items.indices, user_items.indptr), shape=user_items.shape)


def _ridge(matrix: csr_matrix, trial: Trial) -> NDArray[np.float32]:
    """Per row, the penalty that is not in the Gram matrix already."""
    n_rows, n_columns = matrix.shape
    if trial.nu == 0:
        return np.zeros(n_rows, dtype=np.float32)
    frequency = np.diff(matrix.indptr) + trial.unobserved_weight * n_columns
    return np.asarray(trial.regularization * frequency**trial.nu, dtype=np.float32)
