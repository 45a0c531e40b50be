"""What a run says on a terminal: time, asset, sentence; of events only the failures."""

import logging
from typing import Any

from dagster import (
    DagsterEventType,
    DagsterExecutionInterruptedError,
    Failure,
    Field,
    InitLoggerContext,
    logger,
)

from recsys_pipeline.core.errors import InputError

# Errors whose message says what, where and the mend.
_FOR_PEOPLE = (InputError.__name__, Failure.__name__)
# What ends with the run repeats what the step said.
_OF_RUNS = (DagsterEventType.RUN_FAILURE, DagsterEventType.RUN_CANCELED)


class _OneLine(logging.Formatter):
    """The message alone, after the time and the step that said it."""

    def format(self, record: logging.LogRecord) -> str:
        meta: dict[str, Any] = getattr(record, "dagster_meta", {})
        event = meta.get("dagster_event")
        step = meta.get("step_key") or ""
        text = str(meta.get("orig_message", record.getMessage()))
        error = getattr(event.event_specific_data, "error", None) if event else None
        if error and event and event.event_type not in _OF_RUNS:
            text += f"\n{_reason(error)}"
        level = "" if record.levelno <= logging.INFO else f"{record.levelname}: "
        return f"{self.formatTime(record, '%H:%M:%S')}  {step:<22} {level}{text}"


def _is_no_echo(record: logging.LogRecord) -> bool:
    """Whether it says more than that a step waits in vain for one that failed."""
    meta: dict[str, Any] = getattr(record, "dagster_meta", {})
    return not str(meta.get("orig_message")).startswith("Dependencies for step")


def _reason(error: Any) -> str:
    """What an error says for people, without a stack trace; of an unforeseen error all of it."""
    link = error
    while link:
        if link.cls_name == DagsterExecutionInterruptedError.__name__ and not link.stack:
            return str(link.message).strip()
        if link.cls_name in _FOR_PEOPLE:
            return str(link.message).partition(": ")[2].strip()
        link = link.cause
    return str(error.to_string())


@logger(
    {"log_level": Field(str, default_value="INFO", description="The logger's threshold.")},
    description="One readable line a message.",
)
def readable_console(context: InitLoggerContext) -> logging.Logger:
    """Messages for people, on standard error."""
    console = logging.Logger("recsys_pipeline", level=context.logger_config["log_level"])
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine())
    handler.addFilter(_is_no_echo)
    console.addHandler(handler)
    return console
