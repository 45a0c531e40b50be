"""What tells one run from another in the list of runs."""

from dagster import AssetExecutionContext
from dagster._core.errors import DagsterInvalidPropertyError

# The tag with the version that a run has released, or with `refused`.
RELEASE = "release"


def tag_run(context: AssetExecutionContext, name: str, value: str) -> None:
    """Write a figure beside the run, where the list of runs shows it; the last one counts."""
    try:
        run_id = context.run.run_id
    except DagsterInvalidPropertyError:  # a step by itself
        return
    context.instance.add_run_tags(run_id, {name: value})
