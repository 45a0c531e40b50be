"""What every step of the graph has in common: inputs that belong together, and how an error ends it."""

import errno
import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar, cast

import pyarrow as pa
from dagster import (
    AssetCheckResult,
    AssetExecutionContext,
    DagsterInvariantViolationError,
    Failure,
    MaterializeResult,
    RetryRequested,
    TableColumnDep,
    TableColumnLineage,
    TableSchema,
)
from dagster._check import CheckError

from recsys_pipeline.configuration import told_unknown_names
from recsys_pipeline.core.column_lineage import sources_of
from recsys_pipeline.core.errors import InputError, code_of
from recsys_pipeline.core.lineage import ancestors_of, with_ancestors

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

    Raises, through `classify_errors`, when the inputs do not belong together.
    """
    if inspect.isgeneratorfunction(compute):

        @functools.wraps(compute)
        def steps(*args: P.args, **kwargs: P.kwargs) -> Iterator[Any]:
            with classify_errors():
                _require_known_names()
                ancestors_of([*args, *kwargs.values()])
                yield from cast("Iterator[Any]", compute(*args, **kwargs))

        return cast("Callable[P, R]", steps)

    @functools.wraps(compute)
    def step(*args: P.args, **kwargs: P.kwargs) -> R:
        with classify_errors():
            _require_known_names()
            ancestors = ancestors_of([*args, *kwargs.values()])
            result = compute(*args, **kwargs)
        if isinstance(result, MaterializeResult):
            value: Any = result.value
            if isinstance(value, dict):
                value = {name: with_ancestors(table, ancestors) for name, table in value.items()}
            elif isinstance(value, pa.Table):
                value = with_ancestors(value, ancestors)
            lineage = _column_lineage(compute.__name__, result)
            return cast("R", result._replace(value=value, metadata={**(result.metadata or {}), **lineage}))
        return result

    return step


def _column_lineage(asset: str, result: MaterializeResult[Any]) -> dict[str, TableColumnLineage]:
    """From which columns of other assets those of this one are made, as the UI shows it."""
    value, schema = result.value, (result.metadata or {}).get("dagster/column_schema")
    if isinstance(value, dict):
        value = value.get(asset, next(iter(value.values())))
    if isinstance(value, pa.Table):
        names = value.column_names
    elif isinstance(schema, TableSchema):
        names = [column.name for column in schema.columns]
    else:
        return {}
    deps = {
        name: [TableColumnDep(asset_key=other, column_name=column) for other, column in sources]
        for name, sources in sources_of(asset, names).items()
    }
    return {"dagster/column_lineage": TableColumnLineage(deps)} if deps else {}


def _require_known_names() -> None:
    """Refuse a run whose configuration is for an asset that there is not, in the first step that begins.

    Raises:
        InputError: it is.
    """
    try:
        context = AssetExecutionContext.get()
    except DagsterInvariantViolationError:  # a step by itself
        return
    try:
        graph = context.repository_def.asset_graph
    except CheckError:  # a run of definitions in memory
        graph = context.job_def.asset_layer.asset_graph
    known = [
        *(key.to_user_string() for key in graph.get_all_asset_keys()),
        *(f"{key.asset_key.to_user_string()}_{key.name}" for key in graph.asset_check_keys),
    ]
    if told := told_unknown_names(context.run.run_config, known):
        raise InputError(told)


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
