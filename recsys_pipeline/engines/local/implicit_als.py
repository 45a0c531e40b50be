"""ALS on this machine, solved by `implicit`."""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from threadpoolctl import threadpool_limits

from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.ranking import Factors
from recsys_pipeline.engines.local.training import Checkpoint, Fit

if TYPE_CHECKING:
    from implicit.cpu.als import AlternatingLeastSquares
    from scipy.sparse import csr_matrix


class ImplicitTrainer:
    """Trains with `implicit.als.AlternatingLeastSquares` on the CPU."""

    def __init__(self, num_threads: int = 0) -> None:
        """`num_threads` of `implicit`; 0 takes all cores. It does not change the factors."""
        self.num_threads = num_threads

    def train(
        self, user_items: "csr_matrix", fit: Fit, seed: int, start: Checkpoint | None = None
    ) -> Iterator[Checkpoint]:
        """See `recsys_pipeline.engines.local.training.Trainer`."""
        if not (user_items.indptr.flags.writeable and user_items.indices.flags.writeable):
            # implicit cannot work on arrays that Arrow lends; only with alpha 1 does it not copy them itself.
            user_items = user_items.copy()
        model = new_model(fit.longest.replace(ensemble_size=1), seed, num_threads=self.num_threads)
        done, seconds = 0, 0.0
        if start:
            done, seconds = start.iterations, start.seconds
            model.user_factors, model.item_factors = start.user_factors, start.item_factors
        for checkpoint in fit.checkpoints:
            begin = time.perf_counter()
            # A further `fit` of the same object goes on from the factors it has reached.
            model.iterations = checkpoint - done
            with threadpool_limits(1, "blas"):
                model.fit(user_items, show_progress=False)
            seconds += time.perf_counter() - begin
            done = checkpoint
            yield Checkpoint(done, model.user_factors, model.item_factors, seconds)


def new_model(hyperparameters: Hyperparameters, seed: int, num_threads: int = 0) -> "AlternatingLeastSquares":
    """An untrained `implicit` model with these hyperparameters."""
    # Imported here: it takes a while, and who only names the solver needs it not.
    from implicit.cpu.als import AlternatingLeastSquares

    # implicit slows down, and warns, when BLAS runs threads of its own beside implicit's. The limit is set
    # after the import, because it holds for libraries that are loaded.
    with threadpool_limits(1, "blas"):
        return AlternatingLeastSquares(
            factors=hyperparameters.width,
            regularization=hyperparameters.regularization,
            alpha=hyperparameters.alpha,
            iterations=hyperparameters.iterations,
            num_threads=num_threads,
            random_state=seed,
        )


def trained_model(
    hyperparameters: Hyperparameters,
    seed: int,
    factors: Factors,
) -> "AlternatingLeastSquares":
    """The `implicit` model that has these factors."""
    model = new_model(hyperparameters, seed)
    model.user_factors, model.item_factors = factors.users, factors.items
    return model
