"""A step says how it is configured, its inputs belong together, and its metadata are in order."""

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ParamSpec, TypeVar, cast

import pyarrow as pa
from dagster import (
    AssetCheckResult,
    AssetExecutionContext,
    Config,
    ConfigurableResource,
    DagsterInvariantViolationError,
    DataVersion,
    MaterializeResult,
)
from dagster._check import CheckError
from pydantic import BaseModel

from recsys_pipeline.configuration import told_unknown_names
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.lineage import Lineage, ancestors_of, with_ancestors
from recsys_pipeline.fingerprints import CONFIGURATION_TAG, INPUT_TAG, configuration_of
from recsys_pipeline.reporting.configuration import told_configuration
from recsys_pipeline.reporting.metadata import in_order
from recsys_pipeline.steps.column_lineage import column_lineage
from recsys_pipeline.steps.failures import classify_errors, told_if_terminated

P = ParamSpec("P")
R = TypeVar("R")

_SIGNATURES: dict[str, inspect.Signature] = {}


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
        warehouse = (
            None
            if isinstance(result.value, dict | pa.Table | pa.RecordBatchReader)
            else arguments.get("warehouse")
        )
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
            elif isinstance(value, pa.Table | pa.RecordBatchReader):
                value = with_ancestors(value, ancestors)
            lineage = column_lineage(compute.__name__, result)
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


def _nothing_is_changed() -> str:
    return "terminated; what this asset has made before stays as it was"


def _tell_configuration(arguments: Iterable[Any]) -> None:
    """Log in what a step is configured, where it can be."""
    arguments = list(arguments)
    contexts = [each for each in arguments if isinstance(each, AssetExecutionContext)]
    for each in arguments:
        if isinstance(each, Config) and not isinstance(each, ConfigurableResource) and contexts:
            contexts[0].log.info(told_configuration(each))


def _with_metadata_in_order(result: MaterializeResult[Any]) -> MaterializeResult[Any]:
    return result._replace(metadata=in_order(result.metadata)) if result.metadata else result


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
