"""The solvers by name."""

from collections.abc import Iterable
from enum import Enum

from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.hyperparameters import DIMENSIONS, Hyperparameters
from recsys_pipeline.core.pattern import MOST_INTERACTIONS_OF_IMPLICIT
from recsys_pipeline.engines.local.batched import BatchedTrainer
from recsys_pipeline.engines.local.cores import usable_cores
from recsys_pipeline.engines.local.ensembles import Ensemble
from recsys_pipeline.engines.local.implicit_als import ImplicitTrainer
from recsys_pipeline.engines.local.training import Trainer


class Solver(Enum):
    """Who solves ALS."""

    implicit = "implicit"
    batched = "batched"


def trainer_for(solver: Solver, num_threads: int = 0) -> Trainer:
    """The trainer of a solver; `num_threads` is for `implicit` alone, 0 takes all usable cores.

    Raises:
        InputError: the solver's package is not installed.
    """
    return Ensemble(
        BatchedTrainer() if solver is Solver.batched else ImplicitTrainer(num_threads or usable_cores())
    )


def require_addressable(solver: Solver, n_interactions: int) -> None:
    """Refuse more interactions than a solver can address.

    Raises:
        InputError: `implicit` is asked to train on 2^31 interactions or more.
    """
    if solver is Solver.implicit and n_interactions > MOST_INTERACTIONS_OF_IMPLICIT:
        raise InputError(
            f"solver `implicit` has row pointers of 32 bits, and there are {n_interactions:,} interactions, "
            f"more than {MOST_INTERACTIONS_OF_IMPLICIT:,}. Choose solver `batched`."
        )


def require_solvable(solver: Solver, trials: Iterable[Hyperparameters]) -> None:
    """Refuse what a solver cannot do.

    Raises:
        InputError: `implicit` is asked for a value that only `batched` can train.
    """
    if solver is not Solver.implicit:
        return
    for trial in trials:
        for dimension in DIMENSIONS:
            value = getattr(trial, dimension.name)
            if dimension.of_implicit not in (None, value):
                raise InputError(
                    f"solver `implicit` trains {dimension.name} {dimension.of_implicit!r} alone, and "
                    f"{value!r} is asked for. Choose solver `batched`, or leave {dimension.name} out."
                )
