"""One door to a table: a file or a folder of part files, on a disk or in an object store."""

import os
import subprocess
import sys
import tempfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from recsys_pipeline.core.metadata import KEY, stored_metadata, with_metadata
from recsys_pipeline.storage.tables import open_table, read_table, write_table
from recsys_pipeline_tests.storage.bucket import new_bucket

TABLE = with_metadata(pa.table({"user": [1, 2, 3], "item": ["a", "b", "c"]}), {"seed": 42})


@pytest.fixture(params=["local", "object store"])
def root(request, tmp_path, monkeypatch):
    return UPath(tmp_path) if request.param == "local" else new_bucket(monkeypatch)


def put_file(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        pq.write_table(TABLE, file)


def put_parts(path):
    """As Spark leaves a table: parts, checksums, an empty marker; with what we say of it in one more file."""
    path.mkdir(parents=True, exist_ok=True)
    for number in range(3):
        part = TABLE.slice(number, 1).replace_schema_metadata({"org.apache.spark.version": "4"})
        with (path / f"part-0000{number}.snappy.parquet").open("wb") as file:
            pq.write_table(part, file)
        (path / f".part-0000{number}.snappy.parquet.crc").write_bytes(b"crc")
    (path / "_SUCCESS").write_bytes(b"")
    (path / "_recsys_pipeline.json").write_text('{"seed": 42}')


@pytest.mark.parametrize("put", [put_file, put_parts])
@pytest.mark.parametrize("name", ["table.parquet", "day=1/table.parquet"])
def test_a_table_is_read_whole_or_by_columns_or_as_a_stream_with_what_is_said_of_it(root, put, name):
    path = root / name
    put(path)

    for table in (read_table(path), open_table(path).to_table()):
        assert table.to_pydict() == TABLE.to_pydict()
        assert stored_metadata(table) == {"seed": 42}
    assert read_table(path, ["item"]).to_pydict() == {"item": ["a", "b", "c"]}
    assert stored_metadata(open_table(path)) == {"seed": 42}


def test_what_is_said_after_the_last_row_is_not_lost(root):
    path = root / "table.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = TABLE.replace_schema_metadata(None)
    with path.open("wb") as file, pq.ParquetWriter(file, plain.schema) as writer:
        writer.write_table(plain)
        writer.add_key_value_metadata({KEY: '{"rows": 3}'})

    assert stored_metadata(read_table(path)) == {"rows": 3}
    assert stored_metadata(open_table(path)) == {"rows": 3}


@pytest.mark.parametrize("put", [put_file, put_parts])
def test_a_table_of_an_object_store_is_fetched_once_and_leaves_nothing_on_this_machine(
    put, tmp_path, monkeypatch
):
    path = new_bucket(monkeypatch) / "table.parquet"
    put(path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    table = open_table(path)
    path.fs.rm(path.path, recursive=True)

    assert table.to_table(columns=["item"]).to_pydict() == {"item": ["a", "b", "c"]}
    assert table.count_rows() == 3
    assert list(tmp_path.iterdir()) == []


def test_a_table_comes_back_as_it_was_written(tmp_path):
    write_table(TABLE, tmp_path / "table.parquet")

    assert read_table(UPath(tmp_path / "table.parquet")).equals(TABLE, check_metadata=True)


@pytest.mark.runs
def test_a_process_that_ends_right_after_reading_ends_well(tmp_path):
    path = str(tmp_path / "table.parquet")
    pq.write_table(TABLE, path)
    script = (
        "from upath import UPath\n"
        "from recsys_pipeline.storage.tables import read_table\n"
        f"local, store = UPath({path!r}), UPath('memory://end/table.parquet')\n"
        "store.write_bytes(local.read_bytes())\n"
        "read_table(local)\n"
        "read_table(store)\n"
    )

    # A reader that leaves Arrow's threads a file object of Python's aborts in about every other run.
    command = [sys.executable, "-c", script]
    runs = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    ends = [(run.communicate()[1], run.returncode) for run in runs]

    assert ends == [("", os.EX_OK)] * 4
