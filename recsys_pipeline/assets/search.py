"""The search."""

import re
import time
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import pyarrow as pa
from dagster import AssetExecutionContext, Config, MaterializeResult, asset
from pydantic import Field, model_validator

from recsys_pipeline.assets.pairs import Pairs, Tables
from recsys_pipeline.assets.results import ranks_table, results_table
from recsys_pipeline.assets.splitting import holdouts
from recsys_pipeline.core import columns
from recsys_pipeline.core.blending import fit_blend
from recsys_pipeline.core.comparison import Prefer, choose, compare_with_best
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.holdout import Holdout
from recsys_pipeline.core.lists import by_factors
from recsys_pipeline.core.search import SearchData, SplitData, TrialResult, best_first
from recsys_pipeline.core.strategies import SearchStrategy, Task, exhaustive, halving
from recsys_pipeline.core.trials import (
    ALPHA_W,
    BM25,
    DEFAULT_STRENGTHS,
    NO_WEIGHTING,
    ONE_PLUS_ALPHA_W,
    Trial,
    draw,
    fits_for,
    grid,
)
from recsys_pipeline.core.weighting import bm25_weights
from recsys_pipeline.engines.pool import WorkerPool, usable_cores
from recsys_pipeline.engines.solvers import Solver, require_solvable, trainer_for
from recsys_pipeline.failures import sorted_failures
from recsys_pipeline.reporting.metadata import rounded, shape_metadata
from recsys_pipeline.reporting.progress import Progress
from recsys_pipeline.reporting.trials import best_trials_table, blend_table, worth_tables
from recsys_pipeline.storage.journal import Journal
from recsys_pipeline.storage.tables import with_notes
from recsys_pipeline.storage.warehouse import Warehouse

RANKS_TABLE = "trial_ranks"


Count = Annotated[int, Field(ge=1, le=4096)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]


