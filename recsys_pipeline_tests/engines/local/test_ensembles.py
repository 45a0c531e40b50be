"""An ensemble is its models, taken together."""

import numpy as np
import pytest

from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.solver import Solver
from recsys_pipeline.engines.local.solvers import trainer_for
from recsys_pipeline.engines.local.training import Fit
from recsys_pipeline_tests.worlds import pattern_of

TRIAL = Hyperparameters(
    factors=3, regularization=0.1, alpha=5.0, iterations=4, bm25_K1=100.0, bm25_B=0.8, ensemble_size=2
)


def matrix():
    rng = np.random.default_rng(3)
    pattern = pattern_of([rng.choice(20, 6, replace=False) for _ in range(15)], 20)
    return pattern.user_items(rng.random(pattern.n_interactions) + 0.5)


def states(solver, trial, *, checkpoints=(4,), seed=1, start=None):
    return [
        state._replace(user_factors=state.user_factors.copy(), item_factors=state.item_factors.copy())
        for state in trainer_for(solver, 1).train(matrix(), Fit(trial, checkpoints), seed, start)
    ]


@pytest.mark.parametrize("solver", [Solver.batched, Solver.implicit])
def test_the_scores_are_the_sum_of_those_of_the_models(solver):
    (together,) = states(solver, TRIAL)
    (first,) = states(solver, TRIAL.replace(ensemble_size=1))

    assert together.user_factors.shape == (15, 6)
    assert (together.user_factors[:, :3] == first.user_factors).all()
    assert not np.allclose(together.user_factors[:, 3:], first.user_factors)
    second = together.user_factors[:, 3:] @ together.item_factors[:, 3:].T
    total = together.user_factors @ together.item_factors.T
    assert total == pytest.approx(first.user_factors @ first.item_factors.T + second, abs=1e-6)


@pytest.mark.parametrize("solver", [Solver.batched, Solver.implicit])
def test_goes_on_from_where_it_stopped(solver):
    half, whole = states(solver, TRIAL, checkpoints=(2, 4))
    (resumed,) = states(solver, TRIAL, start=half)

    assert (resumed.user_factors == whole.user_factors).all()
    assert (resumed.item_factors == whole.item_factors).all()


def test_the_models_are_not_those_of_the_next_seed():
    (of_first,) = states(Solver.implicit, TRIAL, seed=1)
    (of_next,) = states(Solver.implicit, TRIAL, seed=2)

    assert not np.allclose(of_first.user_factors[:, 3:], of_next.user_factors[:, :3])
