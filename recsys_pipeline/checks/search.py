"""Claims about the baselines and the search."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from dagster import AssetCheckResult, AssetCheckSeverity, asset_check

from recsys_pipeline.checks.claims import claim, claims
from recsys_pipeline.core.agreement import Agreement
from recsys_pipeline.core.columns import (
    CHOSEN,
    FAILURE,
    HIT_RATE_AT_10,
    MAP_AT_10,
    NDCG_AT_10,
)
from recsys_pipeline.core.metadata import stored_metadata
from recsys_pipeline.core.selected import selection_of
from recsys_pipeline.steps.step import check_step


@asset_check(blocking=True, asset="grid_search_results")
@check_step
def every_score_is_a_share(grid_search_results: pa.Table) -> AssetCheckResult:
    """What selects, MAP@10, NDCG@10 and HitRate@10 of all trials that did not fail lie in [0, 1].

    What selects is above 0 for the best.
    """
    selection = selection_of(grid_search_results)
    names = (selection.column, MAP_AT_10, NDCG_AT_10, HIT_RATE_AT_10)
    scored = grid_search_results.filter(pc.is_valid(grid_search_results[MAP_AT_10]))
    scores = np.stack([scored[name].to_numpy() for name in names])
    passed = bool(scored.num_rows and ((scores >= 0) & (scores <= 1)).all() and scores[0].max() > 0)
    return AssetCheckResult(
        passed=passed,
        description=f"{scored.num_rows:,} of {grid_search_results.num_rows:,} trials have scores, from "
        f"{scores.min(initial=np.inf):.4f} to {scores.max(initial=-np.inf):.4f}.",
        metadata={
            f"best {selection.name}": float(scores[0].max(initial=0)),
            "failed_trials": grid_search_results.num_rows - scored.num_rows,
        },
    )


@asset_check(asset="grid_search_results")
@check_step
def the_solver_agrees_with_implicit(grid_search_results: pa.Table) -> AssetCheckResult:
    """The chosen trial scores as `implicit` scores it, and ranks the same, but for what rounding explains.

    Fails where the 95 % interval of the difference in MAP@10 lies beyond 1 % of it. If more than 5 % of the
    ranks differ that is a warning: it happens on small data with more factors than the data bears.
    """
    stored = stored_metadata(grid_search_results)
    if not stored.get("agreement"):
        return AssetCheckResult(
            passed=True,
            description="Nothing to compare: the solver is `implicit` itself, or `implicit` cannot train the "
            "chosen configuration or so many interactions, or compare_with_implicit is false. "
            f"The solver is `{stored['solver']}`.",
        )
    found = Agreement.from_mapping(stored["agreement"])
    if found.failure:
        return AssetCheckResult(passed=False, description=f"`implicit` failed: {found.failure}")
    return AssetCheckResult(
        passed=found.holds,
        description=f"MAP@10 {found.map:.4f}, by `implicit` {found.reference_map:.4f}: the difference lies "
        f"between {found.difference.low:+.5f} and {found.difference.high:+.5f} (95 %), and "
        f"{found.ranks_differing:.1%} of the ranks differ.",
        severity=AssetCheckSeverity.WARN if found.is_as_good else AssetCheckSeverity.ERROR,
        metadata={
            "difference in MAP@10": found.map - found.reference_map,
            "difference low": found.difference.low,
            "difference high": found.difference.high,
            "share of ranks that differ": found.ranks_differing,
        },
    )


_SHARES = "every_baseline_is_measured_or_says_why"
_CHOSEN = "one_trial_is_chosen"


@claims(
    "baselines",
    {_SHARES: "Each has figures in [0, 1], or a reason why it has none; at least one has figures."},
    inputs=["baselines"],
    blocking=[_SHARES],
)
def claims_of_baselines(baselines: pa.Table) -> Iterator[AssetCheckResult]:
    """Row by row, what selects and MAP@10."""
    names = {MAP_AT_10, selection_of(baselines).column}
    rows = baselines.to_pylist()
    measured = [row for row in rows if row[MAP_AT_10] is not None]
    n_bad = sum(not all(0 <= row[name] <= 1 for name in names) for row in measured)
    n_silent = sum(row[MAP_AT_10] is None and not row[FAILURE] for row in rows)
    yield claim(
        _SHARES,
        bool(measured) and n_bad == n_silent == 0,
        f"{len(measured)} of {len(rows)} configurations are measured; {n_bad} have a figure outside [0, 1], "
        f"and {n_silent} neither a figure nor a reason.",
    )


@claims(
    "grid_search_results",
    {_CHOSEN: "The model is made of one trial, which did not fail."},
    inputs=["grid_search_results"],
    blocking=[_CHOSEN],
)
def claims_of_grid_search_results(grid_search_results: pa.Table) -> Iterator[AssetCheckResult]:
    """The rows that are marked."""
    chosen = [row for row in grid_search_results.to_pylist() if row[CHOSEN]]
    n_failed = sum(row[MAP_AT_10] is None for row in chosen)
    yield claim(
        _CHOSEN,
        len(chosen) == 1 and n_failed == 0,
        f"{len(chosen)} of {grid_search_results.num_rows} trials is chosen; {n_failed} of it failed.",
    )
