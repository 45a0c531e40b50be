"""The search."""

import time
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
from dagster import AssetExecutionContext, Config, MaterializeResult, asset
from pydantic import Field, model_validator

from recsys_pipeline.assets.pairs import Pairs, Tables
from recsys_pipeline.assets.splitting import held_out_positions
from recsys_pipeline.core import columns
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.search import SearchData, TrialResult, best_first
from recsys_pipeline.core.strategies import SearchStrategy, Task, exhaustive, halving
from recsys_pipeline.core.trials import ALPHA_W, ONE_PLUS_ALPHA_W, Trial, draw, grid
from recsys_pipeline.core.weighting import bm25_weights
from recsys_pipeline.engines.pool import WorkerPool, usable_cores
from recsys_pipeline.engines.solvers import Solver, require_solvable, trainer_for
from recsys_pipeline.failures import input_errors_fail_the_run
from recsys_pipeline.reporting.metadata import markdown_table, rounded, shape_metadata
from recsys_pipeline.reporting.progress import Progress
from recsys_pipeline.storage.journal import Journal
from recsys_pipeline.storage.tables import notes_of, with_notes
from recsys_pipeline.storage.warehouse import Warehouse

_SHOWN = 10

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
    def _confidence_is_known(self) -> "GridConfig":
        if unknown := set(self.confidence) - {ALPHA_W, ONE_PLUS_ALPHA_W}:
            raise ValueError(
                f"confidence: {', '.join(map(repr, sorted(unknown)))} is none of "
                f"{ALPHA_W!r} and {ONE_PLUS_ALPHA_W!r}"
            )
        return self

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
        }
        if self.strategy is SearchStrategy.random:
            return draw(self.n_trials, self.seed, **lists)
        return grid(**lists)


@asset(kinds={"parquet", "python"})
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
    with input_errors_fail_the_run():
        held_out = held_out_positions(pairs, leave_one_out_split)
        # The sign of a weight does not depend on K1 and B, so one look answers for all trials.
        pairs.require_no_dislikes(bm25_weights(pairs.pattern, pairs.strengths, k1=1.0, b=0.0))
        require_solvable(config.solver, trials)
        trainer_for(config.solver)

    data = SearchData.prepare(pairs.pattern, pairs.strengths, held_out, trials)
    journal = Journal(warehouse.root, data, config.solver.value, config.seed)
    begin = time.perf_counter()
    results = list(_search(context, config, trials, data, journal))
    search_seconds = time.perf_counter() - begin
    journal.drop_others()

    ranking = best_first(results)
    best = ranking[0]
    with input_errors_fail_the_run():
        if best.scores is None:
            raise InputError(f"all {len(results)} trials failed; the first: {best.failure}")
    inputs = {
        "bm25_matrix": warehouse.fingerprint("bm25_matrix", "pairs"),
        "leave_one_out_split": warehouse.fingerprint("leave_one_out_split"),
    }
    notes = {
        "seed": config.seed,
        "solver": config.solver.value,
        "held_out_pairs": len(held_out),
        "inputs": inputs,
    }
    table = results_table(ranking)
    shown = table.slice(0, _SHOWN).to_pylist()
    return MaterializeResult(
        value=with_notes(table, notes),
        metadata={
            columns.MAP_AT_10: rounded(best.scores.map),
            columns.MAP_AT_10_STANDARD_ERROR: rounded(best.scores.standard_error),
            columns.NDCG_AT_10: rounded(best.scores.ndcg),
            columns.HIT_RATE_AT_10: rounded(best.scores.hit_rate),
            columns.NOTEBOOK_MAP_AT_10: rounded(best.scores.notebook_map),
            **shape_metadata(*pairs.pattern.shape, pairs.pattern.n_pairs),
            "trials": len(trials),
            "failed_trials": sum(result.scores is None for result in results),
            "held_out_pairs": len(held_out),
            "search_seconds": rounded(search_seconds),
            "solver": config.solver.value,
            "strategy": config.strategy.value,
            "seed": config.seed,
            f"top_{_SHOWN}": markdown_table(table.schema.names, [list(row.values()) for row in shown]),
        },
    )


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
        f"{len(trials)} trials on {len(data.users):,} held-out pairs, solver {config.solver.value}, "
        f"{workers} workers; {sum(trial in known for trial in trials)} are in the journal already"
    )
    with (
        WorkerPool(data, config.solver, config.seed, workers) as pool,
        Progress(
            context.log.info, len(trials), in_journal=sum(trial in known for trial in trials)
        ) as progress,
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


def results_table(ranking: list[TrialResult]) -> pa.Table:
    """A row a trial, in the given order; scores of a failed one are null."""

    def trials(name: str) -> list[float | int | str]:
        return [getattr(result.trial, name) for result in ranking]

    def scores(name: str) -> pa.Array:
        values = [getattr(result.scores, name) if result.scores else None for result in ranking]
        return pa.array(values, pa.float64())

    return pa.table(
        {
            columns.FACTORS: trials("factors"),
            columns.REGULARIZATION: trials("regularization"),
            columns.ALPHA: trials("alpha"),
            columns.ITERATIONS: trials("iterations"),
            columns.BM25_K1: trials("bm25_k1"),
            columns.BM25_B: trials("bm25_b"),
            columns.MAP_AT_10: scores("map"),
            columns.MAP_AT_10_STANDARD_ERROR: scores("standard_error"),
            columns.NDCG_AT_10: scores("ndcg"),
            columns.HIT_RATE_AT_10: scores("hit_rate"),
            columns.NOTEBOOK_MAP_AT_10: scores("notebook_map"),
            columns.FIT_SECONDS: pa.array(
                [None if np.isnan(result.fit_seconds) else result.fit_seconds for result in ranking],
                pa.float64(),
            ),
            columns.ITERATIONS_DONE: pa.array(
                [
                    None if result.scores is None else result.iterations_done or result.trial.iterations
                    for result in ranking
                ],
                pa.int64(),
            ),
            columns.NU: trials("nu"),
            columns.UNOBSERVED_WEIGHT: trials("unobserved_weight"),
            columns.CONFIDENCE: trials("confidence"),
            columns.FAILURE: pa.array([result.failure or None for result in ranking], pa.string()),
        }
    )


def best_trial(grid_search_results: pa.Table) -> tuple[Trial, int, Solver]:
    """The trial of the first row, and seed and solver of the search."""
    row = grid_search_results.slice(0, 1).to_pylist()[0]
    notes = notes_of(grid_search_results)
    trial = Trial(
        factors=row[columns.FACTORS],
        regularization=row[columns.REGULARIZATION],
        alpha=row[columns.ALPHA],
        iterations=row[columns.ITERATIONS],
        bm25_k1=row[columns.BM25_K1],
        bm25_b=row[columns.BM25_B],
        nu=row[columns.NU],
        unobserved_weight=row[columns.UNOBSERVED_WEIGHT],
        confidence=row[columns.CONFIDENCE],
    )
    return trial, notes["seed"], Solver(notes["solver"])
