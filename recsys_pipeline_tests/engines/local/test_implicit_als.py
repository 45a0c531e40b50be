"""The trainer on `implicit`."""

import subprocess
import sys

import numpy as np
import pytest
from implicit.cpu.als import AlternatingLeastSquares
from threadpoolctl import threadpool_info, threadpool_limits

from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.engines.local.implicit_als import ImplicitTrainer
from recsys_pipeline.engines.local.training import Fit
from recsys_pipeline_tests.worlds import pattern_of

FIT = Fit(
    Hyperparameters(factors=4, regularization=0.1, alpha=7.0, iterations=5, bm25_K1=100.0, bm25_B=0.8), (2, 5)
)


def world():
    rng = np.random.default_rng(0)
    pattern = pattern_of([rng.choice(25, 6, replace=False) for _ in range(20)], 25)
    return pattern.user_items(rng.random(pattern.n_interactions))


def test_each_checkpoint_is_a_plain_fit_of_so_many_iterations():
    user_items = world()
    for state in ImplicitTrainer().train(user_items, FIT, seed=3):
        with threadpool_limits(1, "blas"):
            plain = AlternatingLeastSquares(
                4, regularization=0.1, alpha=7.0, iterations=state.iterations, random_state=3, num_threads=1
            )
            plain.fit(user_items, show_progress=False)
        assert np.array_equal(state.user_factors, plain.user_factors)
        assert np.array_equal(state.item_factors, plain.item_factors)


@pytest.mark.parametrize("alpha", [1.0, 7.0])
def test_trains_on_arrays_that_must_not_be_written_to(alpha):
    fit = Fit(FIT.longest.replace(alpha=alpha), (2,))
    plain, lent = world(), world()
    for array in (lent.data, lent.indices, lent.indptr):
        array.flags.writeable = False
    (expected,), (state,) = (ImplicitTrainer().train(each, fit, seed=3) for each in (plain, lent))

    assert np.array_equal(state.item_factors, expected.item_factors)


def test_a_fit_goes_on_from_where_an_earlier_one_stopped():
    user_items = world()
    first, last = (
        state._replace(user_factors=state.user_factors.copy(), item_factors=state.item_factors.copy())
        for state in ImplicitTrainer().train(user_items, FIT, seed=3)
    )
    (resumed,) = ImplicitTrainer().train(user_items, Fit(FIT.longest, (5,)), seed=3, start=first)

    assert np.array_equal(resumed.item_factors, last.item_factors)
    assert resumed.seconds > first.seconds


def test_blas_has_its_threads_back_after_a_fit():
    def threads():
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    before = threads()
    list(ImplicitTrainer().train(world(), FIT, seed=3))
    assert threads() == before


def test_the_first_model_of_a_process_has_one_blas_thread():
    """Else `implicit` warns: its package, and the BLAS that it brings, are loaded with the first model."""
    code = (
        "from recsys_pipeline.core.hyperparameters import Hyperparameters; "
        "from recsys_pipeline.engines.local.implicit_als import new_model; "
        "new_model(Hyperparameters(factors=4, regularization=0.1, alpha=1.0, iterations=1, bm25_K1=1.0, "
        "bm25_B=0.5), seed=1)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")
