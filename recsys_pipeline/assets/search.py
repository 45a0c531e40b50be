"""The grid search."""

from typing import Annotated

import pyarrow as pa
from dagster import AssetExecutionContext, Config, MaterializeResult, asset
from pydantic import Field

from recsys_pipeline.assets.pairs import Pairs, Tables
from recsys_pipeline.assets.splitting import held_out_positions
from recsys_pipeline.core import columns
from recsys_pipeline.core.search import TrialResult, best_first, search
from recsys_pipeline.core.trials import Trial, fits_for, grid
from recsys_pipeline.core.weighting import bm25_weights
from recsys_pipeline.engines.local import ImplicitTrainer
from recsys_pipeline.failures import input_errors_fail_the_run
from recsys_pipeline.reporting.metadata import markdown_table, rounded, shape_metadata
from recsys_pipeline.storage.tables import notes_of, with_notes
from recsys_pipeline.storage.warehouse import Warehouse

_SHOWN = 10

Count = Annotated[int, Field(ge=1, le=4096)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]


class GridConfig(Config):
    """The lists whose every combination is a trial; by default the notebook's 64."""

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
    seed: int = Field(
        default=42, ge=0, lt=2**32, description="Of the random start of every fit, the final one too."
    )

    def trials(self) -> list[Trial]:
        """Every combination."""
        return grid(self.factors, self.regularization, self.alpha, self.iterations, self.bm25_K1, self.bm25_B)


@asset(kinds={"parquet", "python"})
def grid_search_results(
    context: AssetExecutionContext,
    config: GridConfig,
    warehouse: Warehouse,
    bm25_matrix: Tables,
    leave_one_out_split: pa.Table,
) -> MaterializeResult[pa.Table]:
    """One row a trial: its hyperparameters and how it ranks the held-out pairs, best MAP@10 first.

    Weights are those of all pairs, as in the notebook; training leaves the held-out pairs out.
    """
    trials = config.trials()
    pairs = Pairs.from_tables(bm25_matrix)
    with input_errors_fail_the_run():
        held_out = held_out_positions(pairs, leave_one_out_split)
        # The sign of a weight does not depend on K1 and B, so one look answers for all trials.
        pairs.require_no_dislikes(bm25_weights(pairs.pattern, pairs.strengths, k1=1.0, b=0.0))

    n_fits = len(fits_for(trials))
    context.log.info(f"{len(trials)} trials by {n_fits} fits, scored on {len(held_out):,} held-out pairs")
    results: list[TrialResult] = []
    searching = search(pairs.pattern, pairs.strengths, held_out, trials, ImplicitTrainer(), config.seed)
    for number, of_fit in enumerate(searching, start=1):
        results += of_fit
        context.log.info(_progress_line(number, n_fits, of_fit, best_first(results)[0]))

    ranking = best_first(results)
    inputs = {
        "bm25_matrix": warehouse.fingerprint("bm25_matrix", "pairs"),
        "leave_one_out_split": warehouse.fingerprint("leave_one_out_split"),
    }
    notes = {"seed": config.seed, "held_out_pairs": len(held_out), "inputs": inputs}
    table = results_table(ranking)
    best = ranking[0]
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
            "fits": n_fits,
            "held_out_pairs": len(held_out),
            "seed": config.seed,
            f"top_{_SHOWN}": markdown_table(
                table.schema.names, [list(row.values()) for row in table.slice(0, _SHOWN).to_pylist()]
            ),
        },
    )


def _progress_line(number: int, n_fits: int, of_fit: list[TrialResult], best: TrialResult) -> str:
    trial = of_fit[0].trial
    scores = ", ".join(
        f"{result.scores.map:.4f} after {result.trial.iterations} iterations" for result in of_fit
    )
    return (
        f"fit {number} of {n_fits}: {trial.factors} factors, regularization {trial.regularization:g}, "
        f"alpha {trial.alpha:g}, K1 {trial.bm25_k1:g}, B {trial.bm25_b:g}: MAP@10 {scores}; "
        f"{of_fit[-1].fit_seconds:.1f} s; best so far {best.scores.map:.4f}"
    )


def results_table(ranking: list[TrialResult]) -> pa.Table:
    """A row a trial, in the given order."""
    return pa.table(
        {
            columns.FACTORS: [result.trial.factors for result in ranking],
            columns.REGULARIZATION: [result.trial.regularization for result in ranking],
            columns.ALPHA: [result.trial.alpha for result in ranking],
            columns.ITERATIONS: [result.trial.iterations for result in ranking],
            columns.BM25_K1: [result.trial.bm25_k1 for result in ranking],
            columns.BM25_B: [result.trial.bm25_b for result in ranking],
            columns.MAP_AT_10: [result.scores.map for result in ranking],
            columns.MAP_AT_10_STANDARD_ERROR: [result.scores.standard_error for result in ranking],
            columns.NDCG_AT_10: [result.scores.ndcg for result in ranking],
            columns.HIT_RATE_AT_10: [result.scores.hit_rate for result in ranking],
            columns.NOTEBOOK_MAP_AT_10: [result.scores.notebook_map for result in ranking],
            columns.FIT_SECONDS: [result.fit_seconds for result in ranking],
        }
    )


def best_trial(grid_search_results: pa.Table) -> tuple[Trial, int]:
    """The trial of the first row, and the seed of the search."""
    row = grid_search_results.slice(0, 1).to_pylist()[0]
    trial = Trial(
        factors=row[columns.FACTORS],
        regularization=row[columns.REGULARIZATION],
        alpha=row[columns.ALPHA],
        iterations=row[columns.ITERATIONS],
        bm25_k1=row[columns.BM25_K1],
        bm25_b=row[columns.BM25_B],
    )
    return trial, notes_of(grid_search_results)["seed"]
