"""The solvers by name."""

from collections.abc import Iterable

from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.hyperparameters import DIMENSIONS, Dimension, Hyperparameters
from recsys_pipeline.core.pattern import MOST_INTERACTIONS_OF_IMPLICIT
from recsys_pipeline.core.solver import Solver
from recsys_pipeline.engines.local.ensembles import Ensemble
from recsys_pipeline.engines.local.training import Trainer
from recsys_pipeline.machine.cores import usable_cores

# A block of CUDA threads has one for each factor.
_MOST_FACTORS_OF_GPU = 1024


def trainer_for(solver: Solver, num_threads: int = 0) -> Trainer:
    """The trainer of a solver; `num_threads` is for `implicit` alone, 0 takes all usable cores.

    Raises:
        InputError: the solver needs a device that is not there.
    """
    # Imported here: a package takes a while to load, and a search needs that of one solver alone.
    if solver is Solver.gpu:
        from recsys_pipeline.engines.local.gpu_als import GpuTrainer

        return Ensemble(GpuTrainer())
    if solver is Solver.batched:
        from recsys_pipeline.engines.local.batched import BatchedTrainer

        return Ensemble(BatchedTrainer())
    from recsys_pipeline.engines.local.implicit_als import ImplicitTrainer

    return Ensemble(ImplicitTrainer(num_threads or usable_cores()))


def trains_as_implicit(trial: Hyperparameters) -> bool:
    """Whether `implicit` can train this configuration too."""
    return _beyond_implicit(trial) is None


def is_addressable(solver: Solver, n_interactions: int) -> bool:
    """Whether a solver can address so many interactions."""
    return solver is Solver.batched or n_interactions <= MOST_INTERACTIONS_OF_IMPLICIT


def require_addressable(solver: Solver, n_interactions: int) -> None:
    """Refuse more interactions than a solver can address.

    Raises:
        InputError: a solver of `implicit` is asked to train on 2^31 interactions or more.
    """
    if not is_addressable(solver, n_interactions):
        raise InputError(
            f"solver `{solver.value}` has row pointers of 32 bits, and there are {n_interactions:,} "
            f"interactions, more than {MOST_INTERACTIONS_OF_IMPLICIT:,}. Choose solver `batched`."
        )


def require_solvable(solver: Solver, trials: Iterable[Hyperparameters]) -> None:
    """Refuse what a solver cannot do.

    Raises:
        InputError: a solver of `implicit` is asked for a value that only `batched` can train, or the solver
            needs a device that is not there.
    """
    if solver is Solver.batched:
        return
    if solver is Solver.gpu:
        from recsys_pipeline.engines.local.gpu_als import require_device

        require_device()
    for trial in trials:
        if dimension := _beyond_implicit(trial):
            raise InputError(
                f"solver `{solver.value}` trains {dimension.name} {dimension.of_implicit!r} alone, and "
                f"{getattr(trial, dimension.name)!r} is asked for. Choose solver `batched`, or leave "
                f"{dimension.name} out."
            )
        if solver is Solver.gpu and trial.factors > _MOST_FACTORS_OF_GPU:
            raise InputError(
                f"solver `gpu` trains at most {_MOST_FACTORS_OF_GPU} factors, and {trial.factors} are asked "
                "for. Choose solver `batched`, or an ensemble of smaller models."
            )


def _beyond_implicit(trial: Hyperparameters) -> Dimension | None:
    for dimension in DIMENSIONS:
        if dimension.of_implicit not in (None, getattr(trial, dimension.name)):
            return dimension
    return None


def nearest_solvable(solver: Solver, trial: Hyperparameters) -> Hyperparameters:
    """The trial with those values replaced that the solver cannot train."""
    if solver is Solver.batched:
        return trial
    if solver is Solver.gpu:
        trial = trial.replace(factors=min(trial.factors, _MOST_FACTORS_OF_GPU))
    return trial.replace(**{d.name: d.of_implicit for d in DIMENSIONS if d.of_implicit is not None})
