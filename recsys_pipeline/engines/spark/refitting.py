"""The final model, trained on the cluster on all interactions, and what it is like."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyspark.sql.functions as sf

from recsys_pipeline.core.columns import (
    EXCLUDED,
    ITEM,
    ITEM_INDEX,
    SPLIT,
    USER,
    USER_INDEX,
    WEIGHT,
    count_column,
    fade_column,
    faded_column,
)
from recsys_pipeline.core.factors import FACTORS, FactorTables
from recsys_pipeline.core.hyperparameters import BM25
from recsys_pipeline.core.interactions import Datasets, Fading, Tables
from recsys_pipeline.core.metrics import K, Scores, group_by_user, hits_of_groups, score
from recsys_pipeline.core.ranking import DIVERGED
from recsys_pipeline.core.results import Winner
from recsys_pipeline.core.scale import Weighting
from recsys_pipeline.engines.engine import Refitted
from recsys_pipeline.engines.local.refitting import users_to_score
from recsys_pipeline.engines.local.training import fits_for
from recsys_pipeline.engines.spark.blocks import sides_of
from recsys_pipeline.engines.spark.frames import (
    Kept,
    Scratch,
    collected,
    first_row,
    from_bytes,
    in_parts,
    known_here,
)
from recsys_pipeline.engines.spark.preparation import distribution
from recsys_pipeline.engines.spark.ranking import held_frame, ranks_of
from recsys_pipeline.engines.spark.splits import SplitFrames
from recsys_pipeline.engines.spark.training import State, Together, by_weighting, train
from recsys_pipeline.engines.spark.vectors import Vectors

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame


def refit(
    scratch: Scratch, bm25_matrix: Tables | Datasets, winner: Winner
) -> tuple[Refitted, pa.RecordBatchReader]:
    """See `recsys_pipeline.engines.engine.Engine`; the interactions are the second of what is returned."""
    frames = SplitFrames(scratch, bm25_matrix)
    trial = winner.hyperparameters
    if trial.weighting == BM25:
        frames.require_positive_weights()
    mappings: Mapping[str, Any] = {trial.strengths: winner.strengths}
    frames.require_something_left(mappings)
    fading = Fading.of(mappings, [trial.half_life_days])
    carried = _carried(frames, trial.half_life_days)
    weighed = frames.weighed(
        [trial], fading, None, carried={name: column for name, (column, _) in carried.items()}
    )
    by_user, by_item = sides_of(scratch, weighed)
    together = Together.of(fits_for([trial]), by_weighting(weighed.weightings, Weighting.of), winner.seed)
    (state,) = train(scratch, by_user, by_item, together)
    if state.failed:
        raise FloatingPointError(DIVERGED)
    user_lengths, item_lengths = (
        distribution(_lengths(scratch, side), "length") for side in (state.users, state.items)
    )
    if not np.isfinite([user_lengths.mean, item_lengths.mean]).all():
        raise FloatingPointError(DIVERGED)
    train_scores, n_scored = _train_scores(scratch, frames.n_users, weighed.pairs.frame, state)
    events = sf.lit(0).cast("long")
    for event in frames.events:
        events = events + sf.col(count_column(event)).cast("long")
    n_events = int(first_row(frames.pairs.agg(sf.sum(events).alias("n")))["n"])
    tables = FactorTables(
        _factor_rows(bm25_matrix["users"], USER, USER_INDEX, state.users),
        _factor_rows(bm25_matrix["items"], ITEM, ITEM_INDEX, state.items),
        state.seconds,
    )
    refitted = Refitted(
        tables,
        pa.table({}),
        frames.n_users,
        frames.n_items,
        frames.n_interactions,
        n_events,
        train_scores,
        n_scored,
        user_lengths,
        item_lengths,
    )
    return refitted, _interactions(weighed.pairs, {name: kind for name, (_, kind) in carried.items()})


def _lengths(scratch: Scratch, vectors: Vectors) -> "DataFrame":
    """Those of all vectors, as `length`."""

    def measure(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for block in batch["id"].to_pylist():
                lengths = np.linalg.norm(vectors.of_block(block), axis=1).astype(np.float64)
                yield pa.record_batch([pa.array(lengths)], names=["length"])

    n_blocks = vectors.spread.n_blocks
    return scratch.spark.range(0, n_blocks, 1, n_blocks).mapInArrow(measure, "length double")


def _factor_rows(ids: pa.Table | ds.Dataset, name: str, index: str, vectors: Vectors) -> pa.RecordBatchReader:
    """The table of these ids and their factors, in the order of their indexes, which is that of the ids."""
    kind = pa.list_(pa.float32(), vectors.width)
    schema = pa.schema([(name, ids.schema.field(name).type), (FACTORS, kind)])

    def rows() -> Iterator[pa.RecordBatch]:
        for batch in ids.to_batches():
            found = vectors.take(batch[index].to_numpy())
            factors = pa.FixedSizeListArray.from_arrays(pa.array(found.ravel()), type=kind)
            yield pa.record_batch([batch[name], factors], schema=schema)

    return in_parts(rows(), schema)


def _carried(frames: SplitFrames, half_life_days: float) -> Mapping[str, tuple["Column", pa.DataType]]:
    """What a model has of each interaction beside its weight: the columns of the matrix, and their kinds."""
    kinds = {EXCLUDED: pa.bool_(), **{count_column(event): pa.int32() for event in frames.events}}
    carried = {name: (sf.col(name), kind) for name, kind in kinds.items()}
    if half_life_days:
        for event in frames.events:
            carried[fade_column(event)] = (sf.col(faded_column(event, half_life_days)), pa.float64())
    return carried


def _interactions(weighed: Kept, carried: Mapping[str, pa.DataType]) -> pa.RecordBatchReader:
    """What the model carries along, as `core.model.Contents.to_table`."""
    indexes = {USER_INDEX: pa.int32(), ITEM_INDEX: pa.int32()}
    read = pa.schema([*indexes.items(), *carried.items(), ("weights", pa.binary())])
    schema = pa.schema([*indexes.items(), (WEIGHT, pa.float32()), *carried.items()])

    def rows() -> Iterator[pa.RecordBatch]:
        last = -1
        for batch in weighed.batches(read):
            users = batch[USER_INDEX].to_numpy()
            if len(users) and (users[0] < last or (np.diff(users) < 0).any()):
                raise RuntimeError("the interactions came back from the cluster in another order")
            last = users[-1] if len(users) else last
            weights = from_bytes(batch["weights"], 1)[:, 0]
            columns = {name: batch[name] for name in (*indexes, *carried)}
            columns[WEIGHT] = pa.array(np.nan_to_num(weights, nan=0.0))
            yield pa.record_batch([columns[name] for name in schema.names], schema=schema)

    return in_parts(rows(), schema)


def _train_scores(scratch: Scratch, n_users: int, weighed: "DataFrame", state: State) -> tuple[Scores, int]:
    """The scores on the model's own training data, and of how many users."""
    wanted = users_to_score(np.arange(n_users)).astype(np.int32)
    asked = known_here(scratch, pa.table({USER_INDEX: wanted}))
    table = collected(weighed.select(USER_INDEX, ITEM_INDEX, "weights").join(asked, USER_INDEX))
    trained = ~np.isnan(from_bytes(table["weights"], 1)[:, 0])
    table = table.filter(pa.array(trained)).drop_columns("weights").sort_by(USER_INDEX)
    split = np.zeros(table.num_rows, dtype=np.int32)
    held = held_frame(scratch, table.append_column(SPLIT, pa.array(split)), None)
    (ranks,) = ranks_of(held, state.users, state.items, [slice(0, state.users.width)], K)
    group, _ = group_by_user(split, table[USER_INDEX].to_numpy())
    n_relevant = np.bincount(group)
    return score(hits_of_groups(ranks, group), n_relevant), len(n_relevant)
