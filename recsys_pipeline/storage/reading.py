"""The tables of an asset as they were written, verified; without Dagster, for those who only look."""

import pyarrow as pa
from upath import UPath

from recsys_pipeline.core.lineage import as_written
from recsys_pipeline.storage import tables
from recsys_pipeline.storage.states import States


def read_table(warehouse: UPath, asset: str, name: str | None = None) -> pa.Table:
    """One table of an asset; without a name, the one that is called as the asset is.

    Raises:
        InputError: there is none, or it is not what was written.
    """
    table, write_id = States(warehouse, asset).read(
        lambda folder, _: tables.read_table(folder / f"{name or asset}.parquet")
    )
    return as_written(table, asset, write_id)
