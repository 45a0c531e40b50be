"""The model of `implicit`: untrained, or one that has factors already."""

from typing import TYPE_CHECKING

from threadpoolctl import threadpool_limits

from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.ranking import Factors

if TYPE_CHECKING:
    from implicit.cpu.als import AlternatingLeastSquares


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
