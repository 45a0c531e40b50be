"""From strengths to the matrix and to what is held out, all arrays in memory."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from recsys_pipeline.core.columns import ITEM, STRENGTH, USER, USER_INDEX
from recsys_pipeline.core.distribution import Distribution, Frequencies
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.hyperparameters import DEFAULT_STRENGTHS
from recsys_pipeline.core.interactions import Datasets, Interactions, Tables, unknown_in
from recsys_pipeline.core.metadata import with_metadata
from recsys_pipeline.core.splitting import HoldOutMethod, leave_one_out
from recsys_pipeline.core.weighting import bm25_weights
from recsys_pipeline.engines.engine import HeldOut, HoldOutPlan, Matrix, StrengthsFacts


def strengths_facts(feedback_strengths: ds.Dataset) -> StrengthsFacts:
    """See `recsys_pipeline.engines.engine.Engine`."""
    return StrengthsFacts(
        feedback_strengths.count_rows(),
        _rows_per_id(feedback_strengths, USER),
        _rows_per_id(feedback_strengths, ITEM),
        Distribution.of(feedback_strengths.to_table([STRENGTH])[STRENGTH].to_numpy()),
    )


def _rows_per_id(table: ds.Dataset, name: str) -> Frequencies:
    counted = pc.value_counts(table.to_table([name])[name]).field("counts")
    return Frequencies.of(counted.to_numpy())


def matrix(feedback_strengths: ds.Dataset, k1: float, b: float) -> Matrix:
    """See `recsys_pipeline.engines.engine.Engine`."""
    interactions = Interactions.from_strengths(feedback_strengths)
    weights = bm25_weights(interactions.pattern, interactions.strengths, k1=k1, b=b)
    n_users, n_items = interactions.pattern.shape
    return Matrix(
        interactions.to_tables(weights),
        n_users,
        n_items,
        interactions.pattern.n_interactions,
        int(np.count_nonzero(weights <= 0)),
        Distribution.of(interactions.strengths),
        Distribution.of(weights),
    )


def hold_out(bm25_matrix: Tables | Datasets, plan: HoldOutPlan) -> HeldOut:
    """See `recsys_pipeline.engines.engine.Engine`."""
    interactions = Interactions.from_tables(bm25_matrix)
    if plan.given is None:
        table = _by_hash(interactions, plan)
    else:
        table = interactions.given_table(plan.given, number=0)
    table = with_metadata(table, plan.told)
    splits = list(interactions.splits(table, {DEFAULT_STRENGTHS: None}, weigh_all=True))
    users = table[USER_INDEX].to_numpy()
    n_users, n_items = interactions.pattern.shape
    unknown = unknown_in(table, n_users)
    n_unseen = unknown["items"]
    for split in splits:
        popularity = np.bincount(split.training[DEFAULT_STRENGTHS].indices, minlength=n_items)
        n_unseen += int(np.count_nonzero(popularity[split.items[split.items >= 0]] == 0))
    return HeldOut(
        table,
        len(splits),
        splits[0].training[DEFAULT_STRENGTHS].n_interactions,
        n_users - len(np.unique(users[users < n_users])),
        n_unseen,
        unknown,
    )


def _by_hash(interactions: Interactions, plan: HoldOutPlan) -> pa.Table:
    if plan.method is HoldOutMethod.last and plan.n_splits > 1:
        raise InputError("leave_one_out_split: there is one `last` interaction a user; set n_splits to 1.")
    tables = []
    for number in range(plan.n_splits):
        positions = leave_one_out(
            interactions.pattern,
            seed=plan.seed + number,
            min_interactions=plan.min_interactions,
            method=plan.method,
            timestamps=interactions.timestamps[1] if interactions.timestamps else None,
            max_users=plan.max_users or None,
            allowed=interactions.target,
        )
        if not len(positions):
            raise InputError(
                f"no user has {plan.min_interactions} interactions or more (the most is "
                f"{interactions.pattern.interactions_per_user.max()}) and among them one with an event to "
                f"hold out ({', '.join(interactions.rules.target_events)}), so that nothing can score the "
                "search. Bring more feedback, or lower min_interactions of leave_one_out_split."
            )
        tables.append(interactions.held_out_table(positions, number))
    return pa.concat_tables(tables)
