"""Folding in: the least loss with the items fixed, whatever the hyperparameters."""

import numpy as np
import pytest
from scipy.optimize import minimize

from recsys_pipeline.core.folding import FoldIn
from recsys_pipeline.core.hyperparameters import ONE_PLUS_ALPHA_W, Hyperparameters
from recsys_pipeline_tests.worlds import pattern_of

TRIAL = Hyperparameters(factors=6, regularization=0.1, alpha=7.0, iterations=4, bm25_K1=100.0, bm25_B=0.8)
VARIANTS = [
    TRIAL,
    TRIAL.replace(nu=1.0, regularization=0.01),
    TRIAL.replace(nu=0.5, unobserved_weight=0.1),
    TRIAL.replace(confidence=ONE_PLUS_ALPHA_W),
    # Some confidences lie below that of unobserved interactions.
    TRIAL.replace(alpha=0.8),
    TRIAL.replace(ensemble_size=3),
    TRIAL.replace(nu=0.7, unobserved_weight=0.03, confidence=ONE_PLUS_ALPHA_W, ensemble_size=2),
]
N_ITEMS = 30


def world(trial):
    """Item factors, and users with fewer interactions than factors, as many, more, and none."""
    rng = np.random.default_rng(0)
    items = rng.normal(size=(N_ITEMS, trial.width)).astype(np.float32)
    pattern = pattern_of(
        [rng.choice(N_ITEMS, n, replace=False).tolist() for n in (1, 3, 6, 0, 25, 3)], N_ITEMS
    )
    return items, pattern, (rng.random(pattern.n_interactions) * 2 + 0.1).astype(np.float32)


def loss(x, items, row, weights, trial):
    """Of one user, written as the sum over all items."""
    c = np.full(N_ITEMS, trial.unobserved_weight)
    c[row] = trial.alpha * weights + (trial.confidence == ONE_PLUS_ALPHA_W)
    wanted = np.isin(np.arange(N_ITEMS), row)
    ridge = trial.regularization * (len(row) + trial.unobserved_weight * N_ITEMS) ** trial.nu
    return (c * (wanted - items.astype(float) @ x) ** 2).sum() + ridge * x @ x


@pytest.mark.parametrize("trial", VARIANTS, ids=str)
def test_no_other_factors_have_a_smaller_loss(trial):
    items, pattern, weights = world(trial)
    found = FoldIn(items, trial).users(pattern, weights)

    for user in range(pattern.n_users):
        own = slice(pattern.indptr[user], pattern.indptr[user + 1])
        row, of_row = pattern.indices[own], weights[own]
        if not len(row):
            assert not found[user].any()
            continue
        for number in range(trial.ensemble_size):
            model = slice(number * trial.factors, (number + 1) * trial.factors)
            best = minimize(loss, np.zeros(trial.factors), (items[:, model], row, of_row, trial), tol=1e-10)
            assert found[user, model] == pytest.approx(best.x, abs=2e-5)


def test_one_user_or_many_at_a_time_is_the_same():
    items, pattern, weights = world(TRIAL)
    fold_in = FoldIn(items, TRIAL)
    together = fold_in.users(pattern, weights)

    for user in range(pattern.n_users):
        own = slice(pattern.indptr[user], pattern.indptr[user + 1])
        alone = fold_in.users(pattern_of([pattern.indices[own].tolist()], N_ITEMS), weights[own])
        assert np.array_equal(alone[0], together[user])


def test_what_has_no_weight_does_not_count():
    items, pattern, weights = world(TRIAL)
    without = weights.copy()
    without[0] = 0
    without[1] = -1
    found = FoldIn(items, TRIAL).users(pattern, without)

    assert not found[0].any()
    left = pattern.select(without > 0)
    assert np.array_equal(found, FoldIn(items, TRIAL).users(left, weights[without > 0]))


def test_without_regularization_it_takes_the_shortest_of_equals():
    """Three items cannot span six factors: what none of them has a part in stays 0."""
    trial = TRIAL.replace(regularization=0.0)
    items = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)
    found = FoldIn(items, trial).users(pattern_of([[0], [0, 1, 2]], 3), np.ones(4, np.float32))

    assert np.isfinite(found).all()
    # It can tell each item from the others exactly.
    assert found @ items.T == pytest.approx(np.array([[1, 0, 0], [1, 1, 1]]), abs=1e-3)
