"""Claims about what is held out."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from dagster import AssetCheckResult, AssetIn, asset_check
from numpy.typing import NDArray

from recsys_pipeline.checks.claims import batches, claim, claims
from recsys_pipeline.core.columns import (
    ITEM,
    ITEM_INDEX,
    SPLIT,
    TARGET,
    USER,
    USER_INDEX,
    count_column,
)
from recsys_pipeline.core.interactions import Datasets
from recsys_pipeline.core.metadata import stored_metadata
from recsys_pipeline.core.splitting import HoldOutMethod
from recsys_pipeline.steps.step import check_step


@asset_check(
    blocking=True, asset="leave_one_out_split", additional_ins={"bm25_matrix": AssetIn("bm25_matrix")}
)
@check_step
def what_is_held_out_may_be_held_out(
    leave_one_out_split: pa.Table, bm25_matrix: Datasets
) -> AssetCheckResult:
    """Every held-out row is an interaction with a target event, under its own ids, and nothing excludes it.

    Counted from the tables by a join, not by the code that makes the training data.
    """
    stored = stored_metadata(leave_one_out_split)
    rules = stored_metadata(bm25_matrix["pairs"])
    of_these_users = pc.field(USER_INDEX).isin(leave_one_out_split[USER_INDEX].unique())
    joined = leave_one_out_split.select([USER_INDEX, ITEM_INDEX, USER, ITEM]).join(
        bm25_matrix["pairs"].to_table(filter=of_these_users),
        [USER_INDEX, ITEM_INDEX],
        join_type="left outer",
    )
    n_unknown = joined[TARGET].null_count
    n_not_target = pc.sum(pc.invert(joined[TARGET].drop_null())).as_py() or 0
    n_other_id = 0
    for index, name, table in ((USER_INDEX, USER, "users"), (ITEM_INDEX, ITEM, "items")):
        renamed = bm25_matrix[table].to_table([index, name]).rename_columns([index, "id"])
        ids = joined.select([index, name]).join(renamed, index, join_type="inner")
        n_other_id += pc.sum(pc.not_equal(ids[name], ids["id"])).as_py() or 0
    n_excluded = 0
    if stored["keep_other_events"]:
        staying = set(rules["seen_events"]) - set(rules["target_events"])
        for event in staying & set(rules["strengths"]):
            n_excluded += pc.sum(pc.greater(joined[count_column(event)].drop_null(), 0)).as_py() or 0
    # A file may name users and items that the feedback does not have, and any event.
    of_file = stored["strategy"] == HoldOutMethod.file.value
    return AssetCheckResult(
        passed=(of_file or n_unknown == n_not_target == 0) and n_other_id == n_excluded == 0,
        description=f"{len(leave_one_out_split):,} interactions are held out: {n_unknown:,} are unknown, "
        f"{n_not_target:,} without a target event, {n_other_id:,} under other ids, {n_excluded:,} excluded "
        "from recommendation.",
        metadata={
            "unknown_interactions": n_unknown,
            "without_target_event": n_not_target,
            "under_other_ids": n_other_id,
            "excluded_from_recommendation": n_excluded,
        },
    )


@asset_check(blocking=True, asset="leave_one_out_split")
@check_step
def one_held_out_interaction_a_user(leave_one_out_split: pa.Table) -> AssetCheckResult:
    """No user has two held-out interactions in a split, unless they are given by a file."""
    stacked = np.stack([leave_one_out_split[name].to_numpy() for name in (SPLIT, USER_INDEX)])
    n_repeated = stacked.shape[1] - np.unique(stacked, axis=1).shape[1]
    of_file = stored_metadata(leave_one_out_split)["strategy"] == HoldOutMethod.file.value
    return AssetCheckResult(
        passed=n_repeated == 0 or of_file,
        description=f"{len(leave_one_out_split):,} interactions are held out, {n_repeated:,} of them beyond "
        "the first of their user and split.",
        metadata={"interactions_beyond_the_first": n_repeated},
    )


_COVERS = "the_split_covers_the_eligible_users"


@claims(
    "leave_one_out_split",
    {
        _COVERS: "Each split holds out an interaction of every eligible user, or of as many as `max_users` "
        "takes."
    },
    inputs=["leave_one_out_split", "bm25_matrix"],
    blocking=[_COVERS],
)
def claims_of_leave_one_out_split(
    leave_one_out_split: pa.Table, bm25_matrix: Datasets
) -> Iterator[AssetCheckResult]:
    """Who is eligible is counted from the pairs: enough of them, one with a target event among them."""
    stored = stored_metadata(leave_one_out_split)
    if stored["strategy"] == HoldOutMethod.file.value or "min_interactions" not in stored:
        told = f"{len(leave_one_out_split):,} interactions are held out as given; nobody has to be there."
        yield claim(_COVERS, len(leave_one_out_split) > 0, told)
        return
    n_users = bm25_matrix["users"].count_rows()
    n_pairs, n_targets = np.zeros(n_users, np.int64), np.zeros(n_users, np.int64)
    for batch in batches(bm25_matrix["pairs"], [USER_INDEX, TARGET]):
        users, target = (batch[name].to_numpy(zero_copy_only=False) for name in (USER_INDEX, TARGET))
        _count(n_pairs, users)
        _count(n_targets, users[target])
    eligible = (n_pairs >= stored["min_interactions"]) & (n_targets > 0)
    n_eligible = int(np.count_nonzero(eligible))
    expected = min(n_eligible, stored["max_users"] or n_eligible)
    users, splits = (leave_one_out_split[name].to_numpy() for name in (USER_INDEX, SPLIT))
    held_out = {int(split): np.unique(users[splits == split]) for split in np.unique(splits)}
    fewest = min((len(each) for each in held_out.values()), default=0)
    n_not_eligible = sum(int(np.count_nonzero(~eligible[each])) for each in held_out.values())
    yield claim(
        _COVERS,
        fewest == expected > 0 and n_not_eligible == 0,
        f"{len(held_out)} split(s) hold out interactions of {fewest:,} users at least, and {expected:,} of "
        f"the {n_eligible:,} eligible ones are due; {n_not_eligible:,} are not eligible.",
        metadata={"users held out": fewest, "eligible users": n_eligible},
    )


def _count(totals: NDArray[np.int64], users: NDArray[np.int32]) -> None:
    """Add one for each of these users; of a batch they are few, and side by side."""
    if len(users):
        first = users.min()
        totals[first : users.max() + 1] += np.bincount(users - first)
