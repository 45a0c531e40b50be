"""The loops of the batched solver, compiled by numba; imported only when that solver is used."""

from numba import njit
from numpy import float32

# Sums may be taken in any order, so that the loops run on vector instructions; NaN stays NaN.
_compiled = njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "arcp", "nsz"})

# Where implicit's conjugate gradient stops: the squared residual is this small.
CONVERGED = 1e-20


@_compiled
def add_first_residual(indptr, indices, confidence, fixed, solved, unobserved, ridge, rows, residual):  # type: ignore[no-untyped-def]
    """Add to `residual` the observed pairs' share of b - A x, and the row's own ridge."""
    n_factors = residual.shape[1]
    for row in range(residual.shape[0]):
        u = rows[row]
        for k in range(n_factors):
            residual[row, k] -= ridge[u] * solved[u, k]
        for position in range(indptr[u], indptr[u + 1]):
            i = indices[position]
            score = float32(0)
            for k in range(n_factors):
                score += fixed[i, k] * solved[u, k]
            scale = confidence[position] - (confidence[position] - unobserved) * score
            for k in range(n_factors):
                residual[row, k] += scale * fixed[i, k]


@_compiled
def add_observed(indptr, indices, confidence, fixed, direction, unobserved, ridge, active, rows, product):  # type: ignore[no-untyped-def]
    """Add to `product` the observed pairs' share of A p, and the row's own ridge."""
    n_factors = direction.shape[1]
    for row in range(direction.shape[0]):
        if not active[row]:
            continue
        u = rows[row]
        for k in range(n_factors):
            product[row, k] += ridge[u] * direction[row, k]
        for position in range(indptr[u], indptr[u + 1]):
            i = indices[position]
            score = float32(0)
            for k in range(n_factors):
                score += fixed[i, k] * direction[row, k]
            scale = (confidence[position] - unobserved) * score
            for k in range(n_factors):
                product[row, k] += scale * fixed[i, k]


@_compiled
def step(solved, residual, direction, product, squared, active, rows):  # type: ignore[no-untyped-def]
    """One conjugate-gradient step of every active row."""
    n_factors = direction.shape[1]
    for row in range(direction.shape[0]):
        if not active[row]:
            continue
        u = rows[row]
        curvature = float32(0)
        for k in range(n_factors):
            curvature += direction[row, k] * product[row, k]
        length = squared[row] / curvature
        remaining = float32(0)
        for k in range(n_factors):
            solved[u, k] += length * direction[row, k]
            residual[row, k] -= length * product[row, k]
            remaining += residual[row, k] * residual[row, k]
        if remaining < CONVERGED:
            active[row] = False
            continue
        turn = remaining / squared[row]
        squared[row] = remaining
        for k in range(n_factors):
            direction[row, k] = residual[row, k] + turn * direction[row, k]
