"""From events to strengths, to the matrix and to what is held out, none of it in this process."""

import operator
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from functools import reduce
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyspark.sql.functions as sf
from numpy.typing import NDArray

from recsys_pipeline.core.columns import (
    EVENT,
    EXCLUDED,
    ITEM,
    ITEM_INDEX,
    STRENGTH,
    TARGET,
    TARGET_TIMESTAMP,
    TIMESTAMP,
    USER,
    USER_INDEX,
    WEIGHT,
    count_column,
    counted_events,
    faded_column,
)
from recsys_pipeline.core.distribution import PROBABILITIES, Distribution, Frequencies
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.metadata import stored_metadata, with_metadata
from recsys_pipeline.core.strengths import Aggregate, EventRules, no_times, require_strengths
from recsys_pipeline.core.weighting import inverse_document_frequency, length_norms, saturated
from recsys_pipeline.engines.engine import (
    Matrix,
    StrengthsFacts,
    Window,
)
from recsys_pipeline.engines.spark.frames import Kept, Scratch, collected, files_of, first_row, frame_of, read
from recsys_pipeline.engines.spark.indexing import indexed_pairs

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

# What an event weighs that has not faded; see `engines.local.aggregation`.
_ONE = 1 << 40
_MICROSECONDS_PER_DAY = 86_400_000_000.0
# Of the error of a quantile: one in so many ranks.
_ACCURACY = 10_000
_MICROSECONDS = pa.timestamp("us", tz="UTC")


def strengths_frame(scratch: Scratch, raw_feedback: ds.Dataset, rules: EventRules) -> "DataFrame":
    """The rows of `feedback_strengths`; see `recsys_pipeline.engines.engine.Engine`."""
    events = frame_of(scratch, raw_feedback)
    stray = events.filter(~sf.col(EVENT).isin(list(rules.strengths))).select(EVENT).distinct()
    require_strengths(collected(stray)[EVENT].to_pylist())
    has_times = TIMESTAMP in raw_feedback.schema.names
    if (rules.window_days or rules.half_lives) and not has_times:
        raise no_times("window_days" if rules.window_days else "half_lives")
    latest = _latest(events) if rules.window_days or rules.half_lives else None
    if rules.window_days:
        assert latest is not None
        events = events.filter(sf.col(TIMESTAMP) > _moment(latest - timedelta(days=rules.window_days)))
    found = [
        sf.count(sf.when(sf.col(EVENT) == event, 1)).cast("int").alias(count_column(event))
        for event in rules.strengths
    ]
    if has_times:
        targets = list(rules.target_events or rules.strengths)
        of_target = sf.when(sf.col(EVENT).isin(targets), sf.col(TIMESTAMP))
        found += [sf.max(TIMESTAMP).alias(TIMESTAMP), sf.max(of_target).alias(TARGET_TIMESTAMP)]
    faded = []
    for days in rules.half_lives:
        assert latest is not None
        left = _left_of_event(latest, days)
        combine = sf.sum if rules.aggregate is Aggregate.sum else sf.max
        for event in rules.strengths:
            faded.append(faded_column(event, days))
            whole = sf.coalesce(combine(sf.when(sf.col(EVENT) == event, left)).cast("double"), sf.lit(0.0))
            found.append((whole / sf.lit(float(_ONE))).alias(faded[-1]))
    # Spread by user, so that neither the groups nor their order need another shuffle.
    grouped = events.repartitionByRange(USER).groupBy(USER, ITEM).agg(*found)
    counts = {event: sf.col(count_column(event)) for event in rules.strengths}
    grouped = grouped.withColumns(
        {
            STRENGTH: combined(counts, rules.strengths, rules.aggregate),
            TARGET: has_one_of(rules.target_events or list(rules.strengths)),
            EXCLUDED: has_one_of(rules.seen_events or list(rules.strengths)),
        }
    )
    times = [TIMESTAMP, TARGET_TIMESTAMP] if has_times else []
    names = [USER, ITEM, STRENGTH, *times, *map(count_column, rules.strengths), TARGET, EXCLUDED, *faded]
    return grouped.select(*names).sortWithinPartitions(USER, ITEM)


