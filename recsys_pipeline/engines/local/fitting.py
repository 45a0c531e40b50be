"""The fits of a search, done by worker processes."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsys_pipeline.core.holdout import Split
from recsys_pipeline.core.metrics import K, Scores
from recsys_pipeline.core.ranks import unpacked_ranks
from recsys_pipeline.core.search import TrialResult
from recsys_pipeline.core.solver import Solver
from recsys_pipeline.engines.local.memory import Budget, fit_bytes
from recsys_pipeline.engines.local.methods import Task
from recsys_pipeline.engines.local.pool import Patience, WorkerPool
from recsys_pipeline.engines.local.training import Fit

_STATES = "states"


@dataclass(frozen=True)
class _FitJob:
    task: Task
    solver: Solver
    seed: int
    state: Path
    bytes: int
    num_threads: int
    reach: int

    @property
    def size(self) -> float:
        return self.task.fit.longest.width * len(self.task.fit.checkpoints)

    def message(self) -> Mapping[str, Any]:
        task = self.task
        return {
            "trial": task.fit.longest.as_dict(),
            "checkpoints": task.fit.checkpoints,
            "seed": self.seed,
            "solver": self.solver.value,
            "num_threads": self.num_threads,
            "reach": self.reach,
            "resume": str(self.state) if task.resume and self.state.exists() else None,
            "keep": str(self.state) if task.keep else None,
        }

    def work_until_answer(self, n_answers: int) -> float:
        """Factors times iterations."""
        stops = (0, *self.task.fit.checkpoints)
        # After the last answer it has only to say that it is done.
        iterations = stops[n_answers + 1] - stops[n_answers] if n_answers + 1 < len(stops) else 1
        return float(self.task.fit.longest.width * iterations)

    def result(self, n_answers: int, message: Mapping[str, Any]) -> TrialResult:
        trial = self.task.fit.trial(self.task.fit.checkpoints[n_answers])
        ranks = unpacked_ranks(message["ranks"])
        return TrialResult(trial, Scores(**message["scores"]), message["fit_seconds"], ranks=ranks)

    def failures(self, n_answers: int, reason: str) -> Iterator[TrialResult]:
        for iterations in self.task.fit.checkpoints[n_answers:]:
            yield TrialResult(self.task.fit.trial(iterations), None, float("nan"), reason)


class FitPool(WorkerPool):
    """Worker processes that train and score trials."""

    def __init__(
        self,
        splits: Sequence[Split],
        solver: Solver,
        seed: int,
        n_workers: int,
        patience: Patience | None = None,
        budget: Budget | None = None,
        num_threads: int = 1,
        reach: int = K,
    ) -> None:
        """Workers start when there is work for them; `num_threads` of each are for `implicit` alone.

        `reach` is up to which rank the ranks are told.
        """
        super().__init__(splits, n_workers, patience)
        self._room = budget.room if budget else math.inf
        self._shared, self._solver, self._seed, self._num_threads = splits, solver, seed, num_threads
        self._reach = reach

    def run(self, tasks: Sequence[Task]) -> Iterator[TrialResult]:
        """The result of each trial as it comes; one that fails, or whose worker dies, has no scores."""
        return self.do([self._job(task) for task in tasks], self._room)

    def _job(self, task: Task) -> _FitJob:
        memory = fit_bytes(self._shared, task.fit.longest)
        state = self._state_of(task.fit)
        return _FitJob(task, self._solver, self._seed, state, memory, self._num_threads, self._reach)

    def forget(self, fit: Fit) -> None:
        """Remove the state that was kept of a fit."""
        self._state_of(fit).unlink(missing_ok=True)

    def _state_of(self, fit: Fit) -> Path:
        name = "-".join(str(value) for value in fit.trial(0).as_dict().values())
        return self.folder / _STATES / f"{name.replace('/', '')}.npz"
