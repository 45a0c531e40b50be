"""Tables come back as they went in, all of one run, and know which."""

import shutil
import threading

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from dagster import AssetKey, DagsterType, Failure, build_input_context, build_output_context
from upath import UPath

from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.lineage import Lineage, ancestors_of, with_ancestors
from recsys_pipeline.core.metadata import stored_metadata, with_metadata
from recsys_pipeline.storage.io_manager import WarehouseIOManager
from recsys_pipeline.storage.warehouse import Warehouse
from recsys_pipeline_tests.storage.bucket import new_bucket

TABLE = pa.table({"ProductCode": ["007", "8"], "strength": [1.0, 2.5]})
MATRIX = {"pairs": TABLE, "users": TABLE.slice(1)}


@pytest.fixture(params=["local", "object store"])
def warehouse(request, tmp_path, monkeypatch):
    return Warehouse(path=str(tmp_path if request.param == "local" else new_bucket(monkeypatch)))


@pytest.fixture
def local(tmp_path):
    return Warehouse(path=str(tmp_path))


def content(tables):
    return {name: table.to_pydict() for name, table in tables.items()}


def test_tables_come_back_as_they_went_in(warehouse):
    warehouse.write_tables("strengths", {"strengths": TABLE})
    warehouse.write_tables("matrix", MATRIX)

    assert warehouse.read_table("strengths").to_pydict() == TABLE.to_pydict()
    assert warehouse.open_table("strengths").to_table().to_pydict() == TABLE.to_pydict()
    assert content(warehouse.read_tables("matrix")) == content(MATRIX)
    assert warehouse.read_table("matrix", "users").to_pydict() == MATRIX["users"].to_pydict()


def test_what_is_said_of_a_table_travels_with_it(warehouse):
    warehouse.write_tables("noted", {"noted": with_metadata(TABLE, {"seed": 42})})

    assert stored_metadata(warehouse.read_table("noted"))["seed"] == 42
    assert stored_metadata(warehouse.open_table("noted"))["seed"] == 42


def test_a_table_that_was_read_knows_its_asset_its_state_and_its_ancestors(warehouse):
    warehouse.write_tables("strengths", {"strengths": TABLE})
    strengths = warehouse.read_table("strengths")
    assert Lineage.of(strengths) == ("strengths", warehouse.write_id("strengths"), {})

    made = {name: with_ancestors(table, ancestors_of([strengths])) for name, table in MATRIX.items()}
    warehouse.write_tables("matrix", made)
    expected = ("matrix", warehouse.write_id("matrix"), {"strengths": warehouse.write_id("strengths")})
    assert [Lineage.of(table) for table in warehouse.read_tables("matrix").values()] == [expected] * 2
    assert Lineage.of(warehouse.read_table("matrix", "users")) == expected


def test_a_stream_knows_where_it_comes_from_too(warehouse):
    warehouse.write_tables("strengths", {"strengths": TABLE})

    assert Lineage.of(warehouse.open_table("strengths")).write_id == warehouse.write_id("strengths")


def test_the_same_content_from_the_same_ancestors_has_the_same_write_id(warehouse):
    def write_id(table, **ancestors):
        warehouse.write_tables("x", {"x": with_ancestors(table, ancestors)})
        return warehouse.write_id("x")

    first = write_id(TABLE, strengths="a")

    assert write_id(TABLE, strengths="b") != first
    assert write_id(TABLE.slice(1), strengths="a") != first
    assert write_id(TABLE, strengths="a") == first


def test_a_table_of_part_files_that_another_engine_wrote_is_read_as_any_other(warehouse):
    with warehouse.replacing("factors") as folder:
        for name in ("users", "items"):
            (folder / f"{name}.parquet").mkdir()
            (folder / f"{name}.parquet" / "_recsys_pipeline.json").write_text(
                '{"ancestors": {"matrix": "m1"}}'
            )
            for number in range(2):
                part = folder / f"{name}.parquet" / f"part-{number}.parquet"
                pq.write_table(pa.table({"factor": [number], "of": [name]}), part)

    tables = warehouse.read_tables("factors")
    assert content(tables) == {
        "items": {"factor": [0, 1], "of": ["items", "items"]},
        "users": {"factor": [0, 1], "of": ["users", "users"]},
    }
    assert Lineage.of(tables["users"]) == ("factors", warehouse.write_id("factors"), {"matrix": "m1"})


def test_pandas_gets_all_tables_of_one_run_by_plain_path_while_they_are_replaced(local, tmp_path):
    def write(number):
        table = pa.table({"run": [number]})
        local.write_tables("matrix", {"pairs": table, "users": table})

    def read():
        # A folder that is resolved once names one state, which goes with the second replacement.
        folder = (tmp_path / "matrix").resolve()
        try:
            return [pd.read_parquet(folder / f"{name}.parquet")["run"][0] for name in ("pairs", "users")]
        except FileNotFoundError:
            return read()

    seen, done = [], threading.Event()

    def read_on():
        while not done.is_set():
            seen.append(read())

    write(0)
    reader = threading.Thread(target=read_on)
    reader.start()
    for number in range(1, 15):
        write(number)
    done.set()
    reader.join()

    assert all(pairs == users for pairs, users in seen)
    assert len({pairs for pairs, _ in seen}) > 2
    assert read() == [14, 14]


