"""A short report of a run that failed, posted to a webhook in the shape that Slack takes."""

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from dagster import (
    DagsterEventType,
    DagsterInstance,
    DagsterRun,
    DefaultSensorStatus,
    RunFailureSensorContext,
    SensorDefinition,
    SkipReason,
    run_failure_sensor,
)
from pydantic import SecretStr

from recsys_pipeline import settings

_TIMEOUT_SECONDS = 5.0
_ATTEMPTS = 3
_SECONDS_BETWEEN = (1.0, 3.0)
# Slack refuses more than 40,000 characters; people read less.
_MOST_REASON = 1_500
_MOST_LINE = 300
_MOST_LINES = 8
_WILL_RETRY = "dagster/will_retry"


class AlertError(Exception):
    """The webhook did not take a report; says what became of it, and not the URL, which is a secret."""


class Report(NamedTuple):
    """What is told of a failed run.

    Attributes:
        job: its name.
        run_id: of it.
        steps: that failed; none where the run itself did.
        reason: the message of the first failure.
        lines: the last of its log, oldest first.
        retried: whether Dagster starts it again.
        url: of the UI; empty where it is not set.
    """

    job: str
    run_id: str
    steps: Sequence[str]
    reason: str
    lines: Sequence[str]
    retried: bool
    url: str

    def text(self) -> str:
        """For people, escaped as Slack wants it."""
        what = f"{', '.join(self.steps)} of {self.job}" if self.steps else self.job
        again = " It is started again." if self.retried else ""
        link = f"{self.url.rstrip('/')}/runs/{self.run_id}" if self.url else f"run {self.run_id}"
        parts = [f"*{_escaped(what)} failed.*{again}", _escaped(_cut(self.reason, _MOST_REASON))]
        if self.lines:
            shown = "\n".join(_escaped(_cut(line, _MOST_LINE)) for line in self.lines[-_MOST_LINES:])
            parts.append(f"```\n{shown.replace('```', chr(39) * 3)}\n```")
        return "\n".join([*parts, link])


def report_of(instance: DagsterInstance, run: DagsterRun, message: str, url: str) -> Report:
    """By the log of the run.

    Args:
        instance: that keeps the log.
        run: that failed.
        message: of the event that says so; it counts where no step failed.
        url: of the UI.
    """
    steps: list[str] = []
    reasons: list[str] = []
    lines: list[str] = []
    for entry in instance.all_logs(run.run_id):
        event = entry.dagster_event
        if event is None:
            lines.append(f"{entry.step_key or run.job_name}: {entry.user_message}")
        elif event.event_type is DagsterEventType.STEP_FAILURE:
            data = event.step_failure_data
            steps.append(str(event.step_key))
            told = data.user_failure_data.description if data.user_failure_data else None
            error = data.error.message if data.error else ""
            if data.error and data.error.cause:
                error = data.error.cause.message
            reasons.append((told or error or event.message or "").strip())
    reason = reasons[0] if reasons else message.strip()
    retried = run.tags.get(_WILL_RETRY) == "true"
    return Report(run.job_name, run.run_id, steps, reason, lines, retried, url)


def report_no_run(webhook: SecretStr, what: str, reason: str) -> None:
    """Post that no run could be started: there is then none whose failure the sensor `alert` would see.

    Args:
        webhook: URL, a secret; empty: nothing is reported.
        what: should have started it.
        reason: for people.

    Raises:
        AlertError: it was not taken.
    """
    if webhook:
        post(webhook, f"*{_escaped(what)} started no run.*\n{_escaped(_cut(reason, _MOST_REASON))}")


def post(webhook: SecretStr, text: str, wait: Callable[[float], None] = time.sleep) -> None:
    """Post a text; a server that is down, slow or has an error of its own is asked again, twice.

    Args:
        webhook: its URL, a secret.
        text: of the message.
        wait: between the attempts, in seconds.

    Raises:
        AlertError: it was not taken.
    """
    body = json.dumps({"text": text}).encode()
    trouble = ""
    for attempt in range(_ATTEMPTS):
        if attempt:
            wait(_SECONDS_BETWEEN[attempt - 1])
        trouble, lasting = _posted(webhook, body)
        if not trouble:
            return
        if lasting:
            break
    raise AlertError(f"the webhook (RECSYS_ALERT_WEBHOOK) did not take the report: {trouble}") from None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A report goes where it is meant to go, and nowhere else."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _posted(webhook: SecretStr, body: bytes) -> tuple[str, bool]:
    """What went wrong, empty if nothing did, and whether it would go wrong again.

    No error of the library is let through or quoted: some of them have the URL in their text.
    """
    try:
        request = urllib.request.Request(  # noqa: S310  # the settings take http and https alone
            webhook.get_secret_value(), body, {"Content-Type": "application/json"}, method="POST"
        )
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=_TIMEOUT_SECONDS):
            return "", False
    except urllib.error.HTTPError as error:
        code = error.code
        error.close()
        return f"it answered {code}", code < 500 and code != http.client.TOO_MANY_REQUESTS
    except TimeoutError:
        return f"it did not answer in {_TIMEOUT_SECONDS:g} s", False
    except urllib.error.URLError as error:
        slow = isinstance(error.reason, TimeoutError)
        kind = type(error.reason).__name__ if isinstance(error.reason, Exception) else "no connection"
        return (
            f"it did not answer in {_TIMEOUT_SECONDS:g} s" if slow else f"it cannot be reached ({kind})",
            False,
        )
    except Exception as error:
        return f"it cannot be asked ({type(error).__name__})", not isinstance(error, OSError)


def alert_sensor(webhook: SecretStr, url: str) -> SensorDefinition:
    """The sensor `alert`, which reports every failed run of this code location.

    Args:
        webhook: URL, a secret; empty: nothing is reported.
        url: of the UI, for the link.
    """

    @run_failure_sensor(
        name="alert",
        description="Posts what failed, the reason, the last lines of the log and a link to a webhook "
        "(RECSYS_ALERT_WEBHOOK, RECSYS_UI_URL).",
        default_status=DefaultSensorStatus.RUNNING if webhook else DefaultSensorStatus.STOPPED,
        minimum_interval_seconds=30,
    )
    def alert(context: RunFailureSensorContext) -> SkipReason | None:
        if not webhook:
            return SkipReason("RECSYS_ALERT_WEBHOOK is not set")
        run = context.dagster_run
        post(webhook, report_of(context.instance, run, context.failure_event.message or "", url).text())
        context.log.info(f"reported the failure of run {run.run_id}")
        return None

    return alert


alert = alert_sensor(settings.ALERT_WEBHOOK, settings.UI_URL)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}\N{HORIZONTAL ELLIPSIS}"
