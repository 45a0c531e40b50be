"""The loops of the batched solver, compiled by numba; imported only when that solver is used."""

import numpy as np
from numpy import float32

from recsys_pipeline.core.compiled import compiled

# Sums may be taken in any order, so that the loops run on vector instructions; NaN stays NaN.
_FASTMATH = {"reassoc", "contract", "arcp", "nsz"}

# Where implicit's conjugate gradient stops: the squared residual is this small.
_CONVERGED = 1e-20
# Floats between the short arrays of a row and all else: over arrays that lie closer than its stride a vector
# loop gives way to one that rounds otherwise, and where short arrays lie is chance.
_APART = 256


@compiled(fastmath=_FASTMATH)
def solve_rows(indptr, indices, confidence, fixed, spectrum, unobserved, ridge, n_steps, solved):  # type: ignore[no-untyped-def]
    """Take the conjugate-gradient steps of every row of `solved`, in place; rows without any become zero.

    Args:
        indptr: with `indices` and `confidence`, the observed interactions of each row (CSR).
        indices: rows of `fixed`.
        confidence: (n_interactions,) float32.
        fixed: (n_columns, n_factors) float32, in the basis in which its Gram matrix is diagonal.
        spectrum: (n_factors,) float32, what A has on its diagonal for every row.
        unobserved: float32 confidence of unobserved interactions.
        ridge: (n_rows,) float32, what a row has on its diagonal besides.
        n_steps: at most so many steps.
        solved: (n_rows, n_factors) float32, in the same basis: the start, then the solution.
    """
    n_factors = solved.shape[1]
    scratch = np.empty((3, n_factors + 2 * _APART), np.float32)
    residual = scratch[0, _APART : _APART + n_factors]
    direction = scratch[1, _APART : _APART + n_factors]
    product = scratch[2, _APART : _APART + n_factors]
    for row in range(len(indptr) - 1):
        observed = slice(indptr[row], indptr[row + 1])
        columns, weights = indices[observed], confidence[observed]
        x = solved[row]
        if not len(columns):
            x[:] = 0
            continue
        for k in range(n_factors):
            residual[k] = -(spectrum[k] + ridge[row]) * x[k]
        _add_observed(columns, weights, fixed, unobserved, x, float32(1), float32(-1), residual)
        squared = float32(0)
        for k in range(n_factors):
            direction[k] = residual[k]
            squared += residual[k] * residual[k]
        if squared < _CONVERGED:
            continue
        for _ in range(n_steps):
            for k in range(n_factors):
                product[k] = (spectrum[k] + ridge[row]) * direction[k]
            _add_observed(columns, weights, fixed, unobserved, direction, float32(0), float32(1), product)
            curvature = float32(0)
            for k in range(n_factors):
                curvature += direction[k] * product[k]
            length = squared / curvature
            remaining = float32(0)
            for k in range(n_factors):
                x[k] += length * direction[k]
                residual[k] -= length * product[k]
                remaining += residual[k] * residual[k]
            if remaining < _CONVERGED:
                break
            turn = remaining / squared
            squared = remaining
            for k in range(n_factors):
                direction[k] = residual[k] + turn * direction[k]


@compiled(fastmath=_FASTMATH)
def _add_observed(columns, confidence, fixed, unobserved, vector, target, sign, out):  # type: ignore[no-untyped-def]
    """Add to `out`, over the interactions, (target * c + sign * (c - unobserved) * y . vector) * y."""
    n_factors = len(vector)
    n_interactions = len(columns)
    # Four interactions at a time: `vector` and `out` are read and written a quarter as often.
    whole = n_interactions - n_interactions % 4
    for first in range(0, whole, 4):
        y0, y1 = fixed[columns[first]], fixed[columns[first + 1]]
        y2, y3 = fixed[columns[first + 2]], fixed[columns[first + 3]]
        s0 = s1 = s2 = s3 = float32(0)
        for k in range(n_factors):
            s0 += y0[k] * vector[k]
            s1 += y1[k] * vector[k]
            s2 += y2[k] * vector[k]
            s3 += y3[k] * vector[k]
        c0, c1 = confidence[first], confidence[first + 1]
        c2, c3 = confidence[first + 2], confidence[first + 3]
        s0 = target * c0 + sign * (c0 - unobserved) * s0
        s1 = target * c1 + sign * (c1 - unobserved) * s1
        s2 = target * c2 + sign * (c2 - unobserved) * s2
        s3 = target * c3 + sign * (c3 - unobserved) * s3
        for k in range(n_factors):
            out[k] += (s0 * y0[k] + s1 * y1[k]) + (s2 * y2[k] + s3 * y3[k])
    for position in range(whole, n_interactions):
        y, c = fixed[columns[position]], confidence[position]
        score = float32(0)
        for k in range(n_factors):
            score += y[k] * vector[k]
        score = target * c + sign * (c - unobserved) * score
        for k in range(n_factors):
            out[k] += score * y[k]


def compile_all() -> None:
    """Compile the loops for the types that they get, or read the machine code that is kept."""
    matrix = np.zeros(2, np.int32), np.zeros(0, np.int32), np.zeros(0, np.float32)
    factors, of_factors = np.zeros((1, 1), np.float32), np.zeros(1, np.float32)
    solve_rows(*matrix, factors, of_factors, float32(1), of_factors, 1, factors)