def test_arrow_reads_by_plain_path_too(local, tmp_path):
    local.write_tables("strengths", {"strengths": TABLE})
    local.write_tables("matrix", MATRIX)

    assert pq.read_table(tmp_path / "strengths.parquet").equals(TABLE)
    assert pq.read_table(tmp_path / "matrix" / "users.parquet").equals(MATRIX["users"])
    assert local.path_of("strengths") == UPath(tmp_path / "strengths.parquet")
    assert local.path_of("matrix", "users") == UPath(tmp_path / "matrix" / "users.parquet")


def test_a_table_that_was_never_written_says_which_asset_makes_it(warehouse):
    assert not warehouse.has("matrix")
    for read in (warehouse.read_table, warehouse.open_table, warehouse.read_tables, warehouse.write_id):
        with pytest.raises(InputError, match="does not exist: materialize the asset `matrix`"):
            read("matrix")


def test_a_table_that_the_asset_does_not_have_says_so(warehouse):
    warehouse.write_tables("matrix", MATRIX)

    assert warehouse.has("matrix")
    with pytest.raises(InputError, match=r"lacks .*items.parquet.*: materialize the asset `matrix` again"):
        warehouse.read_table("matrix", "items")


@pytest.mark.parametrize("name", ["pairs", "users"])
def test_a_flipped_bit_in_any_table_of_an_asset_is_noticed_by_whoever_reads_one_of_them(warehouse, name):
    warehouse.write_tables("matrix", MATRIX)
    file = warehouse.root / ".tables" / "matrix" / warehouse.write_id("matrix") / f"{name}.parquet"
    flipped = bytearray(file.read_bytes())
    flipped[len(flipped) // 2] ^= 1
    file.write_bytes(flipped)

    for read in (warehouse.read_tables, lambda asset: warehouse.read_table(asset, "users")):
        with pytest.raises(InputError, match=rf"{name}.parquet is not what was written.*the asset `matrix`"):
            read("matrix")


def test_rubbish_instead_of_parquet_says_so(warehouse):
    warehouse.write_tables("x", {"x": TABLE})
    (warehouse.root / ".tables" / "x" / warehouse.write_id("x") / "x.parquet").write_bytes(b"rubbish")

    for read in (warehouse.read_table, warehouse.open_table):
        with pytest.raises(InputError, match=r"x.parquet is not what was written.*the asset `x` again"):
            read("x")


# --- The IO manager ---


def hand_over(warehouse, asset, value):
    """What it says of the tables of an asset that it keeps."""
    with build_output_context(asset_key=AssetKey(asset)) as context:
        WarehouseIOManager(warehouse=warehouse).handle_output(context, value)
        return context.consume_logged_metadata()


def ask_for(warehouse, asset, typing_type):
    dagster_type = DagsterType(lambda _context, _value: True, name="Any", typing_type=typing_type)
    with build_input_context(asset_key=AssetKey(asset), dagster_type=dagster_type) as context:
        return WarehouseIOManager(warehouse=warehouse).load_input(context)


def test_the_io_manager_keeps_a_table_or_several_and_hands_them_on_as_they_are_asked_for(warehouse):
    hand_over(warehouse, "strengths", TABLE)
    hand_over(warehouse, "matrix", MATRIX)

    assert ask_for(warehouse, "strengths", pa.Table).to_pydict() == TABLE.to_pydict()
    assert isinstance(ask_for(warehouse, "strengths", ds.Dataset), ds.Dataset)
    assert content(ask_for(warehouse, "matrix", dict[str, pa.Table])) == content(MATRIX)


def test_it_says_how_many_rows_of_which_columns_lie_where(local, tmp_path):
    metadata = hand_over(local, "strengths", TABLE)

    assert metadata["dagster/row_count"].value == 2
    assert [column.name for column in metadata["dagster/column_schema"].value.columns] == TABLE.column_names
    assert metadata["where it is"].value == str(tmp_path / "strengths.parquet")
    assert hand_over(local, "matrix", MATRIX)["where it is"].value == str(tmp_path / "matrix")


def test_it_fails_without_retry_when_an_input_is_missing_or_damaged(local, tmp_path):
    def failure():
        with pytest.raises(Failure) as raised:
            ask_for(local, "strengths", pa.Table)
        assert raised.value.allow_retries is False
        return raised.value.description

    assert "does not exist: materialize the asset `strengths`" in failure()
    local.write_tables("strengths", {"strengths": TABLE})
    (tmp_path / "strengths.parquet").write_bytes(b"rubbish")
    assert "strengths.parquet is not what was written" in failure()
    shutil.rmtree(tmp_path / ".tables" / "strengths" / local.write_id("strengths"))
    assert "materialize the asset `strengths` again" in failure()
