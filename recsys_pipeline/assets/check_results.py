"""What the asset checks say of what a step was given."""

import time
from collections.abc import Collection, Iterable
from typing import NamedTuple, Self

from dagster import (
    AssetCheckEvaluation,
    AssetCheckKey,
    AssetCheckSeverity,
    AssetExecutionContext,
    AssetKey,
    DagsterEvent,
    DagsterEventType,
)

from recsys_pipeline import settings

_POLL_SECONDS = 1.0
# How long checks that run beside a step, in processes of their own, may take to come to an end.
_MOST_SECONDS = 600.0


def failed_checks(context: AssetExecutionContext, ancestors: Iterable[str]) -> list[str]:
    """The asset checks that failed with severity error, or have no result; those of this run are waited for.

    Also those that the runs of the ancestors found, unless they passed since: who repeats the step alone does
    not get past them. They are known where Dagster keeps its history (DAGSTER_HOME).

    Args:
        context: of the step; checks of what it makes itself are not looked at.
        ancestors: the assets that the step was given, and theirs.
    """
    ancestors = frozenset(ancestors)
    deadline = time.monotonic() + _MOST_SECONDS
    # In one process nothing else runs while this step waits.
    waits = settings.EXECUTOR != "in_process"
    run = context.run.run_id
    while waits and _Results.of(context, run, ancestors).pending and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    results = _Results.of(context, run, ancestors)
    return [
        *(told for evaluation in results.evaluated.values() if (told := _told_if_failed(evaluation))),
        *(f"{_name(key)} has no result" for key in results.planned if key not in results.evaluated),
        *_failed_before(context, ancestors, results),
    ]


class _Results(NamedTuple):
    """What a run says so far.

    Attributes:
        planned: its checks, and the step of each.
        evaluated: the result of each that has one.
        failed_steps: those that end without.
    """

    planned: dict[AssetCheckKey, str | None]
    evaluated: dict[AssetCheckKey, AssetCheckEvaluation]
    failed_steps: set[str | None]

    @classmethod
    def of(cls, context: AssetExecutionContext, run_id: str, ancestors: Collection[str]) -> Self:
        """By the log of the run; those of assets that follow the step come after it, and are left out."""
        results = cls({}, {}, set())
        types = {
            DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED,
            DagsterEventType.ASSET_CHECK_EVALUATION,
            DagsterEventType.STEP_FAILURE,
        }
        for entry in context.instance.all_logs(run_id, of_type=types):
            event = entry.get_dagster_event()
            if event.event_type is DagsterEventType.STEP_FAILURE:
                results.failed_steps.add(event.step_key)
            elif event.event_type is DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED:
                planned = event.asset_check_planned_data
                if planned.asset_key.to_user_string() in ancestors:
                    results.planned[planned.asset_check_key] = event.step_key
            else:
                evaluation = event.asset_check_evaluation_data
                results.evaluated[evaluation.asset_check_key] = evaluation
        return results

    @property
    def pending(self) -> bool:
        """Whether a check may still come to a result."""
        return any(
            key not in self.evaluated and step not in self.failed_steps for key, step in self.planned.items()
        )


def _failed_before(context: AssetExecutionContext, ancestors: Collection[str], now: _Results) -> list[str]:
    """What the checks said last that this run leaves out, and the runs that made its inputs did not."""
    instance = context.instance
    made = [instance.get_latest_materialization_event(AssetKey(name)) for name in ancestors]
    runs = {entry.run_id for entry in made if entry} - {context.run.run_id}
    planned = {key for run in sorted(runs) for key in _Results.of(context, run, ancestors).planned}
    left_out = planned - {*now.planned}
    if not left_out:
        return []
    latest = instance.event_log_storage.get_latest_asset_check_execution_by_key(sorted(left_out, key=_name))
    found = []
    for key, record in latest.items():
        event = record.event.dagster_event if record.event else None
        evaluation = _evaluation_in(event)
        told = _told_if_failed(evaluation) if evaluation else f"{_name(key)} has no result"
        if told:
            found.append(f"{told} in an earlier run: let the check run again")
    return found


def _evaluation_in(event: DagsterEvent | None) -> AssetCheckEvaluation | None:
    """The result that an event reports; None for a plan."""
    if event is None or event.event_type is not DagsterEventType.ASSET_CHECK_EVALUATION:
        return None
    return event.asset_check_evaluation_data


def _told_if_failed(evaluation: AssetCheckEvaluation) -> str:
    """Its name and why it failed; empty for one that did not, or whose severity is to warn."""
    if evaluation.passed or evaluation.severity is not AssetCheckSeverity.ERROR:
        return ""
    told = {key: value.value for key, value in evaluation.metadata.items()}
    return f"{_name(evaluation.asset_check_key)} ({evaluation.description or told})"


def _name(key: AssetCheckKey) -> str:
    return f"{key.asset_key.to_user_string()}.{key.name}"
