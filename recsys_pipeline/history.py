"""What earlier runs said of an asset, as Dagster keeps it."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from dagster import AssetKey, DagsterInstance


class Past(NamedTuple):
    """One materialization.

    Attributes:
        run_id: of the run that made it.
        when: it was recorded, UTC.
        metadata: what it said, by name, as plain values.
    """

    run_id: str
    when: datetime
    metadata: Mapping[str, Any]

    def figure(self, name: str) -> float | None:
        """A number that it said; None where it did not."""
        value = self.metadata.get(name)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def past_materializations(
    instance: DagsterInstance, asset: str, most: int = 30, without_run: str = ""
) -> list[Past]:
    """The last materializations of an asset, the oldest first.

    Args:
        instance: that keeps the history.
        asset: its name.
        most: that are looked at.
        without_run: a run that is left out: the present one.
    """
    records = instance.fetch_materializations(AssetKey(asset), limit=most + 1).records
    found = []
    for record in records:
        made = record.asset_materialization
        if made is None or (without_run and record.run_id == without_run):
            continue
        metadata = {name: value.value for name, value in made.metadata.items()}
        found.append(Past(record.run_id, datetime.fromtimestamp(record.timestamp, UTC), metadata))
    return found[:most][::-1]
