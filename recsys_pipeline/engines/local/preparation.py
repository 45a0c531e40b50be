"""From strengths to the matrix and to what is held out, all arrays in memory."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from recsys_pipeline.core.columns import ITEM, STRENGTH, USER, USER_INDEX
from recsys_pipeline.core.distribution import Distribution, Frequencies
from recsys_pipeline.core.hyperparameters import DEFAULT_STRENGTHS
from recsys_pipeline.core.interactions import Datasets, Interactions, Tables, unknown_in
from recsys_pipeline.core.metadata import with_metadata
from recsys_pipeline.core.splitting import leave_one_out
from recsys_pipeline.core.weighting import bm25_weights
from recsys_pipeline.engines.engine import HeldOut, HoldOutPlan, Matrix, NothingToHoldOutError, StrengthsFacts


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


def require_positive_weights(interactions: Interactions) -> None:
    """Refuse interactions whose BM25 weight is at or below zero; see `Interactions.require_positive`."""
    # The sign of a weight does not depend on K1 and B, so one look answers for all trials.
    interactions.require_positive(bm25_weights(interactions.pattern, interactions.strengths, k1=1.0, b=0.0))


def hold_out(bm25_matrix: Tables | Datasets, plan: HoldOutPlan) -> HeldOut:
    """See `recsys_pipeline.engines.engine.Engine`."""
    interactions = Interactions.from_tables(bm25_matrix)
    make = _by_hash if plan.given is None else _given
    table = with_metadata(pa.concat_tables(make(interactions, plan)), plan.told)
    n_users, n_items = interactions.pattern.shape
    unknown = unknown_in(table, n_users)
    n_unseen, n_training = unknown["items"], 0
    for number, split in enumerate(interactions.splits(table, {DEFAULT_STRENGTHS: None}, weigh_all=True)):
        training = split.training[DEFAULT_STRENGTHS]
        popularity = np.bincount(training.indices, minlength=n_items)
        n_unseen += int(np.count_nonzero(popularity[split.items[split.items >= 0]] == 0))
        n_training = n_training if number else training.n_interactions
    users = table[USER_INDEX].to_numpy()
    return HeldOut(
        table,
        n_users,
        interactions.pattern.n_interactions,
        plan.n_splits,
        n_training,
        n_users - len(np.unique(users[users < n_users])),
        n_unseen,
        unknown,
    )


def _given(interactions: Interactions, plan: HoldOutPlan) -> list[pa.Table]:
    return [interactions.given_table(plan.given, number) for number in range(plan.n_splits)]


def _by_hash(interactions: Interactions, plan: HoldOutPlan) -> list[pa.Table]:
    allowed = interactions.target
    if plan.never is not None:
        allowed = allowed.copy()
        allowed[interactions.positions_in(plan.never)] = False
    tables = []
    for number in range(plan.n_splits):
        positions = leave_one_out(
            interactions.pattern,
            seed=plan.seed + number,
            min_interactions=plan.min_interactions,
            method=plan.method,
            timestamps=interactions.timestamps[1] if interactions.timestamps else None,
            max_users=plan.max_users or None,
            allowed=allowed,
        )
        if not len(positions):
            raise NothingToHoldOutError(
                plan.min_interactions,
                int(interactions.pattern.interactions_per_user.max()),
                interactions.rules.target_events,
            )
        tables.append(interactions.held_out_table(positions, number))
    return tables
