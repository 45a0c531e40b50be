"""The leave-one-out split."""

import pyarrow as pa
from dagster import AssetExecutionContext, MaterializeResult, asset
from pydantic import Field

from recsys_pipeline.configuration import Knobs
from recsys_pipeline.core.columns import ITEM, USER
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.interactions import Datasets
from recsys_pipeline.core.splitting import HoldOutMethod
from recsys_pipeline.engines.chosen import chosen_engine
from recsys_pipeline.engines.engine import HoldOutPlan
from recsys_pipeline.reporting.configuration import settings_table
from recsys_pipeline.reporting.metadata import (
    AT_A_GLANCE,
    OUT_OF_REACH,
    SETTINGS,
    percent,
    rounded,
    told_unknown,
    unknown_metadata,
)
from recsys_pipeline.steps.step import asset_step
from recsys_pipeline.storage.feedback import Feedback
from recsys_pipeline.storage.held_out import read_held_out
from recsys_pipeline.storage.locations import LOCATION_CONFIG, OptionalLocation
from recsys_pipeline.storage.source import locations_in, watched


class SplitConfig(Knobs):
    """Which interaction of each user is held out."""

    model_config = LOCATION_CONFIG

    strategy: HoldOutMethod = Field(
        default=HoldOutMethod.random,
        description="`random`: by a hash of seed, user and item; `last`: the latest, by the timestamps; "
        "`file`: the interactions of `file`.",
    )
    seed: int = Field(
        default=42, ge=0, lt=2**63 - 100, description="Another seed holds out other interactions."
    )
    min_interactions: int = Field(
        default=3, ge=2, description="A user with fewer interactions stays whole in training."
    )
    max_users: int = Field(
        default=100_000,
        ge=0,
        description="Hold out an interaction of at most this many users, drawn by hash; 0 takes all. The "
        "time to score a trial is proportional to these users times the items.",
    )
    n_splits: int = Field(
        default=1,
        ge=1,
        le=100,
        description="Number of random splits to average in the search, with seed, seed + 1 and so on.",
    )
    file: OptionalLocation = Field(
        default="",
        description="For the strategy `file`: CSV or Parquet with the user and item columns of the feedback; "
        "a user may have several rows.",
    )
    keep_other_events: bool = Field(
        default=False,
        description="Hold out only the target events of an interaction (`target_events` of `feedback`) and "
        "leave its other events in training.",
    )


@asset(kinds={"parquet", "numpy"})
@asset_step
def leave_one_out_split(
    context: AssetExecutionContext, config: SplitConfig, feedback: Feedback, bm25_matrix: Datasets
) -> MaterializeResult[pa.Table]:
    """Which interaction of each eligible user is held out; everything else is training."""
    source = watched(locations_in(config))
    if config.strategy is HoldOutMethod.last and config.n_splits > 1:
        raise InputError("leave_one_out_split: there is one `last` interaction a user; set n_splits to 1.")
    of_file = config.strategy is HoldOutMethod.file
    plan = HoldOutPlan(
        method=config.strategy,
        seed=config.seed,
        min_interactions=config.min_interactions,
        max_users=config.max_users,
        n_splits=1 if of_file else config.n_splits,
        given=_of_file(config, feedback, bm25_matrix) if of_file else None,
        told={
            "keep_other_events": config.keep_other_events,
            "strategy": config.strategy.value,
            "min_interactions": config.min_interactions,
            "max_users": config.max_users,
        },
    )
    held_out, _, _, n_splits, n_training, n_whole, n_unseen, unknown = chosen_engine().hold_out(
        bm25_matrix, plan
    )
    # No model can recommend an item that it has never seen: a ceiling for every hit rate.
    share_unseen = n_unseen / held_out.num_rows
    out_of_reach = (
        f"{percent(share_unseen)} of them are of items that training does not have: no model can rank these"
        if n_unseen
        else "training has the items of all of them"
    )
    told = f"{held_out.num_rows:,} interactions are held out; {out_of_reach}"
    context.log.info(f"{told}; {n_whole:,} users stay whole in training")
    if any(unknown.values()):
        context.log.warning(told_unknown(config.file, **unknown))
    return MaterializeResult(
        value=held_out,
        metadata={
            AT_A_GLANCE: told,
            "Held-out interactions": held_out.num_rows,
            OUT_OF_REACH: rounded(share_unseen),
            "Training interactions": n_training,
            "Users whole in training": n_whole,
            **unknown_metadata(unknown),
            SETTINGS: settings_table(config, splits=n_splits),
        },
        tags=source.tags(),
    )


def _of_file(config: SplitConfig, feedback: Feedback, bm25_matrix: Datasets) -> pa.Table:
    if not config.file:
        raise InputError("leave_one_out_split: the strategy `file` needs the path of a `file`.")
    users, items = (
        bm25_matrix[table].schema.field(name).type for table, name in (("users", USER), ("items", ITEM))
    )
    return read_held_out(config.file, feedback, users, items)