def strengths_schema(raw_feedback: ds.Dataset, rules: EventRules) -> pa.Schema:
    """That of `feedback_strengths`."""
    given = raw_feedback.schema
    times = [TIMESTAMP, TARGET_TIMESTAMP] if TIMESTAMP in given.names else []
    return pa.schema(
        [
            *(given.field(name).remove_metadata().with_nullable(True) for name in (USER, ITEM)),
            pa.field(STRENGTH, pa.float64()),
            *(pa.field(name, given.field(TIMESTAMP).type) for name in times),
            *(pa.field(count_column(event), pa.int32()) for event in rules.strengths),
            *(pa.field(name, pa.bool_()) for name in (TARGET, EXCLUDED)),
            *(
                pa.field(faded_column(event, days), pa.float64())
                for days in rules.half_lives
                for event in rules.strengths
            ),
        ]
    )


def combined(
    columns: Mapping[str, "Column"], strengths: Mapping[str, float], aggregate: Aggregate
) -> "Column":
    """`core.strengths.combined_strengths` of columns of counts, in the same order of steps."""
    known = {event: strength for event, strength in strengths.items() if event in columns}
    if aggregate is Aggregate.sum:
        return _together(
            [columns[event].cast("double") * sf.lit(float(known[event])) for event in known], aggregate
        )
    return _together(
        [sf.when(columns[event] > 0, float(known[event])).otherwise(0.0) for event in known], aggregate
    )


def combined_fades(
    columns: Mapping[str, "Column"], strengths: Mapping[str, float], aggregate: Aggregate
) -> "Column":
    """`core.strengths.faded_strengths` of columns."""
    terms = [columns[event] * sf.lit(float(each)) for event, each in strengths.items() if event in columns]
    return _together(terms, aggregate)


def _together(terms: Iterable["Column"], aggregate: Aggregate) -> "Column":
    combine = operator.add if aggregate is Aggregate.sum else sf.greatest
    return reduce(combine, terms, sf.lit(0.0))


def has_one_of(events: Iterable[str]) -> "Column":
    """Whether an interaction has one of the events."""
    return reduce(operator.or_, [sf.col(count_column(event)) > 0 for event in events], sf.lit(False))


def _left_of_event(latest: datetime, half_life_days: float) -> "Column":
    age = sf.lit(_microseconds(latest)) - sf.unix_micros(sf.col(TIMESTAMP).cast("timestamp"))
    half_life = sf.lit(half_life_days * _MICROSECONDS_PER_DAY)
    share = sf.pow(sf.lit(0.5), age.cast("double") / half_life)
    return sf.greatest(sf.lit(1), sf.round(share * sf.lit(float(_ONE))).cast("long"))


def _latest(events: "DataFrame") -> datetime:
    found = first_row(events.agg(sf.max(sf.unix_micros(sf.col(TIMESTAMP).cast("timestamp"))).alias("latest")))
    if found["latest"] is None:
        raise InputError("raw_feedback holds no events: materialize it again.")
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=found["latest"])


def _microseconds(when: datetime) -> int:
    return (when - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1)


def _moment(when: datetime) -> "Column":
    return sf.timestamp_micros(sf.lit(_microseconds(when)))


def window(scratch: Scratch, raw_feedback: ds.Dataset, window_days: float) -> Window:
    """See `recsys_pipeline.engines.engine.Engine`."""
    events = frame_of(scratch, raw_feedback)
    latest = _latest(events)
    first = latest - timedelta(days=window_days)
    within = sf.count(sf.when(sf.col(TIMESTAMP) > _moment(first), 1))
    found = first_row(events.agg(within.alias("within"), sf.count(sf.lit(1)).alias("all")))
    return Window(first, latest, found["within"], found["all"] - found["within"])


def events_of_days(scratch: Scratch, raw_feedback: ds.Dataset) -> dict[str, dict[date, int]]:
    """See `recsys_pipeline.engines.engine.Engine`."""
    if TIMESTAMP not in raw_feedback.schema.names:
        return {}
    day = sf.to_date(sf.col(TIMESTAMP).cast("timestamp")).alias("day")
    counted = frame_of(scratch, raw_feedback).groupBy(sf.col(EVENT).alias("event"), day).count()
    found: dict[str, dict[date, int]] = {}
    for row in collected(counted).to_pylist():
        if row["day"] is not None and row["event"] is not None:
            found.setdefault(row["event"], {})[row["day"]] = row["count"]
    return found


def strengths_facts(scratch: Scratch, feedback_strengths: ds.Dataset) -> StrengthsFacts:
    """See `recsys_pipeline.engines.engine.Engine`; quantiles are those of one rank in ten thousand."""
    frame = frame_of(scratch, feedback_strengths)
    per_user, per_item = (rows_per(frame, name) for name in (USER, ITEM))
    return StrengthsFacts(
        int(per_user.values @ per_user.counts), per_user, per_item, distribution(frame, STRENGTH)
    )


