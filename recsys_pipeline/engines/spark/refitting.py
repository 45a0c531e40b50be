"""The final model, trained on the cluster on all interactions, and what it is like."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

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
from recsys_pipeline.engines.spark.frames import Kept, Scratch, collected, first_row, from_bytes, in_parts
from recsys_pipeline.engines.spark.preparation import distribution
from recsys_pipeline.engines.spark.ranking import held_frame, ranks_of
from recsys_pipeline.engines.spark.splits import SplitFrames
from recsys_pipeline.engines.spark.training import State, Together, by_weighting, train
from recsys_pipeline.engines.spark.vectors import Vectors

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


class KeptRows(NamedTuple):
    """Rows that were computed, and are to be read as columns of a schema."""

    kept: Kept
    schema: pa.Schema

    def rows(self) -> Iterator[pa.RecordBatch]:
        """All of them, in order."""
        return self.kept.batches(self.schema)


def refit(scratch: Scratch, bm25_matrix: Tables | Datasets, winner: Winner) -> tuple[Refitted, KeptRows]:
    """See `recsys_pipeline.engines.engine.Engine`; the interactions are the second of what is returned."""
    frames = SplitFrames(scratch, bm25_matrix)
    trial = winner.hyperparameters
    if trial.weighting == BM25:
        frames.require_positive_weights()
    mappings: Mapping[str, Any] = {trial.strengths: winner.strengths}
    frames.require_something_left(mappings)
    fading = Fading.of(mappings, [trial.half_life_days])
    weighed = frames.weighed([trial], fading, None)
    weights = scratch.kept(weighed.pairs, "weights")
    weighed = weighed._replace(pairs=weights.frame)
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
    train_scores, n_scored = _train_scores(scratch, frames, weights.frame, state, together)
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
    return refitted, _interactions(scratch, frames, weights.frame, trial.half_life_days)


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


def _interactions(
    scratch: Scratch, frames: SplitFrames, weights: "DataFrame", half_life_days: float
) -> KeptRows:
    """What the model carries along, as `core.model.Contents.to_table`."""
    kinds: dict[str, pa.DataType] = {
        USER_INDEX: pa.int32(),
        ITEM_INDEX: pa.int32(),
        WEIGHT: pa.float32(),
        EXCLUDED: pa.bool_(),
        **{count_column(event): pa.int32() for event in frames.events},
    }
    pairs = frames.pairs
    if half_life_days:
        for event in frames.events:
            kinds[fade_column(event)] = pa.float64()
            pairs = pairs.withColumn(fade_column(event), sf.col(faded_column(event, half_life_days)))
    weight = weights.mapInArrow(_first_weight, f"{USER_INDEX} int, {ITEM_INDEX} int, own float")
    joined = pairs.join(weight, [USER_INDEX, ITEM_INDEX], "left")
    joined = joined.withColumn(WEIGHT, sf.coalesce(sf.col("own"), sf.lit(0.0).cast("float")))
    ordered = joined.select(*kinds).orderBy(USER_INDEX, ITEM_INDEX)
    return KeptRows(scratch.kept(ordered, "interactions"), pa.schema(list(kinds.items())))


def _first_weight(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        own = pa.array(from_bytes(batch["weights"], 1)[:, 0])
        yield pa.record_batch(
            [batch[USER_INDEX], batch[ITEM_INDEX], own], names=[USER_INDEX, ITEM_INDEX, "own"]
        )


def _train_scores(
    scratch: Scratch, frames: SplitFrames, weights: "DataFrame", state: State, together: Together
) -> tuple[Scores, int]:
    """The scores on the model's own training data, and of how many users."""
    wanted = users_to_score(np.arange(frames.n_users)).astype(np.int32)
    asked = scratch.spark.createDataFrame(pa.table({USER_INDEX: wanted}))
    table = collected(weights.select(USER_INDEX, ITEM_INDEX).join(asked, USER_INDEX)).sort_by(USER_INDEX)
    split = np.zeros(table.num_rows, dtype=np.int32)
    held = held_frame(scratch, table.append_column(SPLIT, pa.array(split)), None)
    (ranks,) = ranks_of(held, state.users, state.items, [slice(0, together.width)], K)
    group, _ = group_by_user(split, table[USER_INDEX].to_numpy())
    n_relevant = np.bincount(group)
    return score(hits_of_groups(ranks, group), n_relevant), len(n_relevant)
