"""The lists that shops read: for every user, for every item, and for people never seen."""

from enum import Enum
from typing import Any

import numpy as np
import pyarrow as pa
from dagster import AssetExecutionContext, Config, MaterializeResult, asset
from pydantic import Field

from recsys_pipeline import settings
from recsys_pipeline.core.catalogue import offer_in
from recsys_pipeline.core.columns import ITEM, SIMILAR
from recsys_pipeline.core.exports import ALS, BLEND, ListTally, popular_items_of
from recsys_pipeline.core.lineage import ancestors_of, with_ancestors
from recsys_pipeline.core.metadata import with_metadata
from recsys_pipeline.core.model import Model
from recsys_pipeline.core.offer import Popularity
from recsys_pipeline.engines.engine import ExportPlan
from recsys_pipeline.engines.local.engine import LocalEngine
from recsys_pipeline.reporting.metadata import markdown_table, rounded
from recsys_pipeline.steps import asset_step
from recsys_pipeline.storage.io_manager import table_metadata
from recsys_pipeline.storage.warehouse import Warehouse

_MOST = 1000


class Scorer(Enum):
    """Who scores the items for a user."""

    als = ALS
    blend = BLEND


class ListsConfig(Config):
    """What all lists have in common."""

    n: int = Field(default=20, ge=1, le=_MOST, description="Length of the lists.")


class RecommendationsConfig(ListsConfig):
    """What every user is recommended."""

    scorer: Scorer = Field(
        default=Scorer.als,
        description="`als`: by the factors; `blend`: by ALS score, own history and popularity, as the search "
        "has fitted it (`blend` of grid_search_results). It scores every item for every user and so takes "
        "longer.",
    )
    memory_limit: float = Field(
        default=settings.MEMORY_LIMIT,
        ge=0,
        description="GB; it decides how many blocks of users are scored side by side (RECSYS_MEMORY_LIMIT).",
    )


class SimilarItemsConfig(ListsConfig):
    """What is listed for every item."""

    memory_limit: float = Field(
        default=settings.MEMORY_LIMIT,
        ge=0,
        description="GB; it decides how many blocks of items are scored side by side (RECSYS_MEMORY_LIMIT).",
    )


class PopularItemsConfig(ListsConfig):
    """What is listed for people never seen."""


@asset(kinds={"parquet", "numpy"})
@asset_step
def recommendations(
    context: AssetExecutionContext,
    config: RecommendationsConfig,
    warehouse: Warehouse,
    best_model: Model,
    catalogue: pa.Table,
) -> MaterializeResult[None]:
    """The best items for every user, of those on offer and not excluded, then popular ones where these end.

    Scores compare within one source only: of a popular item it is the share of users who had a target event
    with it.
    """
    offer, plan = (
        offer_in(catalogue),
        ExportPlan(config.n, config.scorer is Scorer.blend, config.memory_limit),
    )
    tally = ListTally(config.n, ITEM)
    rows = tally.counted(LocalEngine().recommendations(best_model, offer, plan))
    said = {
        "n": config.n,
        "scorer": config.scorer.value,
        "target_events": best_model.manifest["target_events"],
    }
    described = with_ancestors(with_metadata(rows, said), ancestors_of([best_model, catalogue]))
    warehouse.write_batches("recommendations", described)
    n_users, n_offered = len(best_model.users), int(np.count_nonzero(offer.allowed))
    context.log.info(
        f"{tally.n_rows:,} rows for {tally.n_lists:,} of {n_users:,} users, {tally.n_filled_up:,} of them "
        f"filled up with popular items; {tally.n_distinct:,} of {n_offered:,} items on offer are recommended"
    )
    return MaterializeResult(
        metadata={
            **_metadata(warehouse, "recommendations", rows.schema, tally.n_rows),
            "users": n_users,
            "users_with_a_full_list": tally.n_full,
            "users_without_a_list": n_users - tally.n_lists,
            "users_filled_up": tally.n_filled_up,
            "sources": markdown_table(
                ["source", "share"],
                [[name, rounded(count / tally.n_rows)] for name, count in sorted(tally.by_source.items())],
            ),
            **_coverage(tally, n_offered),
        }
    )


@asset(kinds={"parquet", "numpy"})
@asset_step
def similar_items(
    context: AssetExecutionContext,
    config: SimilarItemsConfig,
    warehouse: Warehouse,
    best_model: Model,
    catalogue: pa.Table,
) -> MaterializeResult[None]:
    """For every item those on offer whose factors point most nearly the same way; the score is the cosine.

    Items of which the model knows nothing have no list and are in none.
    """
    offer, plan = offer_in(catalogue), ExportPlan(config.n, memory_limit=config.memory_limit)
    tally = ListTally(config.n, SIMILAR)
    rows = tally.counted(LocalEngine().similar_items(best_model, offer, plan))
    ancestors = ancestors_of([best_model, catalogue])
    warehouse.write_batches("similar_items", with_ancestors(with_metadata(rows, {"n": config.n}), ancestors))
    context.log.info(f"{tally.n_rows:,} rows for {tally.n_lists:,} of {len(best_model.items):,} items")
    return MaterializeResult(
        metadata={
            **_metadata(warehouse, "similar_items", rows.schema, tally.n_rows),
            "items": len(best_model.items),
            "items_with_a_full_list": tally.n_full,
            "items_without_a_list": len(best_model.items) - tally.n_lists,
            **_coverage(tally, int(np.count_nonzero(offer.allowed))),
        }
    )


@asset(kinds={"parquet", "numpy"})
@asset_step
def popular_items(
    config: PopularItemsConfig, best_model: Model, catalogue: pa.Table
) -> MaterializeResult[pa.Table]:
    """The items on offer that most users had a target event with; the score is the share of these users."""
    offer = offer_in(catalogue)
    popularity = Popularity.in_model(best_model, offer)
    table = popular_items_of(popularity, offer, best_model.items, config.n)
    said = {"n": config.n, "target_events": best_model.manifest["target_events"]}
    return MaterializeResult(value=with_metadata(table, said))


def _metadata(warehouse: Warehouse, asset_name: str, schema: pa.Schema, n_rows: int) -> dict[str, Any]:
    return table_metadata(schema, n_rows, warehouse.path_of(asset_name))


def _coverage(tally: ListTally, n_offered: int) -> dict[str, Any]:
    return {"items_listed": tally.n_distinct, "coverage": rounded(tally.n_distinct / n_offered)}
