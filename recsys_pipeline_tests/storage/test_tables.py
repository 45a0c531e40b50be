"""Reading Parquet files."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from recsys_pipeline.storage.tables import read_parquet

_TABLE = pa.table({"user": [1, 2], "item": ["a", "b"]})


@pytest.mark.parametrize("name", ["table.parquet", "memory://tables/table.parquet", "day=1/table.parquet"])
def test_a_table_is_read_from_a_disk_and_from_an_object_store(tmp_path: Path, name: str) -> None:
    path = UPath(name) if "://" in name else UPath(tmp_path) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        pq.write_table(_TABLE, file)

    assert read_parquet(path).equals(_TABLE)
    assert read_parquet(path, ["item"]).equals(_TABLE.select(["item"]))


@pytest.mark.parametrize("where", ["UPath({path!r})", "UPath('memory://end/t.parquet')"])
def test_a_process_that_ends_right_after_reading_ends_well(tmp_path: Path, where: str) -> None:
    path = str(tmp_path / "table.parquet")
    pq.write_table(_TABLE, path)
    script = (
        "from upath import UPath\n"
        "from recsys_pipeline.storage.tables import read_parquet\n"
        f"path = {where.format(path=path)}\n"
        f"path.write_bytes(UPath({path!r}).read_bytes())\n"
        "read_parquet(path)\n"
    )

    # A reader that leaves Arrow's threads a file object of Python's aborts in about every other run.
    runs = [subprocess.run([sys.executable, "-c", script], capture_output=True, text=True) for _ in range(5)]

    assert [(run.returncode, run.stderr) for run in runs] == [(0, "")] * 5
