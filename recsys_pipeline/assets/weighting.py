"""The BM25-weighted users x items matrix."""

import numpy as np
import pyarrow as pa
from dagster import AssetExecutionContext, Config, MaterializeResult, asset
from pydantic import Field

from recsys_pipeline.assets.pairs import Pairs, Tables
from recsys_pipeline.core.weighting import bm25_weights
from recsys_pipeline.failures import sorted_failures
from recsys_pipeline.reporting.metadata import distribution_table, shape_metadata


class Bm25Config(Config):
    """How strengths become weights."""

    K1: float = Field(
        default=100.0, gt=0, description="In strengths; the larger, the longer repeats keep counting."
    )
    B: float = Field(default=0.8, ge=0, le=1, description="0 ignores an item's length, 1 discounts it fully.")


@asset(kinds={"parquet", "numpy"})
@sorted_failures()
def bm25_matrix(
    context: AssetExecutionContext, config: Bm25Config, feedback_strengths: pa.Table
) -> MaterializeResult[Tables]:
    """The pairs as integer coordinates with strength and BM25 weight, and the two id indexes.

    Items are the documents and users the terms. Row i of `users` and `items` is the raw id of index i.
    """
    pairs = Pairs.from_strengths(feedback_strengths)
    weights = bm25_weights(pairs.pattern, pairs.strengths, k1=config.K1, b=config.B)
    n_dislikes = int(np.count_nonzero(weights <= 0))
    if n_dislikes:
        context.log.warning(
            f"{n_dislikes:,} weights are at or below zero; the search will refuse them as dislikes"
        )
    return MaterializeResult(
        value=pairs.to_tables(weights),
        metadata={
            **shape_metadata(*pairs.pattern.shape, pairs.pattern.n_pairs),
            "bm25_K1": config.K1,
            "bm25_B": config.B,
            "weights_at_or_below_zero": n_dislikes,
            "distributions": distribution_table({"strength": pairs.strengths, "weight": weights}),
        },
    )
