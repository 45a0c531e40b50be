"""The tables that an evaluation leaves."""

from collections.abc import Mapping

import pyarrow as pa

from recsys_pipeline.core import columns
from recsys_pipeline.core.beyond_accuracy import BeyondAccuracy
from recsys_pipeline.core.evaluation import NO_RIVALS, HeldOutRanks, Quality, segment_quality, segments


def models_table(
    quality: Mapping[str, Quality],
    lists: Mapping[str, BeyondAccuracy],
    seconds: Mapping[str, float],
    to_blend: Mapping[str, Quality] | None = None,
) -> pa.Table:
    """A row a model; what lists are like is null where the model has none.

    Args:
        quality: of each model; differences are to the tuned one.
        lists: what those of a model are like.
        seconds: what a model took.
        to_blend: the same with differences to the blend; None, as nulls, where there is none.
    """
    table = pa.Table.from_pylist(
        [
            {
                columns.MODEL: name,
                columns.MAP: each.map,
                columns.MAP_STANDARD_ERROR: each.standard_error,
                columns.MAP_LOW: each.interval.low,
                columns.MAP_HIGH: each.interval.high,
                columns.TO_TUNED_LOW: each.difference.low,
                columns.TO_TUNED_HIGH: each.difference.high,
                columns.SEEDS: each.seeds,
                columns.SECONDS: seconds[name],
                columns.NDCG: each.ndcg,
                columns.HIT_RATE: each.hit_rate,
                columns.RECALL: each.recall,
                columns.COVERAGE: lists[name].coverage if name in lists else None,
                columns.NOVELTY: lists[name].novelty if name in lists else None,
                columns.POPULARITY: lists[name].popularity if name in lists else None,
                columns.USERS_REACHED: lists[name].users_reached if name in lists else None,
            }
            for name, each in quality.items()
        ]
    )
    to_blend = to_blend or {}
    for column, end in ((columns.TO_BLEND_LOW, "low"), (columns.TO_BLEND_HIGH, "high")):
        ends = [getattr(to_blend[name].difference, end) if name in to_blend else None for name in quality]
        table = table.append_column(column, pa.array(ends, pa.float64()))
    return table


def segments_table(ranks: HeldOutRanks, head: int, k: int) -> pa.Table:
    """A row a segment and model; `head` as in `core.evaluation.segments`."""
    return pa.Table.from_pylist(
        [
            {
                columns.SEGMENT_KIND: segment.kind,
                columns.SEGMENT: segment.name,
                columns.HELD_OUT: int(segment.chosen.sum()),
                columns.MODEL: name,
                columns.MAP: mean,
                columns.MAP_STANDARD_ERROR: error,
                columns.HIT_RATE: hit_rate,
            }
            for segment in segments(ranks, head)
            for name, (mean, error, hit_rate) in segment_quality(ranks, segment, k).items()
            if name not in NO_RIVALS
        ]
    )
