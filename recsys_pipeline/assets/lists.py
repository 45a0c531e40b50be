"""The lists that shops read: for every user, for every item, and for people never seen."""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

import numpy as np
import pyarrow as pa
from dagster import AssetExecutionContext, MaterializeResult, asset
from pydantic import Field

from recsys_pipeline import settings
from recsys_pipeline.configuration import Knobs
from recsys_pipeline.core.catalogue import offer_in
from recsys_pipeline.core.columns import ITEM, SCORE, SIMILAR
from recsys_pipeline.core.exports import ListTally, popular_items_of
from recsys_pipeline.core.interactions import Tables
from recsys_pipeline.core.lineage import ancestors_of, with_ancestors
from recsys_pipeline.core.metadata import stored_metadata, with_metadata
from recsys_pipeline.core.model import Model
from recsys_pipeline.core.offer import Popularity
from recsys_pipeline.core.scorer import Choice, by_evidence
from recsys_pipeline.core.sources import ALS, BLEND, GRAPH
from recsys_pipeline.engines.chosen import chosen_engine
from recsys_pipeline.engines.engine import ExportPlan
from recsys_pipeline.reporting.configuration import settings_table
from recsys_pipeline.reporting.metadata import AT_A_GLANCE, SETTINGS, markdown_table, percent, rounded
from recsys_pipeline.steps.step import asset_step
from recsys_pipeline.storage.io_manager import table_metadata
from recsys_pipeline.storage.warehouse import Warehouse

_MOST = 1000
_SHOWN = 10


class Scorer(Enum):
    """Who scores the items for a user."""

    als = ALS
    blend = BLEND
    auto = "auto"


class SimilarScorer(Enum):
    """Who says how much one item is like another."""

    als = ALS
    graph = GRAPH


class ListsConfig(Knobs):
    """What all lists have in common."""

    n: int = Field(default=20, ge=1, le=_MOST, description="Length of the lists.")


class RecommendationsConfig(ListsConfig):
    """What every user is recommended."""

    scorer: Scorer = Field(
        default=Scorer.als,
        description="`als`: by the factors; `blend`: by ALS score, item graph, own history and popularity, "
        "as the search has fitted it (`blend` of grid_search_results). It scores every item for every user "
        "and so takes longer. `auto`: by the blend where the evaluation says that it is better than ALS by "
        "more than chance, else by the factors.",
    )
    memory_limit: float = Field(
        default=settings.MEMORY_LIMIT,
        ge=0,
        description="GB; it decides how many blocks of users are scored side by side (RECSYS_MEMORY_LIMIT).",
    )


