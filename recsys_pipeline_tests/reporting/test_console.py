"""What a run says on a terminal: sentences, and of failures what is to be mended."""

import re

import pytest
from dagster import Failure, OpExecutionContext, job, op

from recsys_pipeline.core.errors import InputError
from recsys_pipeline.reporting.console import readable_console
from recsys_pipeline.steps.failures import classify_errors


@op
def search(context: OpExecutionContext) -> None:
    context.log.debug("a detail")
    context.log.info("half of the trials are done")
    context.log.warning("one failed")


@op
def split() -> None:
    with classify_errors():
        raise InputError("no column 'x'")


@op
def publish() -> None:
    raise Failure("the model is gone")


@op
def train() -> None:
    raise ZeroDivisionError("unforeseen")


def said(step, capfd):
    """The lines of a run of one step, without the time."""

    @job(logger_defs={"readable": readable_console})
    def run():
        step()

    run.execute_in_process(run_config={"loggers": {"readable": {}}}, raise_on_error=False)
    lines = capfd.readouterr().err.splitlines()
    assert re.match(r"\d\d:\d\d:\d\d  ", lines[0])
    return [re.sub(r"^\d\d:\d\d:\d\d  ", "", line) for line in lines]


def test_messages_are_lines_with_their_step_and_events_are_not_told(capfd):
    assert said(search, capfd) == [
        "search                 half of the trials are done",
        "search                 WARNING: one failed",
    ]


@pytest.mark.parametrize(
    ("step", "reason"), [(split, "no column 'x'"), (publish, "the model is gone")], ids=["input", "failure"]
)
def test_of_a_failure_what_is_to_be_mended_is_told_once_and_without_a_stack(step, reason, capfd):
    lines = said(step, capfd)

    assert lines.count(reason) == 1
    assert not [line for line in lines if "Traceback" in line or ".py" in line]


def test_of_an_unforeseen_error_all_is_told(capfd):
    lines = said(train, capfd)

    assert any("ZeroDivisionError: unforeseen" in line for line in lines)
    assert any(".py" in line for line in lines)
