"""The BM25-weighted users x items matrix."""

from typing import Any

import pyarrow.dataset as ds
from dagster import AssetExecutionContext, MaterializeResult, asset
from pydantic import Field

from recsys_pipeline.configuration import Knobs
from recsys_pipeline.engines.chosen import chosen_engine
from recsys_pipeline.reporting.configuration import settings_table
from recsys_pipeline.reporting.metadata import (
    AT_A_GLANCE,
    SETTINGS,
    distribution_table,
    percent,
    shape_metadata,
)
from recsys_pipeline.steps.step import asset_step


class Bm25Config(Knobs):
    """The weighting that the matrix shows; the search tries those of its own lists."""

    K1: float = Field(
        default=100.0,
        gt=0,
        description="Of the column `weight`, in strengths: the larger, the longer repeats keep counting. "
        "What the search tries is `bm25_K1` of grid_search_results; this value changes no model.",
    )
    B: float = Field(
        default=0.8,
        ge=0,
        le=1,
        description="Of the column `weight`: 0 ignores an item's popularity, 1 discounts it fully. What the "
        "search tries is `bm25_B` of grid_search_results; this value changes no model.",
    )


@asset(kinds={"parquet", "numpy"})
@asset_step
def bm25_matrix(
    context: AssetExecutionContext, config: Bm25Config, feedback_strengths: ds.Dataset
) -> MaterializeResult[dict[str, Any]]:
    """The interactions as integer coordinates with strength and BM25 weight, and the two id indexes.

    Items are the documents and users the terms. Row i of `users` and `items` is the raw id of index i. The
    weights are those of one K1 and B, to look at; the search weighs the same strengths by its own lists.
    """
    tables, n_users, n_items, n_interactions, n_not_positive, strength, weight = chosen_engine().matrix(
        feedback_strengths, config.K1, config.B
    )
    if n_not_positive:
        context.log.warning(
            f"{n_not_positive:,} weights are at or below zero; the search will refuse them as dislikes"
        )
    filled = percent(n_interactions / (n_users * n_items))
    told = f"{n_users:,} users by {n_items:,} items, {filled} of the cells filled; " + (
        f"{n_not_positive:,} weights are at or below zero" if n_not_positive else "all weights are above zero"
    )
    context.log.info(told)
    return MaterializeResult(
        value=tables,
        metadata={
            AT_A_GLANCE: told,
            **shape_metadata(n_users, n_items, n_interactions),
            "Weights at or below zero": n_not_positive,
            "distributions": distribution_table({"strength": strength, "weight": weight}),
            SETTINGS: settings_table(config),
        },
    )
