"""Which errors end a run, which are retried, and what a terminated run says."""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dagster import DagsterExecutionInterruptedError, Failure, RetryRequested
from dagster._core.errors import DagsterUserCodeProcessError
from dagster_shared.error import SerializableErrorInfo

from recsys_pipeline.core.errors import InputError, code_of
from recsys_pipeline.reporting.metadata import facts_metadata

_RETRIES = 2
_SECONDS_BETWEEN = 30
# What a person must mend; time does not.
_LASTING = {
    errno.ENOSPC: "there is no space left: free some, or choose another RECSYS_WAREHOUSE or TMPDIR",
    errno.EDQUOT: "the disk quota is used up: free some, or choose another RECSYS_WAREHOUSE or TMPDIR",
    errno.EROFS: "the file system is read-only: choose another RECSYS_WAREHOUSE",
    errno.EACCES: "permission is denied: let the user of this process read and write it",
    errno.EPERM: "the operation is not permitted: let the user of this process read and write it",
    errno.EISDIR: "it is a folder where a file is expected: move it away",
    errno.ENOTDIR: "it is a file where a folder is expected: move it away",
}


class Terminated(DagsterExecutionInterruptedError, DagsterUserCodeProcessError):  # noqa: N818  # it is none
    """A step that a person has terminated, and what it leaves.

    To Dagster it is the interruption that it raises itself. Of an error of a user's process it shows what
    that process has made of it: here the sentence, and not the place at which a signal happened to arrive.
    """

    def __init__(self, told: str) -> None:
        """What is left, as a sentence."""
        shown = SerializableErrorInfo(told, [], DagsterExecutionInterruptedError.__name__)
        super().__init__(told, user_code_process_error_infos=[shown])  # type: ignore[no-untyped-call]


@contextmanager
def told_if_terminated(told: Callable[[], str]) -> Iterator[None]:
    """Let a termination say what it leaves; the sentence is asked for then."""
    try:
        yield
    except Terminated:
        raise
    except (DagsterExecutionInterruptedError, KeyboardInterrupt):
        raise Terminated(told()) from None


@contextmanager
def classify_errors() -> Iterator[None]:
    """Fail for good on what no retry can mend; retry transient I/O errors.

    An `InputError` is for good, and an `OSError` whose cause only a person can mend. Not by Dagster's retry
    policies: they also retry a run that a person terminates.
    """
    try:
        yield
    except InputError as error:
        facts = facts_metadata(error.facts)
        raise Failure(description=str(error), metadata=facts, allow_retries=False) from None
    except OSError as error:
        code = code_of(error)
        if code in _LASTING:
            # Arrow names no file name of its own, but has the path in its text.
            where = error.filename or error.strerror or error
            raise Failure(description=f"{where}: {_LASTING[code]}.", allow_retries=False) from error
        raise RetryRequested(max_retries=_RETRIES, seconds_to_wait=_SECONDS_BETWEEN) from error
