"""Tables come back as they went in, and what does not belong together is noticed."""

import uuid

import pyarrow as pa
import pytest
from dagster import AssetKey, DagsterType, Failure, build_input_context, build_output_context

from recsys_pipeline.core.errors import InputError
from recsys_pipeline.storage.tables import notes_of, with_notes
from recsys_pipeline.storage.warehouse import Warehouse, WarehouseIOManager

TABLE = pa.table({"ProductCode": ["007", "8"], "strength": [1.0, 2.5]})


@pytest.fixture(params=["local", "object store"])
def warehouse(request, tmp_path):
    return Warehouse(path=str(tmp_path) if request.param == "local" else f"memory://{uuid.uuid4().hex}")


def test_a_table_comes_back_as_it_went_in(warehouse):
    warehouse.write_table(TABLE, "strengths")

    assert warehouse.read_table("strengths").equals(TABLE)
    assert warehouse.open_table("strengths").to_table().equals(TABLE)


def test_equal_tables_have_equal_fingerprints(warehouse):
    for name, table in [("a", TABLE), ("b", TABLE), ("c", TABLE.slice(1))]:
        warehouse.write_table(table, name)

    assert warehouse.fingerprint("a") == warehouse.fingerprint("b") != warehouse.fingerprint("c")


def test_notes_travel_with_a_table(warehouse):
    warehouse.write_table(with_notes(TABLE, {"seed": 42}), "noted")

    assert notes_of(warehouse.read_table("noted")) == {"seed": 42}
    assert notes_of(TABLE) == {}


def test_a_folder_of_tables_is_read_as_it_was_written_or_not_at_all(warehouse):
    manager = WarehouseIOManager(warehouse=warehouse)
    tables = {"pairs": TABLE, "users": TABLE.slice(1)}

    def write(tables):
        manager.handle_output(build_output_context(asset_key=AssetKey("matrix")), tables)

    write(tables)
    assert {name: table.to_pylist() for name, table in warehouse.read_tables("matrix").items()} == {
        name: table.to_pylist() for name, table in tables.items()
    }

    # A writer killed between two files.
    old = warehouse.read_table("matrix", "users")
    write({"pairs": TABLE.slice(1), "users": TABLE})
    warehouse.write_table(old, "matrix", "users")
    with pytest.raises(InputError, match="tables of different runs: materialize the asset `matrix` again"):
        warehouse.read_tables("matrix")


def test_a_missing_table_says_which_asset_makes_it(warehouse):
    for read in (warehouse.read_table, warehouse.open_table, warehouse.read_tables):
        with pytest.raises(InputError, match="does not exist: materialize the asset `bm25_matrix` again"):
            read("bm25_matrix")


def test_a_broken_table_says_so(warehouse):
    warehouse.table_path("x").parent.mkdir(parents=True, exist_ok=True)
    warehouse.table_path("x").write_bytes(b"rubbish")

    for read in (warehouse.read_table, warehouse.open_table):
        with pytest.raises(InputError, match="is not a readable Parquet file: materialize the asset `x`"):
            read("x")


def test_the_io_manager_fails_without_retry_when_an_input_is_missing(warehouse):
    manager = WarehouseIOManager(warehouse=warehouse)
    table_type = DagsterType(lambda _context, _value: True, name="Table", typing_type=pa.Table)
    context = build_input_context(asset_key=AssetKey("strengths"), dagster_type=table_type)

    with pytest.raises(Failure) as raised:
        manager.load_input(context)
    assert raised.value.allow_retries is False
    assert "materialize the asset `strengths`" in raised.value.description
