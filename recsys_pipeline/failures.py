"""How an error in the data or the configuration ends a run."""

from collections.abc import Iterator
from contextlib import contextmanager

from dagster import Failure

from recsys_pipeline.core.errors import InputError


@contextmanager
def input_errors_fail_the_run() -> Iterator[None]:
    """Turn an `InputError` into a failure that Dagster does not retry, since a retry cannot help."""
    try:
        yield
    except InputError as error:
        raise Failure(description=str(error), allow_retries=False) from None
