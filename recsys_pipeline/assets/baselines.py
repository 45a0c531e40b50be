"""What a tuned model should beat, tuned by the same pairs."""

import time
from enum import Enum
from itertools import product
from typing import Annotated, Any

import pyarrow as pa
from dagster import AssetExecutionContext, MaterializeResult, asset
from pydantic import Field

from recsys_pipeline import settings
from recsys_pipeline.assets.grid_config import MEMORY_LIMIT
from recsys_pipeline.assets.tuning_config import TuningConfig
from recsys_pipeline.core import columns
from recsys_pipeline.core.baseline_tables import (
    BASELINES_TABLE,
    RANKS_TABLE,
    baseline_ranks_table,
    baselines_table,
    n_ranked,
)
from recsys_pipeline.core.baseline_tuning import Baseline, Family, best_baselines_first
from recsys_pipeline.core.interactions import Datasets, Tables
from recsys_pipeline.core.item_graph import PRESENCE, STRENGTHS
from recsys_pipeline.core.item_knn import SimilarityWeighting
from recsys_pipeline.core.metadata import stored_metadata, with_metadata
from recsys_pipeline.core.selected import SELECTED_BY
from recsys_pipeline.core.strengths import EventRules
from recsys_pipeline.engines.chosen import chosen_engine
from recsys_pipeline.engines.engine import BaselinePlan
from recsys_pipeline.reporting.baselines import baselines_metadata, told_strongest
from recsys_pipeline.reporting.configuration import settings_table
from recsys_pipeline.reporting.metadata import SETTINGS, rounded
from recsys_pipeline.steps.step import asset_step

_Exponent = Annotated[float, Field(ge=0, le=1)]


class GraphWeighting(Enum):
    """What an interaction counts in the item graph."""

    presence = PRESENCE
    strengths = STRENGTHS


