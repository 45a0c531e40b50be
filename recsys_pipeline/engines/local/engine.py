"""The engine of this machine."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from numpy.typing import NDArray

from recsys_pipeline.core.baseline_tuning import BaselineResult
from recsys_pipeline.core.blending import MOST_CHOICES, Choices, FittedBlend, fit_blend, terms_of
from recsys_pipeline.core.holdout import Split, Weights
from recsys_pipeline.core.hyperparameters import BM25, Hyperparameters
from recsys_pipeline.core.interactions import (
    Datasets,
    Interactions,
    Mappings,
    Tables,
    require_known_events,
)
from recsys_pipeline.core.model import Model
from recsys_pipeline.core.offer import Offer
from recsys_pipeline.core.results import Winner
from recsys_pipeline.core.scale import Scale, Weighting
from recsys_pipeline.core.search import TrialResult, groups_of
from recsys_pipeline.core.solver import Solver
from recsys_pipeline.core.strengths import EventRules
from recsys_pipeline.core.weighting import weigh
from recsys_pipeline.engines.engine import (
    BaselinePlan,
    Evaluated,
    EvaluationPlan,
    ExportPlan,
    Finished,
    HeldOut,
    HoldOutPlan,
    Matrix,
    Noted,
    PreparedSearch,
    Refitted,
    SearchMethod,
    SearchPlan,
    StrengthsFacts,
    Window,
)
from recsys_pipeline.engines.local.aggregation import interaction_strengths, window_of
from recsys_pipeline.engines.local.compiling import ready
from recsys_pipeline.engines.local.contenders import GRAPH_STRENGTHS
from recsys_pipeline.engines.local.days import events_of_days
from recsys_pipeline.engines.local.evaluating import evaluate
from recsys_pipeline.engines.local.exporting import recommendations, similar_items
from recsys_pipeline.engines.local.fitting import FitPool
from recsys_pipeline.engines.local.memory import Budget
from recsys_pipeline.engines.local.methods import Task, exhaustive, halving, in_rounds
from recsys_pipeline.engines.local.pool import Patience
from recsys_pipeline.engines.local.preparation import (
    hold_out,
    matrix,
    require_positive_weights,
    strengths_facts,
)
from recsys_pipeline.engines.local.refitting import refit
from recsys_pipeline.engines.local.solvers import (
    is_addressable,
    nearest_solvable,
    require_addressable,
    require_solvable,
    trainer_for,
    trains_as_implicit,
)
from recsys_pipeline.engines.local.training import fits_for, train_to_the_end
from recsys_pipeline.engines.local.tuning import tune_baselines
from recsys_pipeline.machine.cores import usable_cores
from recsys_pipeline.machine.memory import memory_limit


class LocalEngine:
    """Trains in worker processes, all arrays in memory."""

    def each(self, work: Callable[[str], Iterable[Noted]], parts: Sequence[str]) -> Iterator[Iterable[Noted]]:
        """See `recsys_pipeline.engines.engine.Engine`; one after the other, while they are read."""
        return map(work, parts)

    def strengths(self, raw_feedback: ds.Dataset, rules: EventRules, most_bytes: int) -> pa.RecordBatchReader:
        """See `recsys_pipeline.engines.engine.Engine`."""
        return interaction_strengths(raw_feedback, *rules, most_bytes=most_bytes)

    def window(self, raw_feedback: ds.Dataset, window_days: float, most_bytes: int) -> Window:
        """See `recsys_pipeline.engines.engine.Engine`."""
        return window_of(raw_feedback, window_days, most_bytes=most_bytes)

    def events_of_days(self, raw_feedback: ds.Dataset) -> dict[str, dict[date, int]]:
        """See `recsys_pipeline.engines.engine.Engine`."""
        return events_of_days(raw_feedback)

    def strengths_facts(self, feedback_strengths: ds.Dataset) -> StrengthsFacts:
        """See `recsys_pipeline.engines.engine.Engine`."""
        return strengths_facts(feedback_strengths)

    def matrix(self, feedback_strengths: ds.Dataset, k1: float, b: float) -> Matrix:
        """See `recsys_pipeline.engines.engine.Engine`."""
        return matrix(feedback_strengths, k1, b)

    def hold_out(self, bm25_matrix: Tables | Datasets, plan: HoldOutPlan) -> HeldOut:
        """See `recsys_pipeline.engines.engine.Engine`."""
        return hold_out(bm25_matrix, plan)

    def nearest_solvable(self, solver: Solver, trial: Hyperparameters) -> Hyperparameters:
        """See `recsys_pipeline.engines.engine.Engine`."""
        return nearest_solvable(solver, trial)

    def scales(
        self, bm25_matrix: Tables | Datasets, mappings: Mappings, weightings: Iterable[Weighting]
    ) -> Mapping[Weighting, Scale]:
        """See `recsys_pipeline.engines.engine.Engine`."""
        interactions = Interactions.from_tables(bm25_matrix)
        require_known_events(mappings, list(interactions.counts))
        pattern = interactions.pattern
        scales = {}
        for weighting in dict.fromkeys(weightings):
            strengths = interactions.strengths_by(mappings[weighting.strengths], weighting.half_life_days)
            known = strengths > 0
            weighed = pattern if known.all() else pattern.select(known)
            weights = weigh(weighed, strengths[known], weighting.trial())
            scales[weighting] = Scale.of(pattern.shape, weights)
        return scales

    def search(
        self, bm25_matrix: Tables | Datasets, leave_one_out_split: pa.Table, plan: SearchPlan
    ) -> PreparedSearch:
        """See `recsys_pipeline.engines.engine.Engine`."""
        interactions = Interactions.from_tables(bm25_matrix)
        require_known_events(plan.mappings, list(interactions.counts))
        if any(trial.weighting == BM25 for trial in plan.trials):
            require_positive_weights(interactions)
        solver = Solver(plan.solver)
        require_solvable(solver, plan.trials)
        require_addressable(solver, interactions.pattern.n_interactions)
        mappings, half_lives = plan.fading
        mappings = {**mappings, **({GRAPH_STRENGTHS: plan.graph.strengths} if plan.graph else {})}
        weigh_all = plan.weights is Weights.all
        splits = interactions.splits(
            leave_one_out_split, mappings, weigh_all=weigh_all, half_lives=half_lives
        )
        return LocalSearch(interactions, list(splits), plan)

    def baselines(
        self,
        bm25_matrix: Tables | Datasets,
        leave_one_out_split: pa.Table,
        plan: BaselinePlan,
        report: Callable[[str], None],
    ) -> list[BaselineResult]:
        """See `recsys_pipeline.engines.engine.Engine`."""
        interactions = Interactions.from_tables(bm25_matrix)
        require_known_events(plan.mappings, list(interactions.counts))
        return tune_baselines(interactions, leave_one_out_split, plan, report)

    def refit(self, bm25_matrix: Tables | Datasets, winner: Winner) -> Refitted:
        """See `recsys_pipeline.engines.engine.Engine`."""
        return refit(bm25_matrix, winner)

    def evaluate(
        self,
        bm25_matrix: Tables | Datasets,
        held_out: pa.Table,
        plan: EvaluationPlan,
        report: Callable[[str], None],
    ) -> Evaluated:
        """See `recsys_pipeline.engines.engine.Engine`."""
        return evaluate(Interactions.from_tables(bm25_matrix), held_out, plan, report)

    def recommendations(self, model: Model, offer: Offer, plan: ExportPlan) -> pa.RecordBatchReader:
        """See `recsys_pipeline.engines.engine.Engine`."""
        return recommendations(model, offer, plan)

    def similar_items(self, model: Model, offer: Offer, plan: ExportPlan) -> pa.RecordBatchReader:
        """See `recsys_pipeline.engines.engine.Engine`."""
        return similar_items(model, offer, plan)


class LocalSearch:
    """A search over splits in memory."""

    def __init__(self, interactions: Interactions, splits: list[Split], plan: SearchPlan) -> None:
        self._interactions, self._splits, self._plan = interactions, splits, plan
        # A device does one fit at a time.
        wanted = 1 if Solver(plan.solver) is Solver.gpu else plan.workers or usable_cores()
        limit = memory_limit(plan.memory_limit)
        self._budget = Budget.of(limit, splits, wanted=wanted)
        self.memory = self._budget.memory(plan.trials)
        self.workers = self._budget.wanted

    @cached_property
    def content(self) -> Mapping[str, str]:
        """See `recsys_pipeline.engines.engine.PreparedSearch`."""
        return {
            name: _digest(array for split in self._splits for array in split.content(name))
            for name in self._plan.fading.mappings
        }

    def run(self, finished: Finished, remember: Callable[[TrialResult], None]) -> Iterator[TrialResult]:
        """See `recsys_pipeline.engines.engine.PreparedSearch`."""
        plan = self._plan
        patience = Patience(at_most=plan.most_silent_seconds)
        solver = Solver(plan.solver)
        group, user = groups_of(self._splits)

        def by(results: Iterable[TrialResult]) -> Iterator[TrialResult]:
            return (result.by(plan.selection, group, user) for result in results)

        def known(trials: Iterable[Hyperparameters]) -> Iterable[TrialResult]:
            return by(finished(trials))

        reach = plan.selection.reach
        workers = self.workers
        with FitPool(self._splits, solver, plan.seed, workers, patience, self._budget, reach=reach) as pool:

            def run(tasks: Sequence[Task]) -> Iterator[TrialResult]:
                for result in by(pool.run(tasks)):
                    remember(result)
                    yield result

            if plan.method is SearchMethod.halving:
                yield from halving(plan.trials, known, run, plan.first_rung, pool.forget, plan.incumbent)
            elif plan.course:
                yield from in_rounds(plan.course, known, run, plan.most_steps)
            else:
                yield from exhaustive(plan.trials, known, run)

    def reference(self, hyperparameters: Hyperparameters) -> TrialResult | None:
        """See `recsys_pipeline.engines.engine.PreparedSearch`."""
        plan = self._plan
        if Solver(plan.solver) is Solver.implicit or not trains_as_implicit(hyperparameters):
            return None
        if not is_addressable(Solver.implicit, self._interactions.pattern.n_interactions):
            return None
        patience = Patience(at_most=plan.most_silent_seconds)
        # One fit, so all cores are for it.
        threads = plan.workers or usable_cores()
        with FitPool(self._splits, Solver.implicit, plan.seed, 1, patience, num_threads=threads) as pool:
            (result,) = pool.run([Task(fit) for fit in fits_for([hyperparameters])])
        return result

    def fit_blend(self, hyperparameters: Hyperparameters) -> FittedBlend | None:
        """See `recsys_pipeline.engines.engine.PreparedSearch`."""
        graph = self._plan.graph
        if graph:
            ready("recsys_pipeline.core.graph_loops")
        choices = [self._choices(split, hyperparameters) for split in self._splits]
        return fit_blend(Choices.together(choices), graph)

    def _choices(self, split: Split, hyperparameters: Hyperparameters) -> Choices:
        seed, graph = self._plan.seed, self._plan.graph
        trainer = trainer_for(Solver(self._plan.solver))
        state = train_to_the_end(trainer, split.user_items(hyperparameters), hyperparameters, seed)
        history = split.history(self._interactions.rules.target_events)
        rows = split.graph_rows(graph, GRAPH_STRENGTHS) if graph else None
        return Choices.of(
            terms_of(state.factors, history, graph, rows),
            split.exclusions,
            split.users[split.can_be_hit],
            split.items[split.can_be_hit],
            seed,
            MOST_CHOICES // len(self._splits),
        )


def _digest(arrays: Iterable[NDArray[Any]]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
