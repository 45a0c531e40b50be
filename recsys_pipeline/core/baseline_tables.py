"""The tables that the tuning of the baselines leaves, and what is read from them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys_pipeline.core import columns
from recsys_pipeline.core.baseline_tuning import Baseline, BaselineResult, Family
from recsys_pipeline.core.comparison import Difference, mean_difference
from recsys_pipeline.core.evaluation import NOT_MEASURED
from recsys_pipeline.core.hyperparameters import DEFAULT_STRENGTHS
from recsys_pipeline.core.item_graph import GraphFilter
from recsys_pipeline.core.metadata import stored_metadata
from recsys_pipeline.core.metrics import groups_of_some
from recsys_pipeline.core.results import SCORES
from recsys_pipeline.core.selected import selected_columns, selection_of
from recsys_pipeline.core.selecting import MAP_AT_10, Selection

BASELINES_TABLE, RANKS_TABLE = "baselines", "baseline_ranks"

_TYPES = {
    columns.FAMILY: pa.string(),
    "strengths": pa.string(),
    "weighting": pa.string(),
    columns.NEIGHBOURS: pa.int64(),
    columns.SHRINKAGE: pa.float64(),
    columns.USER_EXPONENT: pa.float64(),
    columns.ITEM_EXPONENT: pa.float64(),
    columns.PENALTY: pa.float64(),
}


def _chosen(ranking: Sequence[BaselineResult]) -> list[bool]:
    """Of each whether it is the first of its family that was measured."""
    seen: set[Family] = set()
    found = []
    for result in ranking:
        found.append(result.scores is not None and result.baseline.family not in seen)
        if result.scores is not None:
            seen.add(result.baseline.family)
    return found


def baselines_table(ranking: Sequence[BaselineResult], selection: Selection = MAP_AT_10) -> pa.Table:
    """A row a configuration in this order, best first; scores of one that was not measured are null.

    What they are compared by has two columns of its own where it is not MAP@10.
    """
    scores = {
        column: pa.array([getattr(r.scores, name) if r.scores else None for r in ranking], pa.float64())
        for column, name in SCORES.items()
    }
    return pa.table(
        {
            **_parameters(ranking),
            **scores,
            **selected_columns(selection, [result.selected for result in ranking]),
            columns.SECONDS: pa.array([r.seconds if r.scores else None for r in ranking], pa.float64()),
            columns.CHOSEN: _chosen(ranking),
            columns.FAILURE: pa.array([r.failure or None for r in ranking], pa.string()),
        }
    )


def baseline_ranks_table(ranking: Sequence[BaselineResult]) -> pa.Table:
    """A row for the chosen one of each family: the rank of each held-out interaction, a byte each.

    NOT_MEASURED where the user was not drawn.
    """
    chosen = [result for result, is_chosen in zip(ranking, _chosen(ranking), strict=True) if is_chosen]
    ranks = pa.array([result.ranks for result in chosen], pa.list_(pa.uint8()))
    return pa.table({**_parameters(chosen), columns.RANKS: ranks})


def n_ranked(ranking: Sequence[BaselineResult]) -> int:
    """Held-out interactions that were ranked, the same ones by each that was measured; 0 where none was."""
    measured = (result.ranks for result in ranking if result.ranks is not None)
    return next((int(np.count_nonzero(ranks != NOT_MEASURED)) for ranks in measured), 0)


def _parameters(results: Sequence[BaselineResult]) -> dict[str, pa.Array]:
    rows = [result.baseline.as_dict() for result in results]
    return {name: pa.array([row[name] for row in rows], kind) for name, kind in _TYPES.items()}


class ChosenBaselines(NamedTuple):
    """What `baselines` found.

    Attributes:
        by_family: the best configuration of each family that was measured.
        mappings: strengths of the events by name; None for those that the interactions have already.
        why_not: by family, why it was not measured.
        graph: the best item graph, with the strengths that it takes; None where none was measured.
    """

    by_family: Mapping[Family, Baseline]
    mappings: Mapping[str, Mapping[str, float] | None]
    why_not: Mapping[Family, str]
    graph: GraphFilter | None

    @classmethod
    def of(cls, baselines: pa.Table) -> Self:
        """From the table."""
        rows = baselines.to_pylist()
        named = stored_metadata(baselines)["strengths"]
        chosen = [Baseline.from_mapping(row) for row in rows if row[columns.CHOSEN]]
        by_family = {baseline.family: baseline for baseline in chosen}
        best = by_family.get(Family.graph_filter)
        return cls(
            by_family,
            {name: None if name == DEFAULT_STRENGTHS else mapping for name, mapping in named.items()},
            {Family(row["family"]): row[columns.FAILURE] for row in rows if row[columns.FAILURE]},
            best.graph_filter()._replace(strengths=named[best.strengths]) if best else None,
        )


class Lead(NamedTuple):
    """A trial of the search beside the strongest baseline, on the same held-out interactions.

    Attributes:
        baseline: the strongest.
        figure: of it, by what selects.
        difference: the figure of the trial minus that.
        selection: what selects in the search.
        tuned_by: what the baselines were tuned by.
        n_compared: held-out interactions that the baselines were tuned on; None where that is all.
    """

    baseline: Baseline
    figure: float
    difference: Difference
    selection: Selection = MAP_AT_10
    tuned_by: Selection = MAP_AT_10
    n_compared: int | None = None

    @property
    def is_significant(self) -> bool:
        """Whether the trial is better by more than chance."""
        return self.difference.interval.low > 0


def lead_over_baselines(
    ranks: NDArray[np.uint8],
    baselines: Mapping[str, pa.Table],
    group: NDArray[np.int64],
    user: NDArray[np.int64],
    seed: int,
    selection: Selection = MAP_AT_10,
) -> Lead | None:
    """How much better a trial is than the strongest baseline, by what selects in the search.

    None where no baseline was measured, or where their ranks do not reach as far as that needs.

    On the held-out interactions that the baselines were tuned on.

    Args:
        ranks: (n_held_out,) by the trial.
        baselines: the tables of `baselines`.
        group: group of each held-out interaction, see `group_by_user`.
        user: user of each group.
        seed: of the bootstrap.
        selection: what is compared.
    """
    tuned_by = selection_of(baselines[BASELINES_TABLE])
    if tuned_by.reach < selection.k:
        return None
    # The best of each family, by what they were tuned by: that may be another metric than the search's.
    rows = baselines[RANKS_TABLE].to_pylist()
    if not rows:
        return None
    measured, n_compared = _ranks_in(rows[0]) != NOT_MEASURED, None
    if not measured.all():
        group, user = groups_of_some(measured, group, user)
        ranks, n_compared = ranks[measured], int(measured.sum())
    of_rows = [_ranks_in(row)[measured] for row in rows]
    figures = [selection.estimate(own, group, user).value for own in of_rows]
    figure = max(figures)
    place = figures.index(figure)
    difference = mean_difference(ranks, of_rows[place], group, user, seed, selection)
    best = Baseline.from_mapping(rows[place])
    return Lead(best, figure, difference, selection, tuned_by, n_compared)


def _ranks_in(row: Mapping[str, Any]) -> NDArray[np.uint8]:
    return np.array(row[columns.RANKS], np.uint8)