class SimilarItemsConfig(ListsConfig):
    """What is listed for every item."""

    scorer: SimilarScorer = Field(
        default=SimilarScorer.als,
        description="`als`: the cosine of the factors; `graph`: the weight of the edge in the item graph of "
        "the search, by the users whom the two items share.",
    )
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
    evaluation: Tables,
) -> MaterializeResult[None]:
    """The best items for every user, of those on offer and not excluded, then popular ones where these end.

    Scores compare within one source only: of a popular item it is the share of users who had a target event
    with it.
    """
    choice = _choice(config.scorer, best_model, evaluation)
    context.log.info(choice.told)
    offer = offer_in(catalogue)
    plan = ExportPlan(config.n, choice.scorer == BLEND, config.memory_limit)
    tally = ListTally(config.n, ITEM)
    rows = tally.counted(chosen_engine().recommendations(best_model, offer, plan))
    said = {
        "n": config.n,
        "scorer": choice.scorer,
        "scorer_asked_for": config.scorer.value,
        "scorer_told": choice.told,
        "target_events": best_model.manifest["target_events"],
    }
    described = with_ancestors(with_metadata(rows, said), ancestors_of([best_model, catalogue, evaluation]))
    warehouse.write_tables("recommendations", {"recommendations": described})
    n_users, n_offered = len(best_model.users), int(np.count_nonzero(offer.allowed))
    told = _told_lists(tally, config.n, n_users, "users", n_offered)
    filled_up = f"{tally.n_filled_up:,} lists are filled up with popular items"
    context.log.info(f"{told}; {filled_up}")
    return MaterializeResult(
        metadata={
            AT_A_GLANCE: f"{told}; {filled_up}" if tally.n_filled_up else told,
            "Users": n_users,
            "Users with a full list": tally.n_full,
            "Users without a list": n_users - tally.n_lists,
            "Users filled up": tally.n_filled_up,
            **_coverage(tally, n_offered),
            "by source": markdown_table(
                ["source", "share of the rows"],
                [[name, percent(count / tally.n_rows)] for name, count in sorted(tally.by_source.items())],
            ),
            "scorer": choice.told,
            SETTINGS: settings_table(config, lists_scored_by=choice.scorer),
            **_metadata(warehouse, "recommendations", rows.schema, tally.n_rows),
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
    """For every item those on offer that are most like it.

    By the factors these are the items whose factors point most nearly the same way, and the score is the
    cosine; by the item graph its strongest neighbours, and the score is the weight of the edge. Items of
    which the model, or the graph, knows nothing have no list and are in none.
    """
    offer = offer_in(catalogue)
    by_graph = config.scorer is SimilarScorer.graph
    plan = ExportPlan(config.n, memory_limit=config.memory_limit, graph=by_graph)
    tally = ListTally(config.n, SIMILAR)
    rows = tally.counted(chosen_engine().similar_items(best_model, offer, plan))
    ancestors = ancestors_of([best_model, catalogue])
    said = {"n": config.n, "scorer": config.scorer.value}
    described = with_ancestors(with_metadata(rows, said), ancestors)
    warehouse.write_tables("similar_items", {"similar_items": described})
    n_items, n_offered = len(best_model.items), int(np.count_nonzero(offer.allowed))
    told = _told_lists(tally, config.n, n_items, "items", n_offered)
    context.log.info(told)
    return MaterializeResult(
        metadata={
            AT_A_GLANCE: told,
            "Items": n_items,
            "Items with a full list": tally.n_full,
            "Items without a list": n_items - tally.n_lists,
            **_coverage(tally, n_offered),
            SETTINGS: settings_table(config),
            **_metadata(warehouse, "similar_items", rows.schema, tally.n_rows),
        }
    )


@asset(kinds={"parquet", "numpy"})
@asset_step
def popular_items(
    context: AssetExecutionContext, config: PopularItemsConfig, best_model: Model, catalogue: pa.Table
) -> MaterializeResult[pa.Table]:
    """The items on offer that most users had a target event with; the score is the share of these users."""
    offer = offer_in(catalogue)
    popularity = Popularity.in_model(best_model, offer)
    table = popular_items_of(popularity, offer, best_model.items, config.n)
    target_events = best_model.manifest["target_events"]
    said = {"n": config.n, "target_events": target_events}
    told = "nothing is on offer"
    shares = {}
    if len(table):
        most, least = (table[SCORE][place].as_py() for place in (0, len(table) - 1))
        told = (
            f"the {len(table):,} most popular items on offer; {percent(most)} of the users had "
            f"{_any_of(target_events)} with the first of them, {percent(least)} with the last"
        )
        shares = {"Share of users of the first": rounded(most), "Share of users of the last": rounded(least)}
    context.log.info(told)
    return MaterializeResult(
        value=with_metadata(table, said),
        metadata={
            AT_A_GLANCE: told,
            "Items listed": len(table),
            **shares,
            "first items": markdown_table(
                ["item", "share of users"],
                [[row[ITEM], percent(row[SCORE])] for row in table.slice(0, _SHOWN).to_pylist()],
            ),
            SETTINGS: settings_table(config, target_events=target_events),
        },
    )


def _any_of(events: Sequence[str]) -> str:
    """One of some events, for people."""
    return f"an event {events[0]}" if len(events) == 1 else "a target event"


def _choice(asked_for: Scorer, model: Model, evaluation: Mapping[str, pa.Table]) -> Choice:
    """Who scores; the evidence is asked only where it is to decide."""
    if asked_for is Scorer.auto:
        models = evaluation["models"]
        k = stored_metadata(models)["k"]
        return by_evidence(models.to_pylist(), k, has_blend=model.blend is not None)
    names = {Scorer.als: "ALS", Scorer.blend: "the blend"}
    return Choice(asked_for.value, f"scored by {names[asked_for]}, as `scorer` is configured")


def _metadata(warehouse: Warehouse, asset_name: str, schema: pa.Schema, n_rows: int) -> dict[str, Any]:
    return table_metadata(schema, n_rows, warehouse.path_of(asset_name))


def _coverage(tally: ListTally, n_offered: int) -> dict[str, Any]:
    return {"Items listed": tally.n_distinct, "Coverage": rounded(tally.n_distinct / n_offered)}


def _told_lists(tally: ListTally, n: int, n_all: int, of_whom: str, n_offered: int) -> str:
    """Who has a list, and how much of the offer is in one, as a sentence."""
    full = f"{tally.n_full:,} of {n_all:,} {of_whom} have a full list of {n}"
    some = f", {tally.n_lists - tally.n_full:,} a shorter one" if tally.n_lists > tally.n_full else ""
    none = f", {n_all - tally.n_lists:,} none" if n_all > tally.n_lists else ""
    share = percent(tally.n_distinct / n_offered)
    return f"{full}{some}{none}; {share} of the {n_offered:,} items on offer are in a list"
