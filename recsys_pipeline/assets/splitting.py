"""The leave-one-out split."""

import numpy as np
import pyarrow as pa
from dagster import AssetExecutionContext, MaterializeResult, asset
from pydantic import Field

from recsys_pipeline.configuration import Knobs
from recsys_pipeline.core.columns import USER_INDEX
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.hyperparameters import DEFAULT_STRENGTHS
from recsys_pipeline.core.interactions import Datasets, Interactions, unknown_in
from recsys_pipeline.core.metadata import with_metadata
from recsys_pipeline.core.splitting import HoldOutMethod, leave_one_out
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
from recsys_pipeline.steps import asset_step
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
    interactions = Interactions.from_tables(bm25_matrix)
    of_file = config.strategy is HoldOutMethod.file
    held_out = _of_file(interactions, config, feedback) if of_file else _by_hash(interactions, config)
    metadata = {
        "keep_other_events": config.keep_other_events,
        "strategy": config.strategy.value,
        "min_interactions": config.min_interactions,
        "max_users": config.max_users,
    }
    held_out = with_metadata(held_out, metadata)
    splits = list(interactions.splits(held_out, {DEFAULT_STRENGTHS: None}, weigh_all=True))
    users = held_out[USER_INDEX].to_numpy()
    n_users = interactions.pattern.n_users
    n_whole = n_users - len(np.unique(users[users < n_users]))
    unknown = unknown_in(held_out, n_users)
    # No model can recommend an item that it has never seen: a ceiling for every hit rate.
    n_unseen = unknown["items"]
    for split in splits:
        popularity = np.bincount(
            split.training[DEFAULT_STRENGTHS].indices, minlength=interactions.pattern.n_items
        )
        n_unseen += int(np.count_nonzero(popularity[split.items[split.items >= 0]] == 0))
    share_unseen = n_unseen / len(users)
    out_of_reach = (
        f"{percent(share_unseen)} of them are of items that training does not have: no model can rank these"
        if n_unseen
        else "training has the items of all of them"
    )
    told = f"{len(users):,} interactions are held out; {out_of_reach}"
    context.log.info(f"{told}; {n_whole:,} users stay whole in training")
    if any(unknown.values()):
        context.log.warning(told_unknown(config.file, **unknown))
    return MaterializeResult(
        value=held_out,
        metadata={
            AT_A_GLANCE: told,
            "Held-out interactions": len(users),
            OUT_OF_REACH: rounded(share_unseen),
            "Training interactions": splits[0].training[DEFAULT_STRENGTHS].n_interactions,
            "Users whole in training": n_whole,
            **unknown_metadata(unknown),
            SETTINGS: settings_table(config, splits=len(splits)),
        },
        tags=source.tags(),
    )


def _by_hash(interactions: Interactions, config: SplitConfig) -> pa.Table:
    if config.strategy is HoldOutMethod.last and config.n_splits > 1:
        raise InputError("leave_one_out_split: there is one `last` interaction a user; set n_splits to 1.")
    tables = []
    for number in range(config.n_splits):
        positions = leave_one_out(
            interactions.pattern,
            seed=config.seed + number,
            min_interactions=config.min_interactions,
            method=config.strategy,
            timestamps=interactions.timestamps[1] if interactions.timestamps else None,
            max_users=config.max_users or None,
            allowed=interactions.target,
        )
        if not len(positions):
            raise InputError(
                f"no user has {config.min_interactions} interactions or more (the most is "
                f"{interactions.pattern.interactions_per_user.max()}) and among them one with an event to "
                f"hold out ({', '.join(interactions.rules.target_events)}), so that nothing can score the "
                "search. Bring more feedback, or lower min_interactions of leave_one_out_split."
            )
        tables.append(interactions.held_out_table(positions, number))
    return pa.concat_tables(tables)


def _of_file(interactions: Interactions, config: SplitConfig, feedback: Feedback) -> pa.Table:
    if not config.file:
        raise InputError("leave_one_out_split: the strategy `file` needs the path of a `file`.")
    given = read_held_out(config.file, feedback, interactions.users.type, interactions.items.type)
    return interactions.given_table(given, number=0)
