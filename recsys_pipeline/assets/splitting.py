"""The leave-one-out split."""

import numpy as np
import pyarrow as pa
from dagster import AssetExecutionContext, Config, MaterializeResult, asset
from numpy.typing import NDArray
from pydantic import Field

from recsys_pipeline.assets.pairs import Pairs, Tables
from recsys_pipeline.core.columns import ITEM, ITEM_INDEX, USER, USER_INDEX
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.splitting import Strategy, held_out_pairs
from recsys_pipeline.failures import input_errors_fail_the_run


class SplitConfig(Config):
    """Which pair of each user is held out."""

    strategy: Strategy = Field(
        default=Strategy.random,
        description="`random`: by a hash of seed, user and item; `last`: the latest, by the timestamps.",
    )
    seed: int = Field(default=42, ge=0, lt=2**63, description="Another seed holds out other pairs.")
    min_interactions: int = Field(
        default=3, ge=2, description="A user with fewer pairs stays whole in training."
    )
    max_users: int = Field(
        default=100_000,
        ge=0,
        description="Hold out a pair of so many users at most, drawn by hash; 0 takes all. Scoring a trial "
        "takes time in proportion to these users times the items.",
    )


@asset(kinds={"parquet", "numpy"})
def leave_one_out_split(
    context: AssetExecutionContext, config: SplitConfig, bm25_matrix: Tables
) -> MaterializeResult[pa.Table]:
    """Which pair of each eligible user is held out; everything else is training."""
    pairs = Pairs.from_tables(bm25_matrix)
    with input_errors_fail_the_run():
        held_out = held_out_pairs(
            pairs.pattern,
            seed=config.seed,
            min_interactions=config.min_interactions,
            strategy=config.strategy,
            timestamps=pairs.timestamps,
            max_users=config.max_users or None,
        )
        if not len(held_out):
            raise InputError(
                f"no user has {config.min_interactions} pairs or more (the most is "
                f"{pairs.pattern.pairs_per_user.max()}), so nothing can be held out to score the search. "
                "Bring more feedback, or lower min_interactions of leave_one_out_split."
            )
    users, items = pairs.pattern.user_of_pair[held_out], pairs.pattern.indices[held_out]
    in_training = np.bincount(pairs.pattern.indices, minlength=pairs.pattern.n_items) - np.bincount(
        items, minlength=pairs.pattern.n_items
    )
    n_whole = pairs.pattern.n_users - len(held_out)
    context.log.info(f"{len(held_out):,} pairs held out, {n_whole:,} users stay whole in training")
    return MaterializeResult(
        value=pa.table(
            {
                USER: pairs.users.take(pa.array(users)),
                ITEM: pairs.items.take(pa.array(items)),
                USER_INDEX: users,
                ITEM_INDEX: items,
            }
        ),
        metadata={
            "strategy": config.strategy.value,
            "seed": config.seed,
            "held_out_pairs": len(held_out),
            "training_pairs": pairs.pattern.n_pairs - len(held_out),
            "users_whole_in_training": n_whole,
            # No model can recommend an item that it has never seen: a ceiling for every hit rate.
            "held_out_items_unseen_in_training": int(np.count_nonzero(in_training[items] == 0)),
        },
    )


def held_out_positions(pairs: Pairs, leave_one_out_split: pa.Table) -> NDArray[np.int64]:
    """Where the held-out pairs stand among all pairs.

    Raises:
        InputError: the split was made from another `bm25_matrix`.
    """
    users, items = (leave_one_out_split[name].to_numpy() for name in (USER_INDEX, ITEM_INDEX))
    if users.max() < len(pairs.users) and items.max() < len(pairs.items):
        positions = pairs.pattern.positions_of(users, items)
        same_users = pairs.users.take(pa.array(users)).equals(leave_one_out_split[USER].combine_chunks())
        same_items = pairs.items.take(pa.array(items)).equals(leave_one_out_split[ITEM].combine_chunks())
        if same_users and same_items and (positions >= 0).all():
            return positions
    raise InputError(
        "leave_one_out_split was made from another bm25_matrix than the one at hand: "
        "materialize it again, then the search."
    )
