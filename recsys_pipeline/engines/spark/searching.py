"""A search on the cluster: many trials at a time, each split after the other."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys_pipeline.core.blending import FittedBlend
from recsys_pipeline.core.columns import SPLIT, USER_INDEX
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.holdout import Weights
from recsys_pipeline.core.hyperparameters import BM25, Hyperparameters
from recsys_pipeline.core.interactions import Datasets, Tables, require_known_events
from recsys_pipeline.core.lineage import Lineage
from recsys_pipeline.core.metrics import group_by_user, hits_of_groups, score
from recsys_pipeline.core.ranking import DIVERGED
from recsys_pipeline.core.scale import Weighting
from recsys_pipeline.core.search import TrialResult
from recsys_pipeline.engines.engine import Finished, Memory, SearchMethod, SearchPlan
from recsys_pipeline.engines.local.methods import Task, exhaustive, in_rounds
from recsys_pipeline.engines.local.training import Fit
from recsys_pipeline.engines.spark.blocks import sides_of
from recsys_pipeline.engines.spark.frames import Scratch
from recsys_pipeline.engines.spark.ranking import held_frame, ranks_of
from recsys_pipeline.engines.spark.session import told
from recsys_pipeline.engines.spark.splits import SplitFrames, of_split
from recsys_pipeline.engines.spark.training import Together, by_weighting, fit_together, train

# Factors of all fits that are trained together: a vector that travels has so many floats.
MOST_WIDTH = 1024


class SparkSearch:
    """See `recsys_pipeline.engines.engine.PreparedSearch`."""

    def __init__(
        self,
        opened: Callable[[], AbstractContextManager[Scratch]],
        bm25_matrix: Tables | Datasets,
        leave_one_out_split: pa.Table,
        plan: SearchPlan,
    ) -> None:
        """Refuse what the plan asks for and cannot be had.

        Raises:
            InputError: see `recsys_pipeline.engines.engine.Engine`.
        """
        self._opened, self._bm25_matrix = opened, bm25_matrix
        self._split, self._plan = leave_one_out_split, plan
        if plan.method is SearchMethod.halving:
            raise InputError(
                "grid_search_results: the Spark engine trains the trials of a search together, each to its "
                "end; set `strategy` to another than `halving`."
            )
        if plan.blend:
            raise _no_blend()
        with told(), opened() as scratch:
            frames = SplitFrames(scratch, bm25_matrix)
            require_known_events(plan.mappings, frames.events)
            frames.require_something_left(plan.mappings)
            if any(trial.weighting == BM25 for trial in plan.trials):
                frames.require_positive_weights()
        self._n_splits = int(leave_one_out_split[SPLIT].to_numpy().max()) + 1

    @cached_property
    def content(self) -> Mapping[str, str]:
        """By the states of the tables: the same rows have the same."""
        states = [Lineage.of(each) for each in (self._bm25_matrix, self._split)]
        fading = self._plan.fading
        return {
            name: hashlib.sha256(
                json.dumps(
                    [
                        "spark",
                        [state.write_id if state else None for state in states],
                        sorted(mapping.items()) if mapping else None,
                        fading.half_lives.get(name),
                    ]
                ).encode()
            ).hexdigest()
            for name, mapping in fading.mappings.items()
        }

    @property
    def memory(self) -> Memory:
        """Of the workers nobody knows here."""
        return Memory(
            f"trained on the cluster, trials of up to {MOST_WIDTH:,} factors together at a time", enough=True
        )

    @property
    def workers(self) -> int:
        """As one: the cluster does a step of all trials at once."""
        return 1

    def run(self, finished: Finished, remember: Callable[[TrialResult], None]) -> Iterator[TrialResult]:
        """See `recsys_pipeline.engines.engine.PreparedSearch`."""
        plan = self._plan
        groups = group_by_user(self._split[SPLIT].to_numpy(), self._split[USER_INDEX].to_numpy())

        def known(trials: Iterable[Hyperparameters]) -> Iterable[TrialResult]:
            return (result.by(plan.selection, *groups) for result in finished(trials))

        def run(tasks: Sequence[Task]) -> Iterator[TrialResult]:
            for result in self._trained([task.fit for task in tasks], *groups):
                remember(result)
                yield result.by(plan.selection, *groups)

        if plan.course:
            yield from in_rounds(plan.course, known, run, plan.most_steps)
        else:
            yield from exhaustive(plan.trials, known, run)

    def _trained(
        self, fits: Sequence[Fit], group: NDArray[np.int64], user: NDArray[np.int64]
    ) -> Iterator[TrialResult]:
        """The result of every trial of the fits; those that are trained together come together."""
        if not fits:
            return
        with told(), self._opened() as scratch:
            frames = SplitFrames(scratch, self._bm25_matrix)
            for some in fit_together(fits, MOST_WIDTH):
                ranks: dict[Hyperparameters, list[NDArray[np.int64]]] = {}
                seconds: dict[Hyperparameters, float] = {}
                failed: set[Hyperparameters] = set()
                for number in range(self._n_splits):
                    for trial, of_split_, lasted in self._ranked(scratch, frames, some, number):
                        seconds[trial] = seconds.get(trial, 0.0) + lasted
                        if of_split_ is None:
                            failed.add(trial)
                            continue
                        ranks.setdefault(trial, []).append(of_split_)
                        if number == self._n_splits - 1 and trial not in failed:
                            yield _result(trial, ranks.pop(trial), seconds[trial], group, user)
                for trial in sorted(failed):
                    yield TrialResult(trial, None, float("nan"), DIVERGED)

    def _ranked(
        self, scratch: Scratch, frames: SplitFrames, fits: Sequence[Fit], number: int
    ) -> Iterator[tuple[Hyperparameters, NDArray[np.int64] | None, float]]:
        """Of each trial the ranks of what a split holds out, None where the fit diverged, and its seconds."""
        plan = self._plan
        held = of_split(self._split, number)
        numbered = held_frame(scratch, held, frames.exclusions(held))
        trials = [fit.longest for fit in fits]
        weighed = frames.weighed(
            trials, plan.fading, self._split, number, weigh_all=plan.weights is Weights.all
        )
        by_user, by_item = sides_of(scratch, weighed)
        together = Together.of(fits, by_weighting(weighed.weightings, Weighting.of), plan.seed)
        for state in train(scratch, by_user, by_item, together):
            due = [place for place, fit in enumerate(fits) if state.iterations in fit.checkpoints]
            parts = [together.part(place) for place in due]
            reach = plan.selection.reach
            found = ranks_of(numbered, state.users, state.items, parts, reach)
            lasted = state.seconds / len(fits)
            for place, ranks in zip(due, found, strict=True):
                diverged = place in state.failed
                yield fits[place].trial(state.iterations), None if diverged else ranks, lasted
        for used in (weighed.pairs, by_user, by_item, state.users, state.items, numbered):
            used.remove()

    def reference(self, hyperparameters: Hyperparameters) -> TrialResult | None:  # noqa: ARG002
        """None: `implicit` trains on one machine."""
        return None

    def fit_blend(self, hyperparameters: Hyperparameters) -> FittedBlend | None:  # noqa: ARG002
        """Refused.

        Raises:
            InputError: always.
        """
        raise _no_blend()


def _no_blend() -> InputError:
    return InputError("grid_search_results: the Spark engine fits no blend; set `blend` to false.")


def _result(
    trial: Hyperparameters,
    ranks: Sequence[NDArray[np.int64]],
    seconds: float,
    group: NDArray[np.int64],
    user: NDArray[np.int64],
) -> TrialResult:
    of_all = np.concatenate(ranks).astype(np.uint8)
    scores = score(hits_of_groups(of_all, group), np.bincount(group), user)
    return TrialResult(trial, scores, seconds, ranks=of_all)
