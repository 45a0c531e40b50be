"""From which columns of other assets those of an asset are made, as the UI shows it."""

from typing import Any

import pyarrow as pa
from dagster import MaterializeResult, TableColumnDep, TableColumnLineage, TableSchema

from recsys_pipeline.core.column_lineage import sources_of


def column_lineage(asset: str, result: MaterializeResult[Any]) -> dict[str, TableColumnLineage]:
    """That of the table that this result holds, or describes, as metadata; nothing where there is none."""
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