class GridConfig(Config):
    """The lists whose every combination is a trial, by default the notebook's 64, and how to search them."""

    factors: list[Count] = Field(default=[32, 64], min_length=1, description="Latent factors.")
    regularization: list[NotNegative] = Field(
        default=[0.01, 0.05], min_length=1, description="Penalty on the length of the factors."
    )
    alpha: list[Positive] = Field(
        default=[10.0, 20.0], min_length=1, description="Confidence in a pair is alpha * weight."
    )
    iterations: list[Count] = Field(
        default=[10, 20], min_length=1, description="ALS iterations; all of them come out of one fit."
    )
    bm25_K1: list[Positive] = Field(
        default=[50.0, 100.0], min_length=1, description="K1 of the weights, in strengths."
    )
    bm25_B: list[Share] = Field(default=[0.6, 0.8], min_length=1, description="B of the weights.")
    nu: list[Share] = Field(
        default=[0.0],
        min_length=1,
        description="Power of a row's frequency by which its penalty grows; other than 0 needs `batched`.",
    )
    unobserved_weight: list[Positive] = Field(
        default=[1.0],
        min_length=1,
        description="Confidence of unobserved pairs; other than 1 needs `batched`.",
    )
    confidence: list[str] = Field(
        default=[ALPHA_W],
        min_length=1,
        description=f"`{ALPHA_W}` (implicit) or `{ONE_PLUS_ALPHA_W}` (Hu et al., Spark; needs `batched`).",
    )
    weighting: list[str] = Field(
        default=[BM25],
        min_length=1,
        description=f"`{BM25}`, or `{NO_WEIGHTING}`: the strengths themselves, whatever K1 and B.",
    )
    strength_mappings: dict[str, dict[str, float]] = Field(
        default={},
        description="By name, strengths of the events to try beside those of the `feedback` resource; an "
        "event that is not named counts nothing.",
    )
    starts: list[Annotated[int, Field(ge=1, le=64)]] = Field(
        default=[1],
        min_length=1,
        description="Random starts of a trial whose scores are added, at as many times the cost.",
    )
    prefer: Prefer = Field(
        default=Prefer.best,
        description="`best`: the highest MAP@10; `simplest`: of the trials that are not distinguishable from "
        "it the one with the fewest factors, then iterations.",
    )
    blend: bool = Field(
        default=False,
        description="Also fit a blend of ALS score, own history and popularity to the held-out pairs, for "
        "`recommend(blend=True)`; worth it where `seen_events` leave the user's own items to recommend.",
    )
    seed: int = Field(
        default=42, ge=0, lt=2**32, description="Of the random start of every fit, the final one too."
    )
    strategy: SearchStrategy = Field(
        default=SearchStrategy.grid,
        description="`grid`: every trial to its end; `halving`: all fits advance together and the better "
        "half goes on; `random`: n_trials drawn between the least and the largest value of each list.",
    )
    n_trials: int = Field(default=32, ge=1, description="Of the strategy `random`.")
    first_rung: int = Field(
        default=5, ge=1, description="Iterations before `halving` takes stock for the first time, at least."
    )
    solver: Solver = Field(
        default=Solver.implicit, description="`implicit`, or `batched`: the same path, faster, needs numba."
    )
    workers: int = Field(default=0, ge=0, description="Fits side by side, one core each; 0 takes all cores.")
    reuse_finished_trials: bool = Field(
        default=True, description="Take up what an earlier search over the same data has finished."
    )

    @model_validator(mode="after")
    def _names_are_known(self) -> "GridConfig":
        known = {"confidence": (ALPHA_W, ONE_PLUS_ALPHA_W), "weighting": (BM25, NO_WEIGHTING)}
        for name, values in known.items():
            if unknown := set(getattr(self, name)) - set(values):
                raise ValueError(
                    f"{name}: {', '.join(map(repr, sorted(unknown)))} is none of "
                    f"{' and '.join(map(repr, values))}"
                )
        for name, strengths in self.strength_mappings.items():
            if not re.fullmatch(r"[\w-]+", name) or name == DEFAULT_STRENGTHS:
                raise ValueError(
                    f"strength_mappings: {name!r} is no name for a mapping; use letters, digits, _ and -, "
                    f"and not {DEFAULT_STRENGTHS!r}, which is that of the `feedback` resource"
                )
            if not strengths or not all(0 < value < float("inf") for value in strengths.values()):
                raise ValueError(f"strength_mappings: {name} needs at least one event, each above 0")
        return self

    def mappings(self) -> dict[str, dict[str, float] | None]:
        """The mappings from events to strengths by name; None stands for that of the feedback."""
        return {DEFAULT_STRENGTHS: None, **self.strength_mappings}

    def trials(self) -> list[Trial]:
        """What the strategy is to try."""
        lists: dict[str, Sequence[Any]] = {
            "factors": self.factors,
            "regularization": self.regularization,
            "alpha": self.alpha,
            "iterations": self.iterations,
            "bm25_k1": self.bm25_K1,
            "bm25_b": self.bm25_B,
            "nu": self.nu,
            "unobserved_weight": self.unobserved_weight,
            "confidence": self.confidence,
            "weighting": self.weighting,
            "strengths": list(self.mappings()),
            "starts": self.starts,
        }
        if self.strategy is SearchStrategy.random:
            return draw(self.n_trials, self.seed, **lists)
        return grid(**lists)


