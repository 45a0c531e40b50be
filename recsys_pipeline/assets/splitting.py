"""The leave-one-out split."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from dagster import AssetExecutionContext, Config, MaterializeResult, asset
from numpy.typing import NDArray
from pydantic import Field

from recsys_pipeline.assets.pairs import Pairs, Tables
from recsys_pipeline.core.columns import ITEM, ITEM_INDEX, SPLIT, USER, USER_INDEX
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.holdout import Holdout
from recsys_pipeline.core.splitting import Strategy, held_out_pairs
from recsys_pipeline.failures import sorted_failures
from recsys_pipeline.storage.feedback import Feedback, read_pairs
from recsys_pipeline.storage.tables import notes_of, with_notes


class SplitConfig(Config):
    """Which pair of each user is held out."""

    strategy: Strategy = Field(
        default=Strategy.random,
        description="`random`: by a hash of seed, user and item; `last`: the latest, by the timestamps; "
        "`file`: the pairs of `file`.",
    )
    seed: int = Field(default=42, ge=0, lt=2**63 - 100, description="Another seed holds out other pairs.")
    min_interactions: int = Field(
        default=3, ge=2, description="A user with fewer pairs stays whole in training."
    )
    max_users: int = Field(
        default=100_000,
        ge=0,
        description="Hold out a pair of so many users at most, drawn by hash; 0 takes all. Scoring a trial "
        "takes time in proportion to these users times the items.",
    )
    n_splits: int = Field(
        default=1,
        ge=1,
        le=100,
        description="Random splits over which the search averages, by seed, seed + 1 and so on.",
    )
    file: str = Field(
        default="",
        description="Of the strategy `file`: CSV or Parquet with the user and item columns of the feedback, "
        "several rows a user allowed.",
    )
    keep_other_events: bool = Field(
        default=False,
        description="Hold out only the target events of a pair (`target_events` of `feedback`) and leave its "
        "other events in training.",
    )


@asset(kinds={"parquet", "numpy"})
@sorted_failures()
def leave_one_out_split(
    context: AssetExecutionContext, config: SplitConfig, feedback: Feedback, bm25_matrix: Tables
) -> MaterializeResult[pa.Table]:
    """Which pair of each eligible user is held out; everything else is training."""
    pairs = Pairs.from_tables(bm25_matrix)
    of_file = config.strategy is Strategy.file
    split = _of_file(pairs, config, feedback) if of_file else _by_hash(pairs, config)
    notes = {"keep_other_events": config.keep_other_events, "strategy": config.strategy.value}
    split = with_notes(split, notes)
    left = holdouts(pairs, split, {"default": None})
    users, items = (split[name].to_numpy() for name in (USER_INDEX, ITEM_INDEX))
    known = items >= 0
    never_trained = [
        np.count_nonzero(
            np.bincount(pairs.pattern.indices[holdout.left["default"] > 0], minlength=pairs.pattern.n_items)[
                holdout.items[holdout.items >= 0]
            ]
            == 0
        )
        for holdout in left
    ]
    n_whole = pairs.pattern.n_users - len(np.unique(users[users < pairs.pattern.n_users]))
    context.log.info(f"{len(users):,} pairs held out, {n_whole:,} users stay whole in training")
    return MaterializeResult(
        value=split,
        metadata={
            "strategy": config.strategy.value,
            "seed": config.seed,
            "splits": len(left),
            "held_out_pairs": len(users),
            "training_pairs": int(np.count_nonzero(left[0].left["default"] > 0)),
            "users_whole_in_training": n_whole,
            # No model can recommend an item that it has never seen: a ceiling for every hit rate.
            "held_out_items_unseen_in_training": int(sum(never_trained) + np.count_nonzero(~known)),
            "held_out_users_unknown": int(np.count_nonzero(users >= pairs.pattern.n_users)),
        },
    )


def _by_hash(pairs: Pairs, config: SplitConfig) -> pa.Table:
    if config.strategy is Strategy.last and config.n_splits > 1:
        raise InputError("leave_one_out_split: there is one `last` pair a user; set n_splits to 1.")
    tables = []
    for number in range(config.n_splits):
        positions = held_out_pairs(
            pairs.pattern,
            seed=config.seed + number,
            min_interactions=config.min_interactions,
            strategy=config.strategy,
            timestamps=pairs.timestamps[1] if pairs.timestamps else None,
            max_users=config.max_users or None,
            allowed=pairs.target,
        )
        if not len(positions):
            raise InputError(
                f"no user has {config.min_interactions} pairs or more (the most is "
                f"{pairs.pattern.pairs_per_user.max()}) and among them one with an event to hold out "
                f"({', '.join(pairs.rules.target_events)}), so that nothing can score the search. "
                "Bring more feedback, or lower min_interactions of leave_one_out_split."
            )
        tables.append(split_table(pairs, positions, number))
    return pa.concat_tables(tables)


def split_table(pairs: Pairs, positions: NDArray[np.int64], number: int) -> pa.Table:
    """The rows of `leave_one_out_split` of pairs that are held out in the split of that number."""
    users, items = pairs.pattern.user_of_pair[positions], pairs.pattern.indices[positions]
    return pa.table(
        {
            USER: pairs.users.take(pa.array(users)),
            ITEM: pairs.items.take(pa.array(items)),
            USER_INDEX: users,
            ITEM_INDEX: items,
            SPLIT: np.full(len(positions), number, dtype=np.int32),
        }
    )


def _of_file(pairs: Pairs, config: SplitConfig, feedback: Feedback) -> pa.Table:
    if not config.file:
        raise InputError("leave_one_out_split: the strategy `file` needs the path of a `file`.")
    return file_split_table(pairs, config.file, feedback)


def file_split_table(pairs: Pairs, path: str, feedback: Feedback) -> pa.Table:
    """The pairs of a file as rows of `leave_one_out_split`.

    Users who are not in the feedback get indexes after its last, items that are not get -1: both stay in the
    denominator, for nothing can be recommended to the one, nor the other to anyone.

    Raises:
        InputError: the file cannot be read.
    """
    given = read_pairs(path, feedback, pairs.users.type, pairs.items.type)
    user_index = pc.index_in(given[USER], pairs.users).combine_chunks()
    item_index = pc.index_in(given[ITEM], pairs.items).combine_chunks()
    strangers = pc.unique(given[USER].filter(pc.is_null(user_index)))
    beyond = pc.add(pc.index_in(given[USER], strangers), len(pairs.users)).combine_chunks()
    return pa.table(
        {
            USER: given[USER],
            ITEM: given[ITEM],
            USER_INDEX: pc.coalesce(user_index, beyond).cast(pa.int32()),
            ITEM_INDEX: pc.fill_null(item_index, -1).cast(pa.int32()),
            SPLIT: np.zeros(given.num_rows, dtype=np.int32),
        }
    )


def holdouts(
    pairs: Pairs, leave_one_out_split: pa.Table, mappings: Mapping[str, Mapping[str, float] | None]
) -> list[Holdout]:
    """What each split leaves for training, by each mapping of the events to strengths.

    Raises:
        InputError: the split was made from another `bm25_matrix`.
    """
    _require_same_matrix(pairs, leave_one_out_split)
    keep_other_events = notes_of(leave_one_out_split)["keep_other_events"]
    users, items, split = (leave_one_out_split[name].to_numpy() for name in (USER_INDEX, ITEM_INDEX, SPLIT))
    return [
        pairs.hold_out(
            users[split == number],
            items[split == number],
            mappings,
            keep_other_events=keep_other_events,
        )
        for number in range(int(split.max()) + 1)
    ]


def _require_same_matrix(pairs: Pairs, split: pa.Table) -> None:
    same = True
    for index_name, name, ids in ((USER_INDEX, USER, pairs.users), (ITEM_INDEX, ITEM, pairs.items)):
        told, index = split[name].combine_chunks(), split[index_name].to_numpy()
        known = (index >= 0) & (index < len(ids))
        same = same and told.type == ids.type
        if same:
            found = pc.fill_null(pc.index_in(told, ids), -1).to_numpy()
            same = np.array_equal(found, np.where(known, index, -1))
    if same and notes_of(split)["strategy"] != Strategy.file.value:
        positions = pairs.pattern.positions_of(split[USER_INDEX].to_numpy(), split[ITEM_INDEX].to_numpy())
        same = bool((positions >= 0).all())
    if not same:
        raise InputError(
            "leave_one_out_split was made from another bm25_matrix than the one at hand: "
            "materialize it again, then the search."
        )
