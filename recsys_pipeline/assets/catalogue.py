"""What of the shop's items may be recommended."""

from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc
from dagster import AssetExecutionContext, MaterializeResult, asset
from pydantic import Field

from recsys_pipeline import settings
from recsys_pipeline.configuration import Knobs
from recsys_pipeline.core.catalogue import Listed, catalogue_table
from recsys_pipeline.core.columns import CATEGORY, REASON
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.model import Model
from recsys_pipeline.reporting.configuration import settings_table
from recsys_pipeline.reporting.metadata import AT_A_GLANCE, SETTINGS, counts_table
from recsys_pipeline.steps.step import asset_step
from recsys_pipeline.storage.catalogue import read_catalogue, read_id_list
from recsys_pipeline.storage.feedback import Feedback
from recsys_pipeline.storage.locations import LOCATION_CONFIG, OptionalLocation
from recsys_pipeline.storage.source import locations_in, watched


class CatalogueConfig(Knobs):
    """The shop's own rules; its files are read with the delimiter, encoding and blank ids of the feedback."""

    model_config = LOCATION_CONFIG

    path: OptionalLocation = Field(
        default=settings.CATALOGUE,
        description="File, folder or glob, CSV or Parquet, with a column ProductCode and, optionally, "
        "available (true or false, 1 or 0, yes or no) and category. What it does not list, or calls not "
        "available, is not recommended; empty: everything is (RECSYS_CATALOGUE).",
    )
    max_per_category: int = Field(
        default=settings.MAX_PER_CATEGORY,
        ge=0,
        description="Of the items of one category at most so many are in a list; 0: no limit "
        "(RECSYS_MAX_PER_CATEGORY).",
    )
    allow_list: OptionalLocation = Field(
        default=settings.ALLOW_LIST,
        description="File with a column ProductCode: nothing else is recommended (RECSYS_ALLOW_LIST).",
    )
    deny_list: OptionalLocation = Field(
        default=settings.DENY_LIST,
        description="File with a column ProductCode: these are not recommended (RECSYS_DENY_LIST).",
    )


@asset(kinds={"parquet", "python"})
@asset_step
def catalogue(
    context: AssetExecutionContext, config: CatalogueConfig, feedback: Feedback, best_model: Model
) -> MaterializeResult[pa.Table]:
    """Every item of the model: whether it may be recommended, if not why, and its category."""
    if config.max_per_category and not config.path:
        raise InputError(
            f"max_per_category is {config.max_per_category} (RECSYS_MAX_PER_CATEGORY), but there is no "
            "catalogue. Name one with a column category (RECSYS_CATALOGUE), or set max_per_category to 0."
        )
    source = watched(locations_in(config))
    items = best_model.items
    entries = read_catalogue(config.path, feedback, items.type) if config.path else None
    if entries and entries.absent:
        context.log.info(f"{config.path} has no column {' and no '.join(entries.absent)}")
    allowed = _id_list(
        config.allow_list, feedback, items.type, "RECSYS_ALLOW_LIST, or `allow_list` of catalogue"
    )
    denied = _id_list(config.deny_list, feedback, items.type, "RECSYS_DENY_LIST, or `deny_list` of catalogue")
    table = catalogue_table(items, entries, allowed, denied, config.max_per_category)
    files = {"catalogue": entries and entries.listed, "allow-list": allowed, "deny-list": denied}
    reasons = Counter(table[REASON].to_pylist())
    n_recommendable = reasons.pop("", 0)
    told = ", ".join(f"{reason}: {count:,}" for reason, count in reasons.most_common())
    if not n_recommendable:
        raise InputError(
            f"none of the {len(table):,} items of the model may be recommended ({told}). Are the ids of "
            f"{', '.join(filter(None, (config.path, config.allow_list, config.deny_list)))} those of the "
            "feedback?"
        )
    if config.max_per_category and table[CATEGORY].null_count == len(table):
        raise InputError(
            f"{config.path} gives no item of the model a category, and max_per_category is "
            f"{config.max_per_category}. Add the column category, or set max_per_category of catalogue "
            "(RECSYS_MAX_PER_CATEGORY) to 0."
        )
    told = f"{n_recommendable:,} of {len(table):,} items may be recommended{'; ' * bool(told)}{told}"
    context.log.info(told)
    return MaterializeResult(
        value=table,
        metadata={
            AT_A_GLANCE: told,
            "Recommendable items": n_recommendable,
            "Other items": len(table) - n_recommendable,
            **{
                f"Items of the {name} that nobody touched": listed.untouched(items)
                for name, listed in files.items()
                if listed
            },
            "Categories": pc.count_distinct(table[CATEGORY]).as_py(),
            **({"reasons": counts_table("reason", reasons)} if reasons else {}),
            SETTINGS: settings_table(config),
        },
        tags=source.tags(),
    )


def _id_list(path: str, feedback: Feedback, ids: pa.DataType, setting: str) -> Listed | None:
    return read_id_list(path, feedback, ids, setting) if path else None
