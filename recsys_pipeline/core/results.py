"""The tables that a search leaves, and what is read from them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa

from recsys_pipeline.core import columns
from recsys_pipeline.core.blending import Blend
from recsys_pipeline.core.comparison import Interval
from recsys_pipeline.core.hyperparameters import DEFAULT_STRENGTHS, DIMENSIONS, Hyperparameters
from recsys_pipeline.core.metadata import stored_metadata
from recsys_pipeline.core.search import TrialResult
from recsys_pipeline.core.selected import selected_columns, selection_of
from recsys_pipeline.core.selecting import MAP_AT_10, Selection

_TYPES = {int: pa.int64(), float: pa.float64(), str: pa.string()}
# By column, the field of `Scores`: those that every table of tried configurations has.
SCORES = {
    columns.MAP_AT_10: "map",
    columns.MAP_AT_10_STANDARD_ERROR: "standard_error",
    columns.NDCG_AT_10: "ndcg",
    columns.HIT_RATE_AT_10: "hit_rate",
    columns.RECALL_AT_10: "recall",
}
_SCORES_OF_TRIALS = SCORES | {columns.NOTEBOOK_MAP_AT_10: "notebook_map"}


def results_table(
    ranking: Sequence[TrialResult],
    differences: Sequence[Interval | None],
    chosen: int,
    incumbent: int | None = None,
    selection: Selection = MAP_AT_10,
) -> pa.Table:
    """A row a trial, in the given order; scores of a failed one are null.

    Args:
        ranking: the trials.
        differences: of each to the best.
        chosen: place of the chosen one.
        incumbent: place of the incumbent, None where there is none.
        selection: what the trials are compared by; it has two columns of its own where it is not MAP@10.
    """
    scores = {
        name: pa.array([getattr(r.scores, score) if r.scores else None for r in ranking], pa.float64())
        for name, score in _SCORES_OF_TRIALS.items()
    }
    ends = {
        name: pa.array([getattr(d, end) if d else None for d in differences], pa.float64())
        for name, end in ((columns.DIFFERENCE_LOW, "low"), (columns.DIFFERENCE_HIGH, "high"))
    }
    distinguishable = [difference.high < 0 if difference else None for difference in differences]
    seconds = [None if np.isnan(result.fit_seconds) else result.fit_seconds for result in ranking]
    iterations_done = [
        None if result.scores is None else result.iterations_done or result.hyperparameters.iterations
        for result in ranking
    ]
    return pa.table(
        {
            **_hyperparameter_columns([result.hyperparameters for result in ranking]),
            **scores,
            **selected_columns(selection, [result.selected for result in ranking]),
            **ends,
            columns.DISTINGUISHABLE: pa.array(distinguishable, pa.bool_()),
            columns.CHOSEN: [place == chosen for place in range(len(ranking))],
            columns.INCUMBENT: [place == incumbent for place in range(len(ranking))],
            columns.ITERATIONS_DONE: pa.array(iterations_done, pa.int64()),
            columns.FIT_SECONDS: pa.array(seconds, pa.float64()),
            columns.FAILURE: pa.array([result.failure or None for result in ranking], pa.string()),
        }
    )


def _hyperparameter_columns(tried: Sequence[Hyperparameters]) -> dict[str, pa.Array]:
    """A column a hyperparameter; null where a configuration does not use it."""
    rows = [hyperparameters.told() for hyperparameters in tried]
    return {d.name: pa.array([row.get(d.name) for row in rows], _TYPES[d.type]) for d in DIMENSIONS}


def ranks_table(ranking: Sequence[TrialResult]) -> pa.Table:
    """A row a trial that was scored: hyperparameters, the rank of each held-out interaction, a byte each."""
    scored = [result for result in ranking if result.ranks is not None]
    ranks = pa.array([result.ranks for result in scored], pa.list_(pa.uint8()))
    return pa.table(
        {**_hyperparameter_columns([result.hyperparameters for result in scored]), columns.RANKS: ranks}
    )


class Winner(NamedTuple):
    """What the model is to be made of.

    Attributes:
        hyperparameters: the chosen ones.
        seed: of the search.
        solver: name of the search's solver.
        strengths: of the events, by the chosen mapping; None for those that the interactions have already.
        row: of `grid_search_results`.
        blend: weights of the blend, where the search has fitted one.
        blend_without: by group of its terms, the weights of the others; see `FittedBlend`.
        selection: by what it was chosen.
    """

    hyperparameters: Hyperparameters
    seed: int
    solver: str
    strengths: Mapping[str, float] | None
    row: Mapping[str, Any]
    blend: Blend | None
    blend_without: Mapping[str, Blend] = {}
    selection: Selection = MAP_AT_10

    @classmethod
    def of(cls, grid_search_results: pa.Table) -> Self:
        """The chosen row."""
        row = grid_search_results.filter(grid_search_results[columns.CHOSEN]).to_pylist()[0]
        metadata = stored_metadata(grid_search_results)
        hyperparameters = Hyperparameters.from_mapping(row)
        name = hyperparameters.strengths
        strengths = None if name == DEFAULT_STRENGTHS else metadata["strengths"][name]
        blend = Blend.from_mapping(metadata["blend"]) if metadata.get("blend") else None
        without = {
            group: Blend.from_mapping(others) for group, others in metadata.get("blend_without", {}).items()
        }
        return cls(
            *(hyperparameters, metadata["seed"], metadata["solver"], strengths, row, blend, without),
            selection=selection_of(grid_search_results),
        )