@asset(kinds={"parquet", "python"})
@sorted_failures()
def grid_search_results(
    context: AssetExecutionContext,
    config: GridConfig,
    warehouse: Warehouse,
    bm25_matrix: Tables,
    leave_one_out_split: pa.Table,
) -> MaterializeResult[pa.Table]:
    """One row a trial: its hyperparameters and how it ranks the held-out pairs, best MAP@10 first.

    Weights are those of all pairs, as in the notebook; training leaves the held-out pairs out. A trial that
    failed is a row with its reason. Finished trials are journalled: a search that was killed goes on where
    it stopped.
    """
    trials = config.trials()
    pairs = Pairs.from_tables(bm25_matrix)
    if unknown := {event for mapping in config.strength_mappings.values() for event in mapping} - set(
        pairs.counts
    ):
        raise InputError(
            f"strength_mappings: the feedback has no {', '.join(sorted(unknown))}. "
            f"It has {', '.join(pairs.counts)}."
        )
    splits = holdouts(pairs, leave_one_out_split, config.mappings())
    # The sign of a weight does not depend on K1 and B, so one look answers for all trials.
    if BM25 in config.weighting:
        pairs.require_no_dislikes(bm25_weights(pairs.pattern, pairs.strengths, k1=1.0, b=0.0))
    require_solvable(config.solver, trials)
    trainer_for(config.solver)

    data = SearchData.prepare(pairs.pattern, splits, trials)
    journal = Journal(warehouse.root, data, config.solver.value, config.seed)
    begin = time.perf_counter()
    results = list(_search(context, config, trials, data, journal))
    search_seconds = time.perf_counter() - begin
    journal.drop_others()

    ranking = best_first(results)
    best = ranking[0]
    if best.scores is None:
        raise InputError(f"all {len(results)} trials failed; the first: {best.failure}")
    differences = compare_with_best(ranking, *data.groups(), seed=config.seed)
    chosen = choose(ranking, differences, config.prefer)
    chosen_scores = ranking[chosen].scores
    assert chosen_scores is not None
    notes: dict[str, Any] = {
        "seed": config.seed,
        "solver": config.solver.value,
        "held_out_pairs": len(leave_one_out_split),
        "strengths": {
            name: dict(pairs.rules.strengths if mapping is None else mapping)
            for name, mapping in config.mappings().items()
        },
        "inputs": {
            "bm25_matrix": warehouse.fingerprint("bm25_matrix", "pairs"),
            "leave_one_out_split": warehouse.fingerprint("leave_one_out_split"),
        },
    }
    if config.blend:
        notes["blend"] = _blend(context, config, pairs, splits[0], data.splits[0], ranking[chosen].trial)
    table = results_table(ranking, differences, chosen)
    warehouse.write_table(with_notes(ranks_table(ranking), notes), RANKS_TABLE)
    return MaterializeResult(
        value=with_notes(table, notes),
        metadata={
            columns.MAP_AT_10: rounded(chosen_scores.map),
            columns.MAP_AT_10_STANDARD_ERROR: rounded(chosen_scores.standard_error),
            columns.NDCG_AT_10: rounded(chosen_scores.ndcg),
            columns.HIT_RATE_AT_10: rounded(chosen_scores.hit_rate),
            columns.NOTEBOOK_MAP_AT_10: rounded(chosen_scores.notebook_map),
            **shape_metadata(*pairs.pattern.shape, pairs.pattern.n_pairs),
            "trials": len(trials),
            "failed_trials": sum(result.scores is None for result in results),
            "not_distinguishable_from_best": sum(
                difference is not None and difference.high >= 0 for difference in differences
            ),
            "held_out_pairs": len(leave_one_out_split),
            "splits": len(splits),
            "search_seconds": rounded(search_seconds),
            "solver": config.solver.value,
            "strategy": config.strategy.value,
            "prefer": config.prefer.value,
            "seed": config.seed,
            "best_trials": best_trials_table(table),
            **worth_tables(table, [columns.STRENGTHS, columns.WEIGHTING]),
            **({"blend": blend_table(notes["blend"])} if notes.get("blend") else {}),
        },
    )


def _blend(
    context: AssetExecutionContext,
    config: GridConfig,
    pairs: Pairs,
    holdout: Holdout,
    data: SplitData,
    trial: Trial,
) -> dict[str, Any] | None:
    """The weights of the blend, learned from the held-out pairs of the first split."""
    (fit,) = fits_for([trial])
    (state,) = trainer_for(config.solver).train(data.user_items(trial), fit, config.seed)
    known = (holdout.users < pairs.pattern.n_users) & (holdout.items >= 0)
    blend = fit_blend(
        by_factors(state.user_factors, state.item_factors),
        pairs.history(holdout.events),
        data.seen,
        holdout.users[known],
        holdout.items[known],
    )
    if blend is None:
        context.log.warning("no held-out item is within reach of the blend: there is nothing to learn from")
        return None
    return blend._asdict()


def _search(
    context: AssetExecutionContext,
    config: GridConfig,
    trials: list[Trial],
    data: SearchData,
    journal: Journal,
) -> Iterator[TrialResult]:
    """The result of each trial, journalled and reported as it comes."""
    workers = config.workers or usable_cores()
    known = {}
    if config.reuse_finished_trials:
        rungs = {trial._replace(iterations=n) for trial in trials for n in range(1, trial.iterations + 1)}
        candidates = trials if config.strategy is not SearchStrategy.halving else sorted(rungs)
        known = {result.trial: result for result in journal.finished(candidates)}
    context.log.info(
        f"{len(trials)} trials on {len(data.groups()[0]):,} held-out pairs, solver {config.solver.value}, "
        f"{workers} workers; {sum(trial in known for trial in trials)} are in the journal already"
    )
    with (
        WorkerPool(data, config.solver, config.seed, workers) as pool,
        Progress(context.log.info, trials, in_journal=sum(trial in known for trial in trials)) as progress,
    ):

        def run(tasks: Sequence[Task]) -> Iterator[TrialResult]:
            for result in pool.run(tasks):
                journal.add(result)
                yield result

        searching = (
            halving(trials, known, run, config.first_rung)
            if config.strategy is SearchStrategy.halving
            else exhaustive(trials, known, run)
        )
        for result in searching:
            progress.report(result)
            yield result
