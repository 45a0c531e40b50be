"""The solvers by name."""

from enum import Enum

from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.search import Trainer
from recsys_pipeline.core.trials import ALPHA_W, Trial
from recsys_pipeline.engines.batched import BatchedTrainer
from recsys_pipeline.engines.ensembles import Ensemble
from recsys_pipeline.engines.local import ImplicitTrainer


class Solver(Enum):
    """Who solves ALS."""

    implicit = "implicit"
    batched = "batched"


def trainer_for(solver: Solver, num_threads: int = 0) -> Trainer:
    """The trainer of a solver; `num_threads` is for `implicit` alone, 0 takes all cores.

    Raises:
        InputError: the solver's package is not installed.
    """
    return Ensemble(BatchedTrainer() if solver is Solver.batched else ImplicitTrainer(num_threads))


def require_solvable(solver: Solver, trials: list[Trial]) -> None:
    """Refuse what a solver cannot do.

    Raises:
        InputError: `implicit` is asked for a dimension that only `batched` has.
    """
    for trial in trials:
        if solver is Solver.implicit and (trial.nu, trial.unobserved_weight, trial.confidence) != (
            0,
            1,
            ALPHA_W,
        ):
            raise InputError(
                f"solver `implicit` has nu 0, unobserved_weight 1 and confidence {ALPHA_W!r}; asked for are "
                f"nu {trial.nu:g}, unobserved_weight {trial.unobserved_weight:g} and {trial.confidence!r}. "
                "Choose solver `batched`."
            )
