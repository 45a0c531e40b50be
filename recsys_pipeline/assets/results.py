"""The tables that a search leaves, and what is read from them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa

from recsys_pipeline.core import columns
from recsys_pipeline.core.blending import Blend
from recsys_pipeline.core.comparison import Interval
from recsys_pipeline.core.search import TrialResult
from recsys_pipeline.core.trials import BM25, DEFAULT_STRENGTHS, Trial
from recsys_pipeline.engines.solvers import Solver
from recsys_pipeline.storage.tables import notes_of


def results_table(
    ranking: Sequence[TrialResult], differences: Sequence[Interval | None], chosen: int
) -> pa.Table:
    """A row a trial, in the given order; scores of a failed one are null."""

    def trials(name: str) -> list[float | int | str]:
        return [getattr(result.trial, name) for result in ranking]

    def scores(name: str) -> pa.Array:
        values = [getattr(result.scores, name) if result.scores else None for result in ranking]
        return pa.array(values, pa.float64())

    def bm25(name: str) -> pa.Array:
        values = [
            getattr(result.trial, name) if result.trial.weighting == BM25 else None for result in ranking
        ]
        return pa.array(values, pa.float64())

    lows, highs = (
        pa.array(
            [getattr(difference, end) if difference else None for difference in differences], pa.float64()
        )
        for end in ("low", "high")
    )
    return pa.table(
        {
            columns.FACTORS: trials("factors"),
            columns.REGULARIZATION: trials("regularization"),
            columns.ALPHA: trials("alpha"),
            columns.ITERATIONS: trials("iterations"),
            columns.BM25_K1: bm25("bm25_k1"),
            columns.BM25_B: bm25("bm25_b"),
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
            columns.WEIGHTING: trials("weighting"),
            columns.STRENGTHS: trials("strengths"),
            columns.STARTS: trials("starts"),
            columns.RECALL_AT_10: scores("recall"),
            columns.DIFFERENCE_LOW: lows,
            columns.DIFFERENCE_HIGH: highs,
            columns.DISTINGUISHABLE: pa.array(
                [difference.high < 0 if difference else None for difference in differences], pa.bool_()
            ),
            columns.CHOSEN: [place == chosen for place in range(len(ranking))],
            columns.FAILURE: pa.array([result.failure or None for result in ranking], pa.string()),
        }
    )


def ranks_table(ranking: Sequence[TrialResult]) -> pa.Table:
    """A row a trial that was scored: its hyperparameters and the rank of each held-out pair, a byte each."""
    scored = [result for result in ranking if result.ranks is not None]
    trials = pa.Table.from_pylist([result.trial._asdict() for result in scored])
    ranks = pa.array([result.ranks for result in scored], pa.list_(pa.uint8()))
    return trials.append_column(columns.RANKS, ranks)


class Winner(NamedTuple):
    """What the model is to be made of.

    Attributes:
        trial: the chosen one.
        seed: of the search.
        solver: of the search.
        strengths: of the events, by the trial's mapping; None for those that the pairs have already.
        row: of `grid_search_results`.
        blend: weights of the blend, where the search has fitted one.
    """

    trial: Trial
    seed: int
    solver: Solver
    strengths: Mapping[str, float] | None
    row: Mapping[str, Any]
    blend: Blend | None

    @classmethod
    def of(cls, grid_search_results: pa.Table) -> Self:
        """The chosen row."""
        row = grid_search_results.filter(grid_search_results[columns.CHOSEN]).to_pylist()[0]
        notes = notes_of(grid_search_results)
        trial = Trial(
            factors=row[columns.FACTORS],
            regularization=row[columns.REGULARIZATION],
            alpha=row[columns.ALPHA],
            iterations=row[columns.ITERATIONS],
            bm25_k1=row[columns.BM25_K1] or 0.0,
            bm25_b=row[columns.BM25_B] or 0.0,
            nu=row[columns.NU],
            unobserved_weight=row[columns.UNOBSERVED_WEIGHT],
            confidence=row[columns.CONFIDENCE],
            weighting=row[columns.WEIGHTING],
            strengths=row[columns.STRENGTHS],
            starts=row[columns.STARTS],
        )
        strengths = None if trial.strengths == DEFAULT_STRENGTHS else notes["strengths"][trial.strengths]
        blend = Blend.from_mapping(notes["blend"]) if notes.get("blend") else None
        return cls(trial, notes["seed"], Solver(notes["solver"]), strengths, row, blend)
