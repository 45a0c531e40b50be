"""What a claim said in earlier runs, and whether today is like them."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from dagster import AssetCheckExecutionContext, AssetCheckKey, AssetKey, DagsterEventType

from recsys_pipeline import settings

# Of so many of the last runs the median is what is usual.
_LAST = 7
WARNS = settings.UNUSUAL == "warn"


def past_figures(context: AssetCheckExecutionContext, asset: str, name: str) -> list[Mapping[str, Any]]:
    """What a claim told in its last runs but for the present one, the oldest first; at most seven.

    It is what the claim itself has noted, so that nothing but its own code has to agree. Without DAGSTER_HOME
    Dagster keeps nothing, and every run is the first.
    """
    key = AssetCheckKey(AssetKey(asset), name)
    records = context.instance.event_log_storage.get_asset_check_execution_history(key, limit=_LAST + 1)
    found: list[Mapping[str, Any]] = []
    for record in records:
        event = record.event.dagster_event if record.event else None
        is_told = event is not None and event.event_type is DagsterEventType.ASSET_CHECK_EVALUATION
        if not is_told or record.run_id == context.run.run_id:
            continue
        assert event is not None
        metadata = event.asset_check_evaluation_data.metadata
        found.append({name: value.value for name, value in metadata.items()})
    return found[:_LAST][::-1]


def usual(figures: Sequence[float]) -> float | None:
    """The median; None of nothing."""
    return statistics.median(figures) if figures else None


def first_run(what: str) -> str:
    """What a claim says where there is nothing to compare with."""
    return f"{what}; no earlier run is known, so that there is nothing to compare with."


def distance(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Half the sum of the differences of two distributions: the share that would have to change its kind."""
    totals = [sum(each.values()) or 1 for each in (one, other)]
    names = {*one, *other}
    differing = sum(abs(one.get(name, 0) / totals[0] - other.get(name, 0) / totals[1]) for name in names)
    return differing / 2
