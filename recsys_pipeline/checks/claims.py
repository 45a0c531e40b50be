"""The form of a claim: a name that says what is true, and a message with the numbers, also where it holds."""

import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from dagster import (
    AssetCheckExecutionContext,
    AssetCheckResult,
    AssetCheckSeverity,
    AssetCheckSpec,
    AssetIn,
    DagsterInvariantViolationError,
    Failure,
    multi_asset_check,
)

from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.lineage import ancestors_of
from recsys_pipeline.steps.failures import classify_errors

_CONSEQUENCE = "What follows is not made, and readers keep what they have"


def claim(
    name: str, passed: bool, told: str, *, warns: bool = False, metadata: Mapping[str, Any] | None = None
) -> AssetCheckResult:
    """What became of a claim.

    Args:
        name: of the claim.
        passed: whether it holds.
        told: one sentence with the numbers.
        warns: whether it only warns where it does not hold.
        metadata: figures.
    """
    return AssetCheckResult(
        check_name=name,
        passed=bool(passed),
        description=told,
        severity=AssetCheckSeverity.WARN if warns else AssetCheckSeverity.ERROR,
        metadata=dict(metadata or {}),
    )


def claims(
    asset: str,
    of: Mapping[str, str],
    *,
    inputs: Collection[str] = (),
    blocking: Collection[str] = (),
) -> Callable[[Callable[..., Iterable[AssetCheckResult]]], Any]:
    """Several claims about an asset, counted by one function, which yields what became of each.

    Inputs of different ancestors, or such as cannot be read, make all of them false.

    Args:
        asset: its name.
        of: what each claims, by name.
        inputs: names of the assets whose tables the function takes, the asset itself among them.
        blocking: those without which no later asset runs.
    """
    specs = [
        AssetCheckSpec(
            name,
            asset=asset,
            description=told,
            blocking=name in blocking,
            additional_deps=[other for other in inputs if other != asset],
        )
        for name, told in of.items()
    ]

    def decorate(compute: Callable[..., Iterable[AssetCheckResult]]) -> Any:
        @functools.wraps(compute)
        def step(*args: Any, **kwargs: Any) -> Iterator[AssetCheckResult]:
            with classify_errors():
                try:
                    ancestors_of([*args, *kwargs.values()])
                    found = list(compute(*args, **kwargs))
                except InputError as error:
                    found = [claim(name, False, str(error)) for name in of]
            wanted = _wanted(of)
            found = [result for result in found if result.check_name in wanted]
            yield from found
            if told := [
                f"{asset}: {result.check_name} does not hold: {(result.description or '').rstrip('.')}"
                for result in found
                if not result.passed and result.check_name in blocking
            ]:
                # Dagster would stop here too, and name the claims without the reason.
                raise Failure(description=f"{'; '.join(told)}. {_CONSEQUENCE}.", allow_retries=False)

        # The UI runs a check by itself only where the others may be left out.
        return multi_asset_check(
            name=compute.__name__,
            specs=specs,
            ins={name: AssetIn(name) for name in inputs},
            can_subset=True,
        )(step)

    return decorate


def _wanted(names: Collection[str]) -> Collection[str]:
    """Those of the claims that are asked for."""
    try:
        context = AssetCheckExecutionContext.get()
    except DagsterInvariantViolationError:  # by itself
        return names
    return {key.name for key in context.selected_asset_check_keys}


def batches(table: ds.Dataset, columns: Collection[str], rows: int = 1 << 20) -> Iterator[pa.RecordBatch]:
    """These columns as a stream; nothing is held but the batch at hand."""
    yield from table.scanner(columns=list(columns), batch_size=rows).to_batches()


def n_true(condition: Any) -> int:
    """How often a condition holds; null counts as not."""
    return pc.sum(condition).as_py() or 0


def n_not(condition: Any) -> int:
    """How often a condition does not hold, or is null."""
    return len(condition) - n_true(condition)