class BaselinesConfig(TuningConfig):
    """What is tried of each baseline; every combination of the lists of a family is measured."""

    # Enums, for Dagster to refuse an unknown name before the run; it wants the names as defaults.
    families: list[Family] = Field(
        default=[each.value for each in Family],
        validate_default=True,
        description="Which are measured: `item_knn`, `graph_filter`, `ease`, `popularity`, and "
        "`repeat_consumption` where a user's own items may be recommended.",
    )
    neighbours: list[Annotated[int, Field(ge=1, le=10_000)]] = Field(
        default=[20, 100, 400],
        min_length=1,
        description="Of `item_knn`: how many nearest items of an item count, beside itself.",
    )
    shrinkage: list[Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(
        default=[10.0, 100.0, 1000.0],
        min_length=1,
        description="Of `item_knn`: added to the product of the norms in the cosine, so that items of few "
        "users count less; in mean squared weights, which is a number of users where all weigh the same.",
    )
    similarity_weighting: list[SimilarityWeighting] = Field(
        default=[SimilarityWeighting.presence.value, SimilarityWeighting.tf_idf.value],
        validate_default=True,
        min_length=1,
        description="Of `item_knn`: what an item's vector has for a user: `presence` (1), the `strengths`, "
        "or these weighted by `tf_idf` or `bm25`.",
    )
    user_exponent: list[_Exponent] = Field(
        default=[0.25, 0.5],
        min_length=1,
        description="Of `graph_filter`: the larger, the less users with many items count.",
    )
    item_exponent: list[_Exponent] = Field(
        default=[0.0, 0.25, 0.5],
        min_length=1,
        description="Of `graph_filter`: the larger, the less popular items count.",
    )
    graph_weighting: list[GraphWeighting] = Field(
        default=[each.value for each in GraphWeighting],
        validate_default=True,
        min_length=1,
        description="Of `graph_filter`: an interaction counts 1 (`presence`), or its strength (`strengths`).",
    )
    penalty: list[Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(
        default=[0.3, 1.0, 3.0, 10.0],
        min_length=1,
        description="Of `ease`: L2 penalty on its weights, in mean numbers of users of an item.",
    )
    most_items_of_ease: int = Field(
        default=5_000,
        ge=0,
        description="`ease` is not measured where there are more items: it inverts a matrix of all items by "
        "all items.",
    )
    most_interactions: int = Field(
        default=10_000_000,
        ge=0,
        description="`item_knn`, `graph_filter` and `ease` are not measured where there are more "
        "interactions.",
    )
    max_users: int = Field(
        default=10_000,
        ge=0,
        description="Tune on the held-out interactions of at most this many users, drawn by a hash; 0 takes "
        "all. The time to rank them is proportional to these users.",
    )
    workers: int = Field(
        default=0, ge=0, description="Baselines side by side, one core each; 0 takes all cores."
    )
    memory_limit: float = Field(default=settings.MEMORY_LIMIT, ge=0, description=MEMORY_LIMIT)
    patience_hours: float = Field(
        default=4.0, gt=0, description="A baseline that takes longer is ended and counts as failed."
    )

    def baselines(self) -> list[Baseline]:
        """Every configuration, family by family."""
        lists: dict[Family, dict[str, list[Any]]] = {
            Family.item_knn: {
                "strengths": list(self.mappings()),
                "weighting": [each.value for each in self.similarity_weighting],
                "shrinkage": self.shrinkage,
                "neighbours": self.neighbours,
            },
            Family.graph_filter: {
                "strengths": list(self.mappings()),
                "weighting": [each.value for each in self.graph_weighting],
                "user_exponent": self.user_exponent,
                "item_exponent": self.item_exponent,
            },
            Family.ease: {
                "strengths": list(self.mappings()),
                "weighting": [PRESENCE],
                "penalty": self.penalty,
            },
            Family.popularity: {},
            Family.repeat_consumption: {"strengths": list(self.mappings())},
        }
        return list(
            dict.fromkeys(
                Baseline(family, **dict(zip(lists[family], values, strict=True)))
                for family in self.families
                for values in product(*lists[family].values())
            )
        )


@asset(kinds={"parquet", "python"})
@asset_step
def baselines(
    context: AssetExecutionContext,
    config: BaselinesConfig,
    bm25_matrix: Datasets,
    leave_one_out_split: pa.Table,
) -> MaterializeResult[Tables]:
    """What a tuned model should beat: one row a configuration of a simpler model, the best first.

    Item-kNN, the item graph, EASE, popularity and repeat consumption, tuned by the same held-out pairs as the
    search, with weights from training interactions only. What is not measured on this data is a row that says
    why. `baseline_ranks.parquet`, replaced together with it, has the rank of each held-out interaction by the
    best of each family, 0 for those of users beyond `max_users`.
    """
    begin = time.perf_counter()
    plan = BaselinePlan(
        baselines=config.baselines(),
        mappings=config.mappings(),
        most_items_of_ease=config.most_items_of_ease,
        most_interactions=config.most_interactions,
        max_users=config.max_users,
        workers=config.workers,
        most_silent_seconds=3600 * config.patience_hours,
        memory_limit=config.memory_limit,
        selection=config.selection(),
    )
    results = chosen_engine().baselines(bm25_matrix, leave_one_out_split, plan, context.log.info)
    ranking = best_baselines_first(results)
    for result in ranking:
        if result.failure:
            context.log.info(f"{result.baseline.family.value} is not measured: {result.failure}")
    table = baselines_table(ranking, config.selection())
    rules = EventRules.from_metadata(stored_metadata(bm25_matrix["pairs"]))
    tuned_on = {
        columns.HELD_OUT: len(leave_one_out_split),
        "ranked_interactions": n_ranked(ranking),
    }
    stored = {
        "strengths": {
            name: dict(rules.strengths if mapping is None else mapping)
            for name, mapping in config.mappings().items()
        },
        SELECTED_BY: config.selection().as_dict(),
        **tuned_on,
    }
    table = with_metadata(table, stored)
    context.log.info(told_strongest(table))
    return MaterializeResult(
        value={
            BASELINES_TABLE: table,
            RANKS_TABLE: with_metadata(baseline_ranks_table(ranking), stored),
        },
        metadata={
            **baselines_metadata(table),
            "Held-out interactions": len(leave_one_out_split),
            "Ranked interactions": n_ranked(ranking),
            "Seconds": rounded(time.perf_counter() - begin),
            SETTINGS: settings_table(config, compared_by=config.selection().name),
        },
    )
