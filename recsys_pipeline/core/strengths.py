"""From events to one strength per (user, item) pair."""

from collections.abc import Mapping
from enum import Enum

import pyarrow as pa
import pyarrow.acero as acero
import pyarrow.compute as pc
import pyarrow.dataset as ds

from recsys_pipeline.core.columns import EVENT, ITEM, STRENGTH, TIMESTAMP, USER
from recsys_pipeline.core.errors import InputError


class Aggregate(Enum):
    """What several events of one pair add up to."""

    sum = "sum"
    max = "max"


def pair_strengths(
    events: ds.Dataset, strengths: Mapping[str, float], aggregate: Aggregate = Aggregate.sum
) -> pa.Table:
    """One row a (user, item) pair: the aggregated strength of its events and its latest timestamp.

    The events are streamed; memory grows with the number of pairs alone.

    Args:
        events: columns UserID, ProductCode, Event and, optionally, Timestamp.
        strengths: strength of each event name.
        aggregate: `sum` of the strengths of a pair's events, or their `max`.

    Returns:
        UserID, ProductCode, strength (float64) and, where given, Timestamp, sorted by user, then item.

    Raises:
        InputError: an event has no strength.
    """
    names = pa.array(list(strengths), pa.string())
    stray = ~pc.field(EVENT).isin(names)
    if unknown := events.scanner(columns=[EVENT], filter=stray).to_table()[EVENT].unique().to_pylist():
        raise InputError(
            f"raw_feedback holds events with no strength: {', '.join(sorted(unknown))}. "
            "Give each a strength in the `feedback` resource and materialize raw_feedback again."
        )

    strength = pa.scalar(0.0)
    for name, value in strengths.items():
        strength = pc.if_else(pc.field(EVENT) == name, pa.scalar(float(value)), strength)
    columns = {USER: pc.field(USER), ITEM: pc.field(ITEM), STRENGTH: strength}
    aggregations = [(STRENGTH, f"hash_{aggregate.value}", None, STRENGTH)]
    if TIMESTAMP in events.schema.names:
        columns[TIMESTAMP] = pc.field(TIMESTAMP)
        aggregations.append((TIMESTAMP, "hash_max", None, TIMESTAMP))

    pairs = acero.Declaration.from_sequence(
        [
            acero.Declaration("scan", acero.ScanNodeOptions(events, columns=columns)),
            acero.Declaration("project", acero.ProjectNodeOptions(list(columns.values()), list(columns))),
            acero.Declaration("aggregate", acero.AggregateNodeOptions(aggregations, keys=[USER, ITEM])),
        ]
        # One thread: floats are then added in the order of the events, and a sum never varies.
    ).to_table(use_threads=False)
    return pairs.sort_by([(USER, "ascending"), (ITEM, "ascending")])
