"""From events to one strength per interaction, by Arrow's streaming aggregation."""

from collections.abc import Collection, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.acero as acero
import pyarrow.compute as pc
import pyarrow.dataset as ds

from recsys_pipeline.core.columns import (
    EVENT,
    EXCLUDED,
    ITEM,
    STRENGTH,
    TARGET,
    TARGET_TIMESTAMP,
    TIMESTAMP,
    USER,
    count_column,
)
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.strengths import Aggregate, combined_strengths


def interaction_strengths(
    events: ds.Dataset,
    strengths: Mapping[str, float],
    aggregate: Aggregate = Aggregate.sum,
    target_events: Collection[str] = (),
    seen_events: Collection[str] = (),
) -> pa.Table:
    """One row an interaction of a user and an item: its aggregated strength, and what its events say of it.

    The events are streamed; memory grows with the number of interactions alone.

    Args:
        events: columns UserID, ProductCode, Event and, optionally, Timestamp.
        strengths: strength of each event name.
        aggregate: `sum` of the strengths of an interaction's events, or their `max`.
        target_events: events that may be held out; none names all.
        seen_events: events that exclude the item from recommendation; none names all.

    Returns:
        UserID, ProductCode, strength (float64), where given Timestamp and target_timestamp (the latest of
        all and of the target events), target and excluded (bool), and the count of each event (int32), sorted
        by user, then item.

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

    columns = {USER: pc.field(USER), ITEM: pc.field(ITEM)}
    aggregations = []
    if TIMESTAMP in events.schema.names:
        is_target = pc.field(EVENT).isin(pa.array(list(target_events or strengths), pa.string()))
        never = pa.scalar(None, events.schema.field(TIMESTAMP).type)
        columns[TIMESTAMP] = pc.field(TIMESTAMP)
        columns[TARGET_TIMESTAMP] = pc.if_else(is_target, pc.field(TIMESTAMP), never)
        aggregations += [(name, "hash_max", None, name) for name in (TIMESTAMP, TARGET_TIMESTAMP)]
    for event in strengths:
        columns[count_column(event)] = (pc.field(EVENT) == event).cast(pa.int32())
        aggregations.append((count_column(event), "hash_sum", None, count_column(event)))

    table = acero.Declaration.from_sequence(
        [
            acero.Declaration("scan", acero.ScanNodeOptions(events, columns=columns)),
            acero.Declaration("project", acero.ProjectNodeOptions(list(columns.values()), list(columns))),
            acero.Declaration("aggregate", acero.AggregateNodeOptions(aggregations, keys=[USER, ITEM])),
        ]
    ).to_table(use_threads=False)
    # One column after the other, so that no second copy of the whole table is made.
    order = pc.sort_indices(table, sort_keys=[(USER, "ascending"), (ITEM, "ascending")])
    counted = {count_column(event) for event in strengths}
    for place, name in enumerate(columns):
        column = table[name].cast(pa.int32()) if name in counted else table[name]
        table = table.set_column(place, name, column.take(order))

    counts = {event: table[count_column(event)].to_numpy() for event in strengths}
    table = table.add_column(2, STRENGTH, pa.array(combined_strengths(counts, strengths, aggregate)))
    for name, wanted in ((TARGET, target_events), (EXCLUDED, seen_events)):
        has_one = np.logical_or.reduce([counts[event] > 0 for event in wanted or strengths])
        table = table.append_column(name, pa.array(has_one))
    return table
