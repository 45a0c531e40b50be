"""What every step of the graph has in common.

It says how it is configured, its inputs belong together, its metadata are in order, and an error or a
termination ends it with a sentence.
"""

import errno
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar, cast

import pyarrow as pa
from dagster import (
    AssetCheckResult,
    AssetExecutionContext,
    Config,
    ConfigurableResource,
    DagsterExecutionInterruptedError,
    DagsterInvariantViolationError,
    DataVersion,
    Failure,
    MaterializeResult,
    RetryRequested,
    TableColumnDep,
    TableColumnLineage,
    TableSchema,
)
from dagster._check import CheckError
from dagster._core.errors import DagsterUserCodeProcessError
from dagster_shared.error import SerializableErrorInfo
from pydantic import BaseModel

from recsys_pipeline.configuration import told_unknown_names
from recsys_pipeline.core.column_lineage import sources_of
from recsys_pipeline.core.errors import InputError, code_of
from recsys_pipeline.core.lineage import Lineage, ancestors_of, with_ancestors
from recsys_pipeline.fingerprints import CONFIGURATION_TAG, INPUT_TAG, configuration_of
from recsys_pipeline.reporting.configuration import told_configuration
from recsys_pipeline.reporting.metadata import facts_metadata, in_order

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


def _nothing_is_changed() -> str:
    return "terminated; what this asset has made before stays as it was"


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


def asset_step(compute: Callable[P, R]) -> Callable[P, R]:
    """Compute an asset from inputs of the same ancestors, which its tables then name; or yield what it says.

    The materialization also says by which configuration it was made, and which state of the warehouse it is.
    Raises, through `classify_errors`, when the inputs do not belong together.
    """
    signature = inspect.signature(compute)
    _SIGNATURES[compute.__name__] = signature

    def recorded(result: Any, args: Any, kwargs: Any) -> Any:
        if not isinstance(result, MaterializeResult):
            return result
        result = _with_metadata_in_order(result)
        arguments = signature.bind(*args, **kwargs).arguments
        # Of an asset that has partitions, Dagster records a digest of theirs.
        inputs = {
            f"{INPUT_TAG}{lineage.asset}": lineage.write_id
            for lineage in map(Lineage.of, arguments.values())
            if lineage
        }
        tags = {**inputs, **(result.tags or {}), CONFIGURATION_TAG: configuration_of(arguments)}
        version = result.data_version
        # What goes through the IO manager gets its version there; what lies elsewhere has none here.
        warehouse = None if isinstance(result.value, dict | pa.Table) else arguments.get("warehouse")
        if version is None and warehouse and warehouse.has(compute.__name__):
            version = DataVersion(warehouse.write_id(compute.__name__))
        return result._replace(tags=tags, data_version=version)

    if inspect.isgeneratorfunction(compute):

        @functools.wraps(compute)
        def steps(*args: P.args, **kwargs: P.kwargs) -> Iterator[Any]:
            with told_if_terminated(_nothing_is_changed), classify_errors():
                _require_known_names()
                _tell_configuration([*args, *kwargs.values()])
                ancestors_of([*args, *kwargs.values()])
                for result in cast("Iterator[Any]", compute(*args, **kwargs)):
                    yield recorded(result, args, kwargs)

        return cast("Callable[P, R]", steps)

    @functools.wraps(compute)
    def step(*args: P.args, **kwargs: P.kwargs) -> R:
        with told_if_terminated(_nothing_is_changed), classify_errors():
            _require_known_names()
            _tell_configuration([*args, *kwargs.values()])
            ancestors = ancestors_of([*args, *kwargs.values()])
            result = recorded(compute(*args, **kwargs), args, kwargs)
        if isinstance(result, MaterializeResult):
            value: Any = result.value
            if isinstance(value, dict):
                value = {name: with_ancestors(table, ancestors) for name, table in value.items()}
            elif isinstance(value, pa.Table):
                value = with_ancestors(value, ancestors)
            lineage = _column_lineage(compute.__name__, result)
            return cast("R", result._replace(value=value, metadata={**(result.metadata or {}), **lineage}))
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


def _tell_configuration(arguments: Iterable[Any]) -> None:
    """Log in what a step is configured, where it can be."""
    arguments = list(arguments)
    contexts = [each for each in arguments if isinstance(each, AssetExecutionContext)]
    for each in arguments:
        if isinstance(each, Config) and not isinstance(each, ConfigurableResource) and contexts:
            contexts[0].log.info(told_configuration(each))


def _with_metadata_in_order(result: MaterializeResult[Any]) -> MaterializeResult[Any]:
    return result._replace(metadata=in_order(result.metadata)) if result.metadata else result


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
