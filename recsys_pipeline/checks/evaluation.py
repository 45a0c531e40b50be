"""Claims about how good the model is."""

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
from dagster import AssetCheckExecutionContext, AssetCheckResult, AssetCheckSeverity, AssetIn, asset_check

from recsys_pipeline import settings
from recsys_pipeline.checks.claims import claim, claims
from recsys_pipeline.checks.past import WARNS, first_run, past_figures, usual
from recsys_pipeline.core.columns import (
    ITEM,
    MAP,
    MAP_HIGH,
    MAP_LOW,
    MODEL,
    TO_TUNED_HIGH,
    USER,
)
from recsys_pipeline.core.evaluation import POPULARITY, TUNED
from recsys_pipeline.core.interactions import Tables
from recsys_pipeline.core.metadata import stored_metadata
from recsys_pipeline.steps.step import check_step


@asset_check(asset="evaluation", additional_ins={"leave_one_out_split": AssetIn("leave_one_out_split")})
@check_step
def nothing_evaluated_was_scored_by_the_search(
    evaluation: Tables, leave_one_out_split: pa.Table
) -> AssetCheckResult:
    """The held-out interactions that the model is measured on had no part in choosing it."""
    scored = set(zip(*(leave_one_out_split[name].to_pylist() for name in (USER, ITEM)), strict=True))
    evaluated = set(zip(*(evaluation["held_out"][name].to_pylist() for name in (USER, ITEM)), strict=True))
    n_common = len(scored & evaluated)
    return AssetCheckResult(
        passed=n_common == 0,
        description=f"{len(evaluated):,} interactions are evaluated and {len(scored):,} were scored by the "
        f"search; {n_common:,} are both.",
        metadata={"interactions_in_both": n_common},
    )


@asset_check(asset="evaluation")
@check_step
def the_model_is_better_than_popularity(evaluation: Tables) -> AssetCheckResult:
    """On the same held-out interactions, by more than chance."""
    models = {row[MODEL]: row for row in evaluation["models"].to_pylist()}
    popularity = models[POPULARITY]
    return AssetCheckResult(
        passed=popularity[TO_TUNED_HIGH] < 0,
        description=f"MAP {models[TUNED][MAP]:.4f} against {popularity[MAP]:.4f} of popularity, whose "
        f"difference is at most {popularity[TO_TUNED_HIGH]:+.4f} (95 %).",
        severity=AssetCheckSeverity.WARN,
        metadata={"tuned": models[TUNED][MAP], "popularity": popularity[MAP]},
    )


_FIGURES = "every_figure_is_a_share_within_its_interval"
_REACH = "map_is_as_usual"


@claims(
    "evaluation",
    {
        _FIGURES: "The MAP of each model lies in [0, 1] and within its own interval.",
        _REACH: "The MAP of the tuned model is below the median of the last seven runs of the same protocol "
        "by no more than RECSYS_MAP_LIMIT, a share of it.",
    },
    inputs=["evaluation"],
    blocking=[_FIGURES],
)
def claims_of_evaluation(
    context: AssetCheckExecutionContext, evaluation: Tables
) -> Iterator[AssetCheckResult]:
    """Row by row, the table `models`."""
    models = evaluation["models"].to_pylist()
    at_fault = [row[MODEL] for row in models if not 0 <= row[MAP_LOW] <= row[MAP] <= row[MAP_HIGH] <= 1]
    tuned = [row for row in models if row[MODEL] == TUNED]
    yield claim(
        _FIGURES,
        bool(tuned) and not at_fault,
        f"{len(models)} models; at fault: {', '.join(at_fault) or 'none'}.",
        metadata={"models at fault": len(at_fault)},
    )
    yield _reach(context, stored_metadata(evaluation["models"]), tuned[0][MAP] if tuned else 0.0)


def _reach(context: AssetCheckExecutionContext, stored: Mapping[str, Any], figure: float) -> AssetCheckResult:
    protocol = f"{stored['strategy']}, k {stored['k']}"
    noted = {"MAP": figure, "protocol": protocol}
    past = [
        float(said["MAP"])
        for said in past_figures(context, "evaluation", _REACH)
        if said.get("protocol") == protocol
    ]
    before = usual(past)
    name = f"MAP@{stored['k']}"
    if not before:
        return claim(_REACH, True, first_run(f"{name} {figure:.4f}"), metadata=noted)
    change = figure / before - 1
    return claim(
        _REACH,
        change >= -settings.MAP_LIMIT,
        f"{name} {figure:.4f}, {change:+.1%} against {before:.4f}, the median of the last {len(past)} runs; "
        f"it may be {settings.MAP_LIMIT:.0%} lower.",
        warns=WARNS,
        metadata={**noted, "change": change},
    )
