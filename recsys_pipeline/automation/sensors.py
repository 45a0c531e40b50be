"""The sensor that starts a retrain when the source has changed and settled."""

import json
from typing import Any

from dagster import (
    DefaultSensorStatus,
    RunRequest,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    SkipReason,
    sensor,
)

from recsys_pipeline import settings
from recsys_pipeline.automation.jobs import retrain
from recsys_pipeline.automation.nights import Night, at_work
from recsys_pipeline.automation.staleness import FEED, Made, Plan, source_changed
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.fingerprints import SOURCE_TAG
from recsys_pipeline.storage.source import Source, seen, unfinished


def look(context: SensorEvaluationContext) -> RunRequest | SensorResult | SkipReason:
    """A retrain, if the source is another than the last that was read, and was the same at the last look.

    The cursor keeps what was seen last, and what a run was asked for last: one that failed is not asked for
    again for the same files. The run key says which change the run is for, so that a lost cursor starts no
    second one.
    """
    cursor = _read(context.cursor)
    assert context.repository_def is not None  # the daemon always names it
    plan = Plan.of(context.repository_def, retrain.name)
    last = Made.last(context.instance, FEED)
    if last is None:
        return SkipReason("nothing was ever made: materialize everything once, or wait for the night")
    locations = plan.locations(FEED)
    try:
        source = seen(locations)
    except (InputError, OSError) as error:
        return SkipReason(f"the source cannot be looked at: {error}")
    if source.unseen:
        return SkipReason(
            f"whether {', '.join(source.unseen)} has changed cannot be seen: the night reads it"
        )
    now = source.fingerprint
    if now in (last.tags.get(SOURCE_TAG), cursor.get("equal")):
        return SkipReason(f"{source.told()} is what run {last.run_id} read")
    if cursor.get("asked") == now:
        return SkipReason(f"a run was asked for already for {source.told()}")
    if cursor.get("seen") != now:
        return _skip(cursor, f"{source.told()} has changed: waits until it stays as it is", seen=now)
    return _settled(context, cursor, source, last, locations)


def _settled(
    context: SensorEvaluationContext, cursor: dict[str, str], source: Source, last: Made, locations: list[str]
) -> RunRequest | SensorResult | SkipReason:
    """A retrain for a source that is as it was at the last look."""
    now = source.fingerprint
    if why := unfinished(source):
        return SkipReason(f"waits for the rest: {why}")
    if not source_changed(locations, last.tags):
        return _skip(cursor, f"{source.told()} was written again, with the content that it had", equal=now)
    if run := at_work(context.instance):
        return SkipReason(f"{source.told()} has changed: waits for run {run}")
    assert context.repository_def is not None
    night = Night.now(context.instance, context.repository_def)
    run_key = f"{last.run_id}-{now}"
    return SensorResult(
        run_requests=[night.request(context.instance, run_key)],
        cursor=json.dumps({**cursor, "seen": now, "asked": now}),
    )


def _skip(cursor: dict[str, str], reason: str, **changed: str) -> SensorResult:
    return SensorResult(skip_reason=reason, cursor=json.dumps({**cursor, **changed}))


def _read(cursor: str | None) -> dict[str, str]:
    try:
        found: Any = json.loads(cursor or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def source_sensor(seconds: int) -> SensorDefinition:
    """The sensor `source`.

    Args:
        seconds: between two looks; 0: it is there, but off.
    """
    return sensor(
        name="source",
        job=retrain,
        minimum_interval_seconds=seconds or None,
        default_status=DefaultSensorStatus.RUNNING if seconds else DefaultSensorStatus.STOPPED,
        description="Starts a retrain when the source has changed and has been the same for two looks "
        "(RECSYS_WATCH_SECONDS).",
    )(look)


source = source_sensor(settings.WATCH_SECONDS)
