"""How many fits the memory is enough for."""

from collections.abc import Sequence
from typing import NamedTuple, Self

from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.holdout import Split
from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.pattern import INTERACTIONS_AT_ONCE
from recsys_pipeline.engines.engine import Memory
from recsys_pipeline.machine.memory import told


def data_bytes(splits: Sequence[Split]) -> int:
    """What the arrays that all fits share take."""
    arrays = {id(array): array.nbytes for split in splits for array in split.arrays()}
    return sum(arrays.values())


def fit_bytes(splits: Sequence[Split], trial: Hyperparameters) -> int:
    """What one fit of this trial takes beside the shared arrays, estimated: its worst moment."""
    n_interactions = [split.training[trial.strengths_name].n_interactions for split in splits]
    of_a_factor = 4 * trial.width
    factors = of_a_factor * sum(sum(split.pattern.shape) for split in splits)
    if trial.ensemble_size > 1:
        factors *= 2  # of each model, and side by side
    # The larger side once more: the random start is scaled; to be ranked by, items are sorted.
    side = of_a_factor * max(max(split.pattern.shape) for split in splits)
    # Of each interaction its weight; of each model a confidence by user, and by item with the user's index.
    # `implicit` has a copy of the item's index too.
    matrices = (4 + 4 + 12 * trial.ensemble_size) * sum(n_interactions)
    # Before there are any: the weights, and what BM25 computes with 64 bits, a block at a time.
    weighing = 4 * sum(n_interactions) + 32 * min(max(n_interactions), INTERACTIONS_AT_ONCE)
    return max(factors + side + matrices, weighing)


class Budget(NamedTuple):
    """The memory of a search.

    Attributes:
        limit: bytes for this process and its workers together.
        data: bytes of the arrays of the splits: this process has them, and all workers share one mapped copy.
        splits: what is trained on.
        wanted: fits side by side, were there memory enough.
    """

    limit: int
    data: int
    splits: Sequence[Split]
    wanted: int

    @classmethod
    def of(cls, limit: int, splits: Sequence[Split], wanted: int) -> Self:
        """The budget of a search over these splits.

        Raises:
            InputError: the data alone take more than the limit.
        """
        data = 2 * data_bytes(splits)
        if data > limit:
            raise InputError(
                f"memory limit {told(limit)}: in the search the interactions alone take "
                f"{told(data)}. Raise memory_limit of grid_search_results (RECSYS_MEMORY_LIMIT), or "
                "lower n_splits of leave_one_out_split."
            )
        return cls(limit, data, splits, wanted)

    @property
    def room(self) -> int:
        """Bytes for all fits together."""
        return self.limit - self.data

    def fits_at_once(self, widest: Hyperparameters) -> int:
        """How many fits of this trial may live side by side: one at least, for an estimate may be wrong."""
        return max(1, min(self.wanted, self.room // fit_bytes(self.splits, widest)))

    def memory(self, trials: Sequence[Hyperparameters]) -> Memory:
        """What it allows for the widest of the trials."""
        widest = max(trials, key=lambda trial: fit_bytes(self.splits, trial))
        fit, n = fit_bytes(self.splits, widest), self.fits_at_once(widest)
        said = (
            f"memory limit {told(self.limit)}: data {told(self.data)}, "
            f"a fit of {widest.width} factors {told(fit)}"
        )
        if self.data + fit > self.limit:
            return Memory(
                f"{said}, so even one may not fit: expect the worker to be killed, or raise memory_limit of "
                "grid_search_results (RECSYS_MEMORY_LIMIT), or leave the widest trials out",
                enough=False,
            )
        if n < self.wanted:
            said += f", so {n} {'worker' if n == 1 else 'workers'} instead of {self.wanted}"
        return Memory(said, enough=True)
