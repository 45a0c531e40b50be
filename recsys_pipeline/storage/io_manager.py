"""How Dagster keeps the tables of an asset in the warehouse, and hands them on."""

from pathlib import PurePath
from typing import Any, get_args

import pyarrow as pa
import pyarrow.dataset as ds
from dagster import (
    ConfigurableIOManager,
    DagsterInvariantViolationError,
    DataVersion,
    InputContext,
    MetadataValue,
    OutputContext,
    ResourceDependency,
    TableColumn,
    TableSchema,
)

from recsys_pipeline.core.card import Card
from recsys_pipeline.core.columns import description_of
from recsys_pipeline.core.factors import Rows
from recsys_pipeline.core.interactions import Datasets, Tables
from recsys_pipeline.core.model import Model
from recsys_pipeline.reporting.metadata import WHERE_IT_IS
from recsys_pipeline.steps.failures import classify_errors
from recsys_pipeline.storage.warehouse import Warehouse


def table_metadata(schema: pa.Schema, n_rows: int, path: object) -> dict[str, Any]:
    """Rows, columns and path of a table, under the keys for which Dagster has sections of its own."""
    columns = [
        TableColumn(field.name, str(field.type), description=description_of(field.name)) for field in schema
    ]
    return {
        "dagster/row_count": n_rows,
        "dagster/column_schema": TableSchema(columns=columns),
        WHERE_IT_IS: MetadataValue.path(path if isinstance(path, PurePath) else str(path)),
    }


class WarehouseIOManager(ConfigurableIOManager):
    """Keeps a table as `<asset>.parquet`, a dictionary of tables as `<asset>/<name>.parquet`.

    Where one of several tables is called as the asset is, all lie beside each other in the warehouse. A table
    is handed on as `pyarrow.Table`, or as `pyarrow.dataset.Dataset` to be read as a stream or by columns.
    """

    warehouse: ResourceDependency[Warehouse]

    @classify_errors()
    def handle_output(self, context: OutputContext, obj: Rows | dict[str, Rows]) -> None:
        """Replace the tables and add path, rows and columns to the materialization."""
        asset = context.asset_key.path[-1]
        tables = obj if isinstance(obj, dict) else {asset: obj}
        n_rows = self.warehouse.write_tables(asset, tables)
        shown = asset if asset in tables else next(iter(tables))
        path = self.warehouse.path_of(asset)
        context.add_output_metadata(table_metadata(tables[shown].schema, n_rows[shown], path))
        try:
            step = context.step_context
        except DagsterInvariantViolationError:  # no step, only tables to keep
            return
        # A digest of the content and its ancestors: equal content from equal ancestors has the same.
        step.set_data_version(context.asset_key, DataVersion(self.warehouse.write_id(asset)))

    @classify_errors()
    def load_input(self, context: InputContext) -> pa.Table | ds.Dataset | Model | Card | Tables | Datasets:
        """Read what the asset asks for by the type of its argument."""
        asset = context.asset_key.path[-1]
        wanted = context.dagster_type.typing_type
        if wanted is ds.Dataset:
            return self.warehouse.open_table(asset)
        if wanted is pa.Table:
            return self.warehouse.read_table(asset)
        if wanted is Card:
            return self.warehouse.read_card(asset)
        if wanted is Model:
            return self.warehouse.open_model(asset)
        if get_args(wanted)[-1] is ds.Dataset:
            return self.warehouse.open_tables(asset)
        return self.warehouse.read_tables(asset)
