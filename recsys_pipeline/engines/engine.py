"""The seam between the graph and whoever computes it.

From tables and hyperparameters to the ranks of the held-out interactions, and to factor tables: an engine
needs no more, and how it represents a matrix or resumes a fit is its own business.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from typing import NamedTuple, Protocol

import pyarrow as pa

from recsys_pipeline.core.blending import Blend
from recsys_pipeline.core.factors import FactorTables
from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.interactions import Datasets, Mappings, Tables
from recsys_pipeline.core.results import Winner
from recsys_pipeline.core.search import TrialResult


class SearchMethod(Enum):
    """How the lists of the grid are searched."""

    grid = "grid"
    halving = "halving"
    random = "random"


class SearchPlan(NamedTuple):
    """What a search is asked to do.

    Attributes:
        trials: the configurations to try.
        mappings: strengths of the events that the trials name.
        solver: by name, one of the engine's.
        seed: of the random starts.
        method: halving stops fits early, all others train every trial to its end.
        first_rung: iterations before halving compares for the first time.
        workers: fits side by side; 0 takes what the machine offers.
        most_silent_seconds: how long a worker may say nothing before its first answer.
        memory_limit: GB for all fits together; 0 takes a share of what the machine has.
    """

    trials: Sequence[Hyperparameters]
    mappings: Mappings
    solver: str
    seed: int
    method: SearchMethod
    first_rung: int
    workers: int
    most_silent_seconds: float
    memory_limit: float = 0.0


class Memory(NamedTuple):
    """What memory allows.

    Attributes:
        told: the limit, what data and fits take, and what follows, for people.
        enough: whether it is enough for one fit at least, as far as that can be estimated.
    """

    told: str
    enough: bool


class PreparedSearch(Protocol):
    """A search whose data is ready."""

    @property
    def content(self) -> Mapping[str, str]:
        """By name of a mapping, a digest of all that the scores of its trials depend on."""
        ...

    @property
    def workers(self) -> int:
        """Fits side by side."""
        ...

    @property
    def memory(self) -> Memory:
        """How much of it there is, and what that decided."""
        ...

    @property
    def candidates(self) -> Sequence[Hyperparameters]:
        """Configurations whose results are of use, should somebody know them from an earlier search."""
        ...

    def run(
        self, known: Mapping[Hyperparameters, TrialResult], remember: Callable[[TrialResult], None]
    ) -> Iterator[TrialResult]:
        """The result of each trial as it comes; one that fails is a result without scores.

        Args:
            known: results that are not computed again.
            remember: told every result that was computed, those that are no trial of the plan too.
        """
        ...

    def fit_blend(self, hyperparameters: Hyperparameters) -> Blend | None:
        """The blend with the ALS scores of these hyperparameters, learned from the first split.

        None where no held-out item is within its reach.
        """
        ...


class Engine(Protocol):
    """Who computes."""

    def search(
        self, bm25_matrix: Tables | Datasets, leave_one_out_split: pa.Table, plan: SearchPlan
    ) -> PreparedSearch:
        """Get ready to rank the held-out interactions by every trial.

        Raises:
            InputError: the plan asks for what the data or the solver does not have.
        """
        ...

    def refit(self, bm25_matrix: Tables | Datasets, winner: Winner) -> FactorTables:
        """Train the winning configuration on all interactions.

        Raises:
            FloatingPointError: the fit diverged.
        """
        ...
