"""What every step of the graph has in common: inputs that belong together, and how an error ends it."""

import errno
import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar, cast

import pyarrow as pa
from dagster import AssetCheckResult, DataVersion, Failure, MaterializeResult, RetryRequested
from pydantic import BaseModel

from recsys_pipeline.core.errors import InputError, code_of
from recsys_pipeline.core.lineage import Lineage, ancestors_of, with_ancestors
from recsys_pipeline.fingerprints import CONFIGURATION_TAG, INPUT_TAG, configuration_of

P = ParamSpec("P")
R = TypeVar("R")

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
_SIGNATURES: dict[str, inspect.Signature] = {}


@contextmanager
def classify_errors() -> Iterator[None]:
    """Fail for good on what no retry can mend; retry transient I/O errors.

    An `InputError` is for good, and an `OSError` whose cause only a person can mend. Not by Dagster's retry
    policies: they also retry a run that a person terminates.
    """
    try:
        yield
    except InputError as error:
        raise Failure(description=str(error), allow_retries=False) from None
    except OSError as error:
        code = code_of(error)
        if code in _LASTING:
            # Arrow names no file name of its own, but has the path in its text.
            where = error.filename or error.strerror or error
            raise Failure(description=f"{where}: {_LASTING[code]}.", allow_retries=False) from error
        raise RetryRequested(max_retries=_RETRIES, seconds_to_wait=_SECONDS_BETWEEN) from error


def asset_step(compute: Callable[P, R]) -> Callable[P, R]:
    """Compute an asset from inputs of the same ancestors, which its tables then name; or yield what it says.

    The materialization also says by which configuration it was made, and which state of the warehouse it is.
    Raises, through `classify_errors`, when the inputs do not belong together.
    """
    signature = inspect.signature(compute)
    _SIGNATURES[compute.__name__] = signature

    def told(result: Any, args: Any, kwargs: Any) -> Any:
        if not isinstance(result, MaterializeResult):
            return result
        arguments = signature.bind(*args, **kwargs).arguments
        # Of an asset that has partitions, Dagster records a digest of theirs.
        inputs = {
            f"{INPUT_TAG}{lineage.asset}": lineage.write_id
            for lineage in map(Lineage.of, arguments.values())
            if lineage
        }
        tags = {**inputs, **(result.tags or {}), CONFIGURATION_TAG: configuration_of(arguments)}
        version = result.data_version
        # What goes through the IO manager gets its version there.
        if version is None and "warehouse" in arguments and not isinstance(result.value, dict | pa.Table):
            version = DataVersion(arguments["warehouse"].write_id(compute.__name__))
        return result._replace(tags=tags, data_version=version)

    if inspect.isgeneratorfunction(compute):

        @functools.wraps(compute)
        def steps(*args: P.args, **kwargs: P.kwargs) -> Iterator[Any]:
            with classify_errors():
                ancestors_of([*args, *kwargs.values()])
                for result in cast("Iterator[Any]", compute(*args, **kwargs)):
                    yield told(result, args, kwargs)

        return cast("Callable[P, R]", steps)

    @functools.wraps(compute)
    def step(*args: P.args, **kwargs: P.kwargs) -> R:
        with classify_errors():
            ancestors = ancestors_of([*args, *kwargs.values()])
            result = told(compute(*args, **kwargs), args, kwargs)
        if isinstance(result, MaterializeResult):
            value: Any = result.value
            if isinstance(value, dict):
                value = {name: with_ancestors(table, ancestors) for name, table in value.items()}
            elif isinstance(value, pa.Table):
                value = with_ancestors(value, ancestors)
            return cast("R", result._replace(value=value))
        return cast("R", result)

    return step


def configured_by(asset: str) -> dict[str, type[BaseModel]]:
    """By name, the classes of an asset's configuration and resources; its module must be loaded."""
    annotated = {name: given.annotation for name, given in _SIGNATURES[asset].parameters.items()}
    return {
        name: kind
        for name, kind in annotated.items()
        if isinstance(kind, type) and issubclass(kind, BaseModel)
    }


def check_step(check: Callable[P, AssetCheckResult]) -> Callable[P, AssetCheckResult]:
    """Check a claim; inputs that do not belong together, or cannot be read, make it false."""

    @functools.wraps(check)
    def step(*args: P.args, **kwargs: P.kwargs) -> AssetCheckResult:
        with classify_errors():
            try:
                ancestors_of([*args, *kwargs.values()])
                return check(*args, **kwargs)
            except InputError as error:
                return AssetCheckResult(passed=False, description=str(error))

    return step
