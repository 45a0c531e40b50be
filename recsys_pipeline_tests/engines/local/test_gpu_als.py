"""`implicit`'s CUDA solver: what can be said without a device, by one that computes on the CPU."""

import importlib.util

import implicit.gpu
import implicit.gpu.als
import numpy as np
import pytest
from implicit.cpu.als import AlternatingLeastSquares

from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.solver import Solver
from recsys_pipeline.engines.local.gpu_als import GpuTrainer
from recsys_pipeline.engines.local.implicit_als import ImplicitTrainer
from recsys_pipeline.engines.local.solvers import require_solvable, trainer_for
from recsys_pipeline.engines.local.training import Fit
from recsys_pipeline_tests.worlds import pattern_of

TRIAL = Hyperparameters(factors=6, regularization=0.1, alpha=7.0, iterations=4, bm25_K1=100.0, bm25_B=0.8)
USER_ITEMS = pattern_of([[0, 1], [1, 2], [2, 3], [0, 3]], 4).user_items(np.linspace(0.5, 1.5, 8))


class OnTheDevice:
    """Factors that only `to_numpy` brings back."""

    def __init__(self, values):
        self._values = values.copy()

    def to_numpy(self):
        return self._values


class CudaInPlace:
    """Takes and gives factors as `implicit.gpu.als` does and, like its `fit`, looks at no alpha."""

    def __init__(self, factors, regularization):
        self._model = AlternatingLeastSquares(factors, regularization, alpha=1.0, num_threads=1)
        self.user_factors = self.item_factors = self.iterations = None

    def fit(self, user_items, show_progress):
        self._model.user_factors = self.user_factors.to_numpy()
        self._model.item_factors = self.item_factors.to_numpy()
        self._model.iterations = self.iterations
        self._model.fit(user_items, show_progress=show_progress)
        self.user_factors = OnTheDevice(self._model.user_factors)
        self.item_factors = OnTheDevice(self._model.item_factors)


@pytest.fixture
def device(monkeypatch):
    monkeypatch.setattr(implicit.gpu, "HAS_CUDA", True)
    monkeypatch.setattr(implicit.gpu, "Matrix", OnTheDevice, raising=False)
    monkeypatch.setattr(implicit.gpu.als, "AlternatingLeastSquares", CudaInPlace)


def states(trainer, checkpoints, start=None):
    fit = Fit(TRIAL.replace(iterations=checkpoints[-1]), checkpoints)
    return [
        (state.iterations, state.user_factors.copy(), state.item_factors.copy())
        for state in trainer.train(USER_ITEMS, fit, 3, start)
    ]


@pytest.mark.usefixtures("device")
def test_it_starts_weighs_and_stops_as_the_reference_does():
    on_device, reference = states(GpuTrainer(), (1, 4)), states(ImplicitTrainer(1), (1, 4))

    for (n, users, items), (expected, of_users, of_items) in zip(on_device, reference, strict=True):
        assert n == expected
        np.testing.assert_allclose(users, of_users, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(items, of_items, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("device")
def test_it_goes_on_from_where_an_earlier_fit_stopped():
    trainer = GpuTrainer()
    (kept,) = trainer.train(USER_ITEMS, Fit(TRIAL.replace(iterations=2), (2,)), 3)
    ((_, resumed, _),) = states(trainer, (4,), kept)
    ((_, whole, _),) = states(trainer, (4,))

    assert resumed == pytest.approx(whole)


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize(
    ("change", "told"),
    [
        pytest.param({"nu": 0.5}, "solver `gpu` trains nu 0.0 alone", id="beyond implicit"),
        pytest.param({"factors": 1025}, "trains at most 1024 factors", id="beyond a block of threads"),
    ],
)
def test_it_refuses_what_it_cannot_train(change, told):
    require_solvable(Solver.gpu, [TRIAL])

    with pytest.raises(InputError, match=told):
        require_solvable(Solver.gpu, [TRIAL, TRIAL.replace(**change)])


@pytest.mark.parametrize(
    ("has_rmm", "told"), [(True, "CUDA finds no NVIDIA device"), (False, "the package rmm is not installed")]
)
def test_without_a_device_it_says_what_is_missing(has_rmm, told, monkeypatch):
    monkeypatch.setattr(implicit.gpu, "HAS_CUDA", False)
    monkeypatch.setattr(implicit.gpu, "HAS_RMM", has_rmm)

    for ask in (lambda: require_solvable(Solver.gpu, [TRIAL]), lambda: trainer_for(Solver.gpu)):
        with pytest.raises(InputError, match=rf"solver `gpu` cannot run here: {told}.* Choose solver"):
            ask()


@pytest.mark.skipif(importlib.util.find_spec("rmm") is None, reason="needs a device and rmm")
def test_a_real_device_agrees_with_the_reference():
    ((_, users, _),) = states(GpuTrainer(), (4,))
    ((_, expected, _),) = states(ImplicitTrainer(1), (4,))

    np.testing.assert_allclose(users, expected, rtol=1e-2, atol=1e-4)
