"""Where a table comes from, told by the table itself.

Every asset's tables carry the write ids of all assets they were made from. A write id is a digest of what was
written, these ids included: the same content from the same ancestors has the same id.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Self

import pyarrow as pa

from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.metadata import stored_metadata, with_metadata

_ANCESTORS = "ancestors"
_WRITTEN = "written"


class Lineage(NamedTuple):
    """Where the tables of an asset come from.

    Attributes:
        asset: whose they are.
        write_id: of this state of the asset.
        ancestors: by asset, the write id of the state that they were made from, directly or not.
    """

    asset: str
    write_id: str
    ancestors: Mapping[str, str]

    @classmethod
    def of(cls, value: Any) -> Self | None:
        """The lineage of an asset's table, tables, dataset, or of what has one; None for anything else."""
        if isinstance(found := getattr(value, "lineage", None), cls):
            return found
        if isinstance(value, dict) and value:
            value = next(iter(value.values()))
        if not isinstance(getattr(value, "schema", None), pa.Schema):
            return None
        metadata = stored_metadata(value)
        if _WRITTEN not in metadata:
            return None
        asset, write_id = metadata[_WRITTEN]
        return cls(asset, write_id, metadata.get(_ANCESTORS, {}))


def with_ancestors(table: Any, ancestors: Mapping[str, str]) -> Any:
    """The table, saying what it was made from."""
    return with_metadata(table, {**stored_metadata(table), _ANCESTORS: dict(ancestors)})


def as_written(table: Any, asset: str, write_id: str) -> Any:
    """The table, saying which state of which asset it was read from."""
    return with_metadata(table, {**stored_metadata(table), _WRITTEN: [asset, write_id]})


def ancestors_of(inputs: Iterable[Any]) -> dict[str, str]:
    """By asset, the write ids of everything that these inputs are, and were made from.

    Raises:
        InputError: two of the inputs do not come from the same state of an asset; it says which asset to
            materialize.
    """
    lineages = [lineage for lineage in map(Lineage.of, inputs) if lineage]
    # The furthest upstream first: what is named first must be made again first.
    lineages.sort(key=lambda lineage: len(lineage.ancestors))
    at_hand = {lineage.asset: lineage.write_id for lineage in lineages}
    found: dict[str, tuple[str, str]] = {asset: (write_id, asset) for asset, write_id in at_hand.items()}
    for lineage in lineages:
        for asset, write_id in lineage.ancestors.items():
            if asset in at_hand and at_hand[asset] != write_id:
                raise InputError(
                    f"{lineage.asset} was made from another {asset} than the one at hand: "
                    f"materialize {lineage.asset} again, then what follows it."
                )
            known, by = found.setdefault(asset, (write_id, lineage.asset))
            if known != write_id:
                raise InputError(
                    f"{lineage.asset} and {by} were made from different states of {asset}: "
                    f"materialize {by} and {lineage.asset} again, then what follows them."
                )
    return {asset: write_id for asset, (write_id, _) in found.items()}
