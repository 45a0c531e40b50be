"""How far a search is: a log line a finished fit, and a bar under a terminal."""

import sys
import time
from collections.abc import Callable, Sequence
from typing import Self

from tqdm import tqdm

from recsys_pipeline.core.hyperparameters import Hyperparameters, varying
from recsys_pipeline.core.search import TrialResult, best_first
from recsys_pipeline.core.selecting import MAP_AT_10, Selection
from recsys_pipeline.reporting.model import told_values


class Progress:
    """Counts finished trials; a context manager."""

    def __init__(
        self,
        log: Callable[[str], None],
        trials: Sequence[Hyperparameters],
        in_journal: int,
        *,
        more_may_follow: bool = False,
        selection: Selection = MAP_AT_10,
        workers: int = 1,
    ) -> None:
        """Trials that are in the journal take no time and tell nothing of the time that is left.

        Where more trials may follow upon the results of these, nobody knows how many. The first trials say
        little of the time that is left, for each worker has just started: it is told from two trials a worker
        on.
        """
        self._first_guess_after = 2 * workers
        self._more_may_follow, self._selection = more_may_follow, selection
        self._log, self._n_trials, self._in_journal = log, len(trials), in_journal
        self._tried = dict.fromkeys(trials)
        self._varying = varying([trial.as_dict() for trial in self._tried])
        self._results: list[TrialResult] = []
        self._begin = time.monotonic()
        self._bar = tqdm(total=len(trials), unit="trial", disable=not sys.stderr.isatty())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def report(self, result: TrialResult) -> None:
        """Say what became of a trial, how many are done, the best so far and the time that is left."""
        self._results.append(result)
        done = len(self._results)
        self._bar.total = max(self._n_trials, done)
        self._bar.update()
        if done <= self._in_journal:
            return
        per_trial = (time.monotonic() - self._begin) / (done - self._in_journal)
        left = per_trial * (self._n_trials - done)
        best = best_first(self._results)[0].figure
        if result.hyperparameters not in self._tried:
            # Later rounds may differ in more than the first.
            self._tried[result.hyperparameters] = None
            self._varying = varying([trial.as_dict() for trial in self._tried])
        trial = result.hyperparameters.as_dict()
        told = told_values({name: trial[name] for name in self._varying})
        scored = result.figure is not None
        outcome = f"{self._selection.name} {result.figure:.4f}" if scored else f"failed: {result.failure}"
        if result.iterations_done:
            outcome += f", stopped after {result.iterations_done}"
        beyond = done > self._n_trials
        number = f"{done}" if beyond else f"{done} of {self._n_trials}"
        is_guess = done - self._in_journal < self._first_guess_after
        time_left = "" if beyond or is_guess else f", about {left:.0f} s left"
        if self._more_may_follow and not beyond:
            number, time_left = f"{number} or more", f"{time_left} of the first round" if time_left else ""
        self._log(
            f"trial {number}: {told}: {outcome}; "
            f"best so far {'none' if best is None else f'{best:.4f}'}{time_left}"
        )
