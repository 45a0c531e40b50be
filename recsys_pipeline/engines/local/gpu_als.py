"""ALS on a graphics card, solved by `implicit`'s CUDA kernels."""

import time
import warnings
from collections.abc import Iterator
from typing import Any

from scipy.sparse import csr_matrix

from recsys_pipeline.core.errors import InputError
from recsys_pipeline.engines.local.training import Checkpoint, Fit, random_start


def require_device() -> Any:
    """`implicit.gpu`, with a device.

    Raises:
        InputError: there is none, or what it takes is not installed.
    """
    with warnings.catch_warnings():
        # It warns of what is said below.
        warnings.simplefilter("ignore")
        import implicit.gpu
    if implicit.gpu.HAS_CUDA:
        return implicit.gpu
    lacking = "CUDA finds no NVIDIA device"
    if not implicit.gpu.HAS_RMM:
        lacking = "the package rmm is not installed (pip install rmm-cu13)"
    raise InputError(f"solver `gpu` cannot run here: {lacking}. Choose solver `batched`.")


class GpuTrainer:
    """Trains with `implicit.gpu.als.AlternatingLeastSquares`, from the random start that the others have."""

    def __init__(self) -> None:
        """Raises `InputError` where there is no device."""
        self._gpu = require_device()

    def train(
        self, user_items: csr_matrix, fit: Fit, seed: int, start: Checkpoint | None = None
    ) -> Iterator[Checkpoint]:
        """See `recsys_pipeline.engines.local.training.Trainer`.

        The CUDA kernel sets a row whose factors become NaN to 0, so that a fit that diverged shows in its
        scores alone.
        """
        from implicit.gpu.als import AlternatingLeastSquares

        trial = fit.longest
        if start:
            done, seconds, users, items = (
                start.iterations,
                start.seconds,
                start.user_factors,
                start.item_factors,
            )
        else:
            done, seconds = 0, 0.0
            users, items = random_start(user_items.shape, trial.factors, seed)
        # Its `fit` does not look at alpha.
        confidence = user_items.astype("float32") * trial.alpha
        model = AlternatingLeastSquares(factors=trial.factors, regularization=trial.regularization)
        model.user_factors, model.item_factors = self._gpu.Matrix(users), self._gpu.Matrix(items)
        for checkpoint in fit.checkpoints:
            begin = time.perf_counter()
            # A further `fit` of the same object goes on from the factors it has reached.
            model.iterations = checkpoint - done
            model.fit(confidence, show_progress=False)
            reached = model.user_factors.to_numpy(), model.item_factors.to_numpy()
            seconds += time.perf_counter() - begin
            done = checkpoint
            yield Checkpoint(done, *reached, seconds)
