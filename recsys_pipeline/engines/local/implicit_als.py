"""ALS on this machine, solved by `implicit`."""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from threadpoolctl import threadpool_limits

from recsys_pipeline.core.implicit_model import new_model
from recsys_pipeline.engines.local.training import Checkpoint, Fit

if TYPE_CHECKING:
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
