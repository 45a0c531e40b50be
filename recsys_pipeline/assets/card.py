"""What a person who takes over the model has to know."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from dagster import AssetExecutionContext, MaterializeResult, MetadataValue, asset

from recsys_pipeline.assets.pictures import pictures_of
from recsys_pipeline.core import columns
from recsys_pipeline.core.columns import USER
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.examples import example_users
from recsys_pipeline.core.interactions import Tables
from recsys_pipeline.core.lineage import ancestors_of
from recsys_pipeline.core.metadata import FEED, stored_metadata
from recsys_pipeline.core.model import Model
from recsys_pipeline.reporting.card import card, card_facts, without_ids_of_users
from recsys_pipeline.reporting.metadata import AT_A_GLANCE, WHERE_IT_IS, rounded
from recsys_pipeline.reporting.pictures.shown import with_embedded
from recsys_pipeline.steps.step import asset_step
from recsys_pipeline.storage.models import CARD
from recsys_pipeline.storage.warehouse import Warehouse


@asset(kinds={"markdown", "json"})
@asset_step
def model_card(
    context: AssetExecutionContext,
    warehouse: Warehouse,
    raw_feedback: ds.Dataset,
    grid_search_results: pa.Table,
    evaluation: Tables,
    best_model: Model,
    recommendations: ds.Dataset,
) -> MaterializeResult[None]:
    """The model card: from what data, how good, what was decided and why, the limits, and five users.

    `model_card.md` is for people. `model_card.json` has the facts in it, from which it can be rendered again.
    """
    _require_told(raw_feedback, "raw_feedback", FEED)
    _require_told(grid_search_results, "grid_search_results", "decision")
    _require_told(evaluation["models"], "evaluation", "out_of_reach")
    users = [example.user for example in example_users(best_model.contents.pattern)]
    ids = best_model.users.take(pa.array(users, pa.int64()))
    facts = card_facts(
        stored_metadata(raw_feedback)[FEED],
        evaluation,
        grid_search_results,
        best_model,
        recommendations.to_table(filter=pc.field(USER).isin(ids)),
    )
    inputs = [raw_feedback, grid_search_results, evaluation, best_model, recommendations]
    ancestors = ancestors_of(inputs)
    pictures = pictures_of(
        context,
        warehouse,
        {
            "raw_feedback": ancestors.get("raw_feedback", ""),
            "feedback_strengths": ancestors.get("feedback_strengths", ""),
            "grid_search_results": [grid_search_results],
            "evaluation": [evaluation["models"], evaluation["segments"]],
        },
    )
    facts["pictures"] = {each.name: each.reference() for each in pictures}
    text = card(facts)
    warehouse.write_card("model_card", text, facts, ancestors, pictures)
    said = facts["evaluation"]
    n_words, n_sections = len(text.split()), text.count("\n## ")
    context.log.info(
        f"a model card of {n_words:,} words in {n_sections} sections, with {len(users)} users as examples"
    )
    return MaterializeResult(
        metadata={
            AT_A_GLANCE: said["verdict"],
            f"MAP@{said['k']} (unseen)": rounded(said["models"][0][columns.MAP]),
            # Dagster keeps for ever what it is told.
            "card": MetadataValue.md(with_embedded(card(without_ids_of_users(facts)), pictures)),
            WHERE_IT_IS: MetadataValue.path(str(warehouse.path_of("model_card") / CARD)),
        }
    )


def _require_told(table: Any, asset: str, name: str) -> None:
    """Refuse what an earlier version of this package wrote, which says less of itself.

    Raises:
        InputError: the table does not say it.
    """
    if name not in stored_metadata(table):
        raise InputError(
            f"{asset} does not say its {name}: it is of an earlier version. Materialize {asset} again, then "
            "what follows it."
        )
