"""The schedule of the nightly retrain."""

from dagster import (
    DagsterInvalidDefinitionError,
    DefaultScheduleStatus,
    RunRequest,
    ScheduleDefinition,
    ScheduleEvaluationContext,
    SkipReason,
)

from recsys_pipeline import settings
from recsys_pipeline.automation.alerts import AlertError, report_no_run
from recsys_pipeline.automation.jobs import retrain
from recsys_pipeline.automation.nights import Night, at_work
from recsys_pipeline.settings import SettingError


def tonight(context: ScheduleEvaluationContext) -> RunRequest | SkipReason:
    """A run that makes what is stale, or says that nothing is; what keeps it from that is reported."""
    try:
        return _due(context)
    except Exception as error:
        try:
            report_no_run(settings.ALERT_WEBHOOK, "nightly", str(error))
        except AlertError as untold:
            context.log.warning(str(untold))
        raise


def _due(context: ScheduleEvaluationContext) -> RunRequest | SkipReason:
    if run := at_work(context.instance):
        return SkipReason(f"run {run} is at work; what is stale after it is made the next night")
    night = Night.now(context.instance, context.repository_def)
    context.log.info(night.why() or "nothing is stale")
    return night.request(context.instance)


def schedule(cron: str) -> ScheduleDefinition:
    """The schedule `nightly` at these times.

    Raises:
        SettingError: `cron` is no cron expression.
    """
    try:
        return ScheduleDefinition(
            name="nightly",
            job=retrain,
            cron_schedule=cron,
            execution_timezone="UTC",
            execution_fn=tonight,
            default_status=DefaultScheduleStatus.RUNNING,
            description="Makes what is stale, every night at a fixed UTC hour (RECSYS_SCHEDULE). Where "
            "nothing is, its run says so.",
        )
    except DagsterInvalidDefinitionError:
        raise SettingError(
            f"RECSYS_SCHEDULE: {cron!r} is no cron expression; write it as 0 3 * * *"
        ) from None


nightly = schedule(settings.SCHEDULE)
