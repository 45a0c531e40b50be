"""The schedule of the nightly retrain."""

from dagster import DagsterInvalidDefinitionError, DefaultScheduleStatus, ScheduleDefinition

from recsys_pipeline import settings
from recsys_pipeline.automation.jobs import retrain


def schedule(cron: str) -> ScheduleDefinition:
    """The schedule `nightly` at these times.

    Raises:
        ValueError: `cron` is no cron expression.
    """
    try:
        return ScheduleDefinition(
            name="nightly",
            job=retrain,
            cron_schedule=cron,
            execution_timezone="UTC",
            default_status=DefaultScheduleStatus.RUNNING,
            description="Retrains every night at a fixed UTC hour (RECSYS_SCHEDULE).",
        )
    except DagsterInvalidDefinitionError:
        raise ValueError(f"RECSYS_SCHEDULE: {cron!r} is no cron expression; write it as 0 3 * * *") from None


nightly = schedule(settings.SCHEDULE)
