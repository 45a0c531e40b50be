"""The first tables of the graph from a few events, in memory."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from recsys_pipeline.core.baseline_tables import (
    BASELINES_TABLE,
    RANKS_TABLE,
    baseline_ranks_table,
    baselines_table,
)
from recsys_pipeline.core.baseline_tuning import Baseline, BaselineResult, Family, best_baselines_first
from recsys_pipeline.core.blending import Blend
from recsys_pipeline.core.columns import EVENT, ITEM, TIMESTAMP, USER
from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.interactions import Datasets, Interactions, Tables
from recsys_pipeline.core.metadata import with_metadata
from recsys_pipeline.core.metrics import hits_of_groups, score
from recsys_pipeline.core.model import Contents, Model
from recsys_pipeline.core.solver import Solver
from recsys_pipeline.core.strengths import Aggregate, EventRules
from recsys_pipeline.core.weighting import bm25_weights, weigh_trained
from recsys_pipeline.engines.local.aggregation import interaction_strengths
from recsys_pipeline.engines.local.solvers import trainer_for
from recsys_pipeline.engines.local.training import train_to_the_end

SHOP = {"view": 1.0, "buy": 3.0}
BASELINES = (
    Baseline(Family.item_knn, "default", "presence", neighbours=20, shrinkage=10.0),
    Baseline(Family.graph_filter, "default", "presence", user_exponent=0.5, item_exponent=0.5),
    Baseline(Family.ease, "default", "presence", penalty=1.0),
    Baseline(Family.popularity),
    Baseline(Family.repeat_consumption, "default"),
)


def interactions_of(
    events: Sequence[tuple],
    strengths: Mapping[str, float] = SHOP,
    *,
    target_events: Collection[str] = (),
    seen_events: Collection[str] = (),
    aggregate: Aggregate = Aggregate.sum,
) -> Interactions:
    """Of events (user, item, name) or (user, item, name, microseconds since 1970)."""
    columns = list(zip(*events, strict=True))
    table = {USER: columns[0], ITEM: columns[1], EVENT: columns[2]}
    if len(columns) > 3:
        table[TIMESTAMP] = pa.array(columns[3], pa.timestamp("us", tz="UTC"))
    rules = EventRules(strengths, aggregate, list(target_events or strengths), list(seen_events or strengths))
    aggregated = interaction_strengths(ds.InMemoryDataset(pa.table(table)), *rules).read_all()
    return Interactions.from_strengths(with_metadata(aggregated, rules.to_metadata()))


def matrix_of(interactions: Interactions) -> Tables:
    """`bm25_matrix`."""
    return interactions.to_tables(bm25_weights(interactions.pattern, interactions.strengths, k1=100.0, b=0.8))


def stored_matrix_of(interactions: Interactions) -> Datasets:
    """`bm25_matrix` as the warehouse hands it on, to be read by columns."""
    return {name: ds.InMemoryDataset(table) for name, table in matrix_of(interactions).items()}


def split_of(
    interactions: Interactions,
    *positions: Sequence[int],
    keep_other_events: bool = False,
    strategy: str = "random",
) -> pa.Table:
    """`leave_one_out_split`: of each split, the positions that it holds out."""
    tables = [
        interactions.held_out_table(np.array(each, np.int64), number) for number, each in enumerate(positions)
    ]
    return as_split(pa.concat_tables(tables), keep_other_events=keep_other_events, strategy=strategy)


def given_split(interactions: Interactions, given: Sequence[tuple]) -> pa.Table:
    """`leave_one_out_split` of a file with these (user, item)."""
    users, items = zip(*given, strict=True)
    ids = pa.table(
        {USER: pa.array(users, interactions.users.type), ITEM: pa.array(items, interactions.items.type)}
    )
    return as_split(interactions.given_table(ids, 0), strategy="file")


def as_split(table: pa.Table, *, keep_other_events: bool = False, strategy: str = "random") -> pa.Table:
    """The table with what the asset says of it."""
    return with_metadata(table, {"keep_other_events": keep_other_events, "strategy": strategy})


def baselines_of(
    split: pa.Table,
    baselines: Sequence[Baseline] = BASELINES,
    *,
    ranks: Sequence[int] = (11,),
    why_not: Mapping[Family, str] | None = None,
    strengths: Mapping[str, Mapping[str, float]] | None = None,
) -> Tables:
    """`baselines` that rank what a split holds out: all at the last of these, but for the first ones."""
    given = np.full(split.num_rows, ranks[-1], np.uint8)
    given[: len(ranks)] = ranks
    of_each = np.arange(len(given))
    scores = score(hits_of_groups(given, of_each), np.ones(len(given), np.int64))
    ranking = best_baselines_first(
        [
            *(BaselineResult(baseline, scores, 1.0, ranks=given) for baseline in baselines),
            *(BaselineResult(Baseline(f), None, float("nan"), why) for f, why in (why_not or {}).items()),
        ]
    )
    stored = {"strengths": {"default": dict(SHOP), **(strengths or {})}}
    tables = {BASELINES_TABLE: baselines_table(ranking), RANKS_TABLE: baseline_ranks_table(ranking)}
    return {name: with_metadata(table, stored) for name, table in tables.items()}


def model_of(
    interactions: Interactions,
    hyperparameters: Hyperparameters,
    *,
    solver: Solver = Solver.batched,
    strengths: Mapping[str, float] | None = None,
    blend: Blend | None = None,
    seed: int = 1,
) -> Model:
    """The model that the interactions make, as `best_model` makes it, in memory."""
    pattern, rules = interactions.pattern, interactions.rules
    weights = weigh_trained(pattern, interactions.strengths_by(strengths), hyperparameters)
    trained = weights > 0
    user_items = pattern.select(trained).user_items(weights[trained])
    state = train_to_the_end(trainer_for(solver, num_threads=1), user_items, hyperparameters, seed)
    contents = Contents(pattern, weights, interactions.excluded, dict(interactions.counts))
    manifest = {
        "hyperparameters": hyperparameters.as_dict(),
        "seed": seed,
        "solver": solver.value,
        "strengths": dict(strengths or rules.strengths),
        "rules": rules.to_metadata(),
        "target_events": list(rules.target_events),
        "seen_events": list(rules.seen_events),
        "blend": blend.as_dict() if blend else None,
        "graph": blend.filter.as_dict() if blend and blend.filter else None,
    }
    return Model(interactions.users, interactions.items, state.factors, contents, manifest)


def shop_events(n_users: int = 30, n_items: int = 50) -> list[tuple[str, int, str]]:
    """Everybody views 8 items of their parity and buys the first 3 of them."""
    rng = np.random.default_rng(5)
    events = []
    for user in range(n_users):
        viewed = rng.choice(np.arange(user % 2, n_items, 2), 8, replace=False).tolist()
        events += [(f"u{user}", item, "view") for item in viewed]
        events += [(f"u{user}", item, "buy") for item in viewed[:3]]
    return events