def rows_per(frame: "DataFrame", name: str) -> Frequencies:
    """How many ids of that column have so many rows."""
    counted = collected(frame.groupBy(name).count().groupBy("count").agg(sf.count(sf.lit(1)).alias("n")))
    counted = counted.sort_by("count")
    return Frequencies(counted["count"].to_numpy(), counted["n"].to_numpy())


def distribution(frame: "DataFrame", name: str) -> Distribution:
    """That of a column of numbers; its quantiles are of neighbouring ranks where there are many rows."""
    quantiles = sf.percentile_approx(name, list(PROBABILITIES), _ACCURACY)
    found = first_row(frame.agg(quantiles.alias("quantiles"), sf.mean(name).alias("mean")))
    return Distribution(tuple(map(float, found["quantiles"])), float(found["mean"]))


class IndexedTables(NamedTuple):
    """The tables of `bm25_matrix`, computed.

    Attributes:
        tables: by name: pairs, users, items.
        schemas: by name.
    """

    tables: Mapping[str, Kept]
    schemas: Mapping[str, pa.Schema]


def matrix(
    scratch: Scratch, feedback_strengths: ds.Dataset, k1: float, b: float
) -> tuple[Matrix, IndexedTables]:
    """See `recsys_pipeline.engines.engine.Engine`; the tables of the first are missing."""
    rules = EventRules.from_metadata(stored_metadata(feedback_strengths))
    files = files_of(scratch, feedback_strengths)
    strengths = read(scratch, files)
    per_user = strengths.groupBy(USER).agg(sf.count(sf.lit(1)).alias("n"))
    per_item = strengths.groupBy(ITEM).agg(sf.sum(STRENGTH).alias("length"))
    users = scratch.kept(_indexed(per_user, USER, USER_INDEX), "users")
    items = scratch.kept(_indexed(per_item, ITEM, ITEM_INDEX), "items")
    n_users, n_items = users.n_rows, items.n_rows
    if not n_users:
        raise InputError("feedback_strengths holds no interactions: materialize it again.")
    mean_length = first_row(items.frame.agg(sf.sum("length").alias("sum")))["sum"] / n_items
    events = counted_events(feedback_strengths.schema.names)
    columns = [USER_INDEX, ITEM_INDEX, STRENGTH, WEIGHT, TARGET, EXCLUDED, *map(count_column, events)]
    columns += [faded_column(event, days) for days in rules.half_lives for event in events]
    if TIMESTAMP in feedback_strengths.schema.names:
        columns += [TIMESTAMP, TARGET_TIMESTAMP]

    def weigh(
        n: NDArray[np.int64], lengths: NDArray[np.float64], strengths: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        norms = length_norms(lengths, mean_length, b)
        return saturated(strengths, norms, k1) * inverse_document_frequency(n, n_items)

    pairs = indexed_pairs(scratch, files, users, items, columns, weigh)
    not_positive = sf.count(sf.when(sf.col(WEIGHT) <= 0, 1)).alias("n")
    matrix = Matrix(
        {},
        n_users,
        n_items,
        pairs.n_rows,
        first_row(pairs.frame.agg(not_positive))["n"],
        distribution(pairs.frame, STRENGTH),
        distribution(pairs.frame, WEIGHT),
    )
    given = feedback_strengths.schema
    kinds = {
        **dict.fromkeys((USER_INDEX, ITEM_INDEX), pa.int32()),
        **dict.fromkeys((STRENGTH, WEIGHT), pa.float64()),
        **dict.fromkeys((TIMESTAMP, TARGET_TIMESTAMP), _MICROSECONDS),
    }
    of_pairs = pa.schema([pa.field(name, kinds.get(name) or given.field(name).type) for name in columns])
    of_users, of_items = (
        pa.schema([(index, pa.int32()), (name, given.field(name).type)])
        for index, name in ((USER_INDEX, USER), (ITEM_INDEX, ITEM))
    )
    schemas = {
        "pairs": of_pairs.with_metadata(_rules_alone(rules)),
        "users": of_users,
        "items": of_items,
    }
    return matrix, IndexedTables({"pairs": pairs, "users": users, "items": items}, schemas)


def _rules_alone(rules: EventRules) -> Mapping[bytes, bytes]:
    described = with_metadata(pa.table({}), rules.to_metadata())
    return dict(described.schema.metadata)


def _indexed(frame: "DataFrame", name: str, index: str) -> "DataFrame":
    """The rows with the place of each id among all, in their order."""
    return frame.orderBy(name).zipWithIndex(index).withColumn(index, sf.col(index).cast("int"))
