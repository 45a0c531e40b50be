"""How an error ends a step: for good, or to be tried again."""

from collections.abc import Iterator
from contextlib import contextmanager

from dagster import Failure, RetryRequested

from recsys_pipeline.core.errors import InputError

_RETRIES = 2
_SECONDS_BETWEEN = 30


@contextmanager
def sorted_failures() -> Iterator[None]:
    """Fail for good on an `InputError`, which no retry can mend; try again what may pass by itself.

    That is an `OSError`: a file system or an object store that hiccups. Not by Dagster's retry policies: they
    also retry a run that a person terminates.
    """
    try:
        yield
    except InputError as error:
        raise Failure(description=str(error), allow_retries=False) from None
    except OSError as error:
        raise RetryRequested(max_retries=_RETRIES, seconds_to_wait=_SECONDS_BETWEEN) from error
