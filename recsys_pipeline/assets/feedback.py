"""From raw events to one strength per interaction."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any

import pyarrow.dataset as ds
from dagster import (
    AssetExecutionContext,
    AssetMaterialization,
    BackfillPolicy,
    DailyPartitionsDefinition,
    MaterializeResult,
    MetadataValue,
    asset,
)
from pydantic import Field

from recsys_pipeline import settings
from recsys_pipeline.assets.grid_config import MEMORY_LIMIT
from recsys_pipeline.assets.pictures import pictured
from recsys_pipeline.configuration import Knobs
from recsys_pipeline.core.lineage import ancestors_of, with_ancestors
from recsys_pipeline.core.metadata import FORGOTTEN, with_metadata
from recsys_pipeline.core.strengths import Aggregate, EventRules
from recsys_pipeline.engines.chosen import chosen_engine
from recsys_pipeline.machine.memory import memory_limit, told
from recsys_pipeline.reporting.configuration import settings_table, told_configuration
from recsys_pipeline.reporting.feed import told_feed, told_forgotten
from recsys_pipeline.reporting.metadata import (
    AT_A_GLANCE,
    SETTINGS,
    counts_table,
    distribution_table,
    markdown_table,
    rounded,
    shape_metadata,
)
from recsys_pipeline.reporting.pictures.feedback import events_by_day, events_by_kind, popularity
from recsys_pipeline.reporting.pictures.style import Sheet
from recsys_pipeline.steps.step import asset_step
from recsys_pipeline.storage.days import ingest_days
from recsys_pipeline.storage.feedback import Feedback
from recsys_pipeline.storage.ingest import ingest
from recsys_pipeline.storage.io_manager import table_metadata
from recsys_pipeline.storage.source import watched
from recsys_pipeline.storage.warehouse import Warehouse


def days_from(first_day: str) -> DailyPartitionsDefinition | None:
    """The days from that one to today, which is ingested again when its files grow; None without one."""
    return DailyPartitionsDefinition(start_date=first_day, end_offset=1) if first_day else None


_DAYS = days_from(settings.FIRST_DAY)


@asset(
    kinds={"parquet", "pyarrow"},
    partitions_def=_DAYS,
    backfill_policy=BackfillPolicy.single_run() if _DAYS else None,
)
@asset_step
def raw_feedback(
    context: AssetExecutionContext, feedback: Feedback, warehouse: Warehouse
) -> MaterializeResult[None]:
    """The events as they came, typed and validated, one row an event.

    Rows that are no events (a blank id, an unknown event, a line that does not parse) are kept with file,
    line and reason in `rejected_feedback.parquet`; too many of them fail the run and leave this table as
    it was.

    With RECSYS_FIRST_DAY each day is a partition: a run of some days replaces these, a run without any
    ingests those that are missing or whose files have changed.
    """
    context.log.info(f"reading {feedback.path}; {told_configuration(feedback)}")
    if feedback.first_day:
        return _days_of_feedback(context, feedback, warehouse)
    source = watched(feedback.locations)
    report = ingest(
        feedback, warehouse, "raw_feedback", "rejected_feedback", context.log.info, chosen_engine().each
    )
    assert report.schema is not None
    for remark in report.remarks:
        context.log.warning(remark)
    if report.skipped:
        context.log.warning(
            f"{feedback.path}: {len(report.skipped):,} entries are not read: they are no files but folders "
            f"or links that lead nowhere: {', '.join(report.skipped[:5])}"
        )
    told = told_feed(
        report.n_accepted, len(report.events), report.n_rejected, report.rejected_share, report.reasons
    )
    ignored = f"; {report.n_ignored:,} rows were ignored as configured" if report.n_ignored else ""
    context.log.info(f"{told}{ignored}; files: {len(report.files):,}")
    forgotten = _told_forgotten(context, feedback, report.forgotten)
    return MaterializeResult(
        metadata={
            AT_A_GLANCE: told,
            "Events": report.n_accepted,
            "Rejected rows": report.n_rejected,
            "Rejected share": rounded(report.rejected_share),
            "Ignored rows": report.n_ignored,
            "Empty lines": report.n_empty,
            "Files": len(report.files),
            "events by kind": counts_table("event", report.events),
            **({"reasons of rejection": counts_table("reason", report.reasons)} if report.reasons else {}),
            "rejected rows": MetadataValue.path(str(warehouse.path_of("rejected_feedback"))),
            SETTINGS: settings_table(feedback),
            **table_metadata(report.schema, report.n_accepted, warehouse.path_of("raw_feedback")),
            **forgotten,
            **_pictures_of_feed(context, warehouse, report.events),
        },
        tags=source.tags(),
    )


def _told_forgotten(
    context: AssetExecutionContext, feedback: Feedback, facts: Mapping[str, int] | None
) -> dict[str, int]:
    """The metadata of what was left out of the feed, which is logged too."""
    if not facts:
        return {}
    listed = f"{facts['listed']:,} ids are in {feedback.forget_users}"
    strangers = (
        f", {facts['not in the feed']:,} of them not in the feed" if "not in the feed" in facts else ""
    )
    context.log.info(f"forgotten: {told_forgotten(facts)}; {listed}{strangers}")
    return {f"Forgotten: {what}": count for what, count in facts.items()}


def _pictures_of_feed(
    context: AssetExecutionContext, warehouse: Warehouse, events: Counter[str]
) -> dict[str, Any]:
    return pictured(
        context,
        warehouse,
        warehouse.write_id("raw_feedback"),
        partial(events_by_kind, events),
        partial(_days_drawn, warehouse),
    )


def _days_drawn(warehouse: Warehouse) -> Sheet | None:
    return events_by_day(chosen_engine().events_of_days(warehouse.open_table("raw_feedback")))


def _days_of_feedback(
    context: AssetExecutionContext, feedback: Feedback, warehouse: Warehouse
) -> MaterializeResult[None]:
    source = watched(feedback.locations)
    are_asked_for = context.has_partition_key or context.has_partition_key_range
    report = ingest_days(feedback, warehouse, list(context.partition_keys) if are_asked_for else None)
    assert report.schema is not None
    for remark in report.remarks:
        context.log.warning(remark)
    of_other_days = sum(report.n_other_days.values())
    if of_other_days:
        context.log.warning(
            f"{of_other_days:,} events happened on another day than that of their file, with which they stay"
        )
    if report.n_before:
        context.log.info(f"{report.n_before:,} events before {feedback.first_day} are left out")
    feed, days = report.feed, list(report.days)
    told = f"{_told_days(report.ingested)} ingested; {feed['rows']:,} events of {_told_days(days)} are there"
    if not report.ingested:
        told = f"nothing new: {feed['rows']:,} events of {_told_days(days)} are there"
    context.log.info(told)
    events = Counter(feed["events"])
    metadata = {
        AT_A_GLANCE: told,
        "Events": feed["rows"],
        "Rejected rows": feed["rejected"],
        "Ignored rows": feed["ignored"],
        "Events of other days": of_other_days,
        "Days": len(days),
        "events by kind": counts_table("event", events),
        **({"reasons of rejection": counts_table("reason", report.reasons)} if report.reasons else {}),
        "rejected rows": MetadataValue.path(str(warehouse.path_of("rejected_feedback"))),
        SETTINGS: settings_table(feedback),
        **table_metadata(report.schema, feed["rows"], warehouse.path_of("raw_feedback")),
        **_told_forgotten(context, feedback, feed.get(FORGOTTEN)),
        **_pictures_of_feed(context, warehouse, events),
    }
    if not are_asked_for:
        # Dagster knows only of the days that a run was asked for.
        for day in report.ingested:
            context.log_event(
                AssetMaterialization(
                    context.asset_key, partition=day, metadata={"events of the day": report.days[day]["rows"]}
                )
            )
    return MaterializeResult(metadata=metadata, tags=source.tags())


def _told_days(days: Sequence[str]) -> str:
    if len(days) < 2:
        return days[0] if days else "no day"
    return f"{len(days):,} days from {days[0]} to {days[-1]}"


class StrengthsConfig(Knobs):
    """How the events of one interaction become its strength."""

    aggregate: Aggregate = Field(
        default=Aggregate.sum,
        description="`sum` of the strengths of an interaction's events, or their `max`.",
    )
    window_days: float = Field(
        default=0.0,
        ge=0,
        description="Only events of so many days count, back from the latest event of the feed and not from "
        "now, so that the same feed gives the same model; 0: all. Needs timestamps.",
    )
    half_lives: list[Annotated[float, Field(gt=0)]] = Field(
        default=[],
        description="Days after which an event counts half: the values that half_life_days of "
        "grid_search_results may try. Needs timestamps.",
    )
    memory_limit: float = Field(default=settings.MEMORY_LIMIT, ge=0, description=MEMORY_LIMIT)


@asset(kinds={"parquet", "duckdb"})
@asset_step
def feedback_strengths(
    context: AssetExecutionContext,
    config: StrengthsConfig,
    raw_feedback: ds.Dataset,
    feedback: Feedback,
    warehouse: Warehouse,
) -> MaterializeResult[None]:
    """One row an interaction of a user and an item: the summed strength of its events, the latest time.

    It is made as a stream: what does not fit into memory_limit is kept in temporary files (TMPDIR).
    """
    rules = EventRules(
        feedback.strengths,
        config.aggregate,
        feedback.target_events or list(feedback.strengths),
        feedback.seen_events or list(feedback.strengths),
        config.window_days,
        list(dict.fromkeys(config.half_lives)),
    )
    limit = memory_limit(config.memory_limit)
    context.log.info(f"memory limit {told(limit)}")
    strengths = chosen_engine().strengths(raw_feedback, rules, limit)
    table = with_metadata(strengths, rules.to_metadata())
    described = with_ancestors(table, ancestors_of([raw_feedback]))
    warehouse.write_tables("feedback_strengths", {"feedback_strengths": described})
    written = warehouse.open_table("feedback_strengths")
    n_interactions, per_user, per_item, strength = chosen_engine().strengths_facts(written)
    in_window = _window_metadata(raw_feedback, config.window_days, limit, context.log.info)
    of_user, of_item = per_user.distribution(), per_item.distribution()
    sentence = (
        f"{n_interactions:,} interactions of {per_user.n:,} users with {per_item.n:,} items; half of the "
        f"users have {of_user.median:.0f} or fewer, and half of the items {of_item.median:.0f} or fewer"
    )
    context.log.info(sentence)
    return MaterializeResult(
        metadata={
            AT_A_GLANCE: sentence,
            **shape_metadata(per_user.n, per_item.n, n_interactions),
            **in_window,
            "events": markdown_table(
                ["event", "strength", "may be held out", "excludes the item"],
                [
                    [event, strength, event in rules.target_events, event in rules.seen_events]
                    for event, strength in rules.strengths.items()
                ],
            ),
            "distributions": distribution_table(
                {
                    "interactions per user": of_user,
                    "interactions per item": of_item,
                    "strength of an interaction": strength,
                }
            ),
            SETTINGS: settings_table(config),
            **table_metadata(written.schema, n_interactions, warehouse.path_of("feedback_strengths")),
            **pictured(
                context,
                warehouse,
                warehouse.write_id("feedback_strengths"),
                partial(popularity, per_user, per_item),
            ),
        },
    )


def _window_metadata(
    events: ds.Dataset, window_days: float, most_bytes: int, log: Callable[[str], None]
) -> dict[str, Any]:
    """What the window left out, told; nothing without one."""
    if not window_days:
        return {}
    window = chosen_engine().window(events, window_days, most_bytes)
    told = (
        f"{window.n_events:,} events after {window.first:%Y-%m-%d %H:%M} count, the {window_days:g} days up "
        f"to the latest one; {window.n_left_out:,} older ones are left out"
    )
    log(told)
    return {"window": told, "events in the window": window.n_events, "events left out": window.n_left_out}
