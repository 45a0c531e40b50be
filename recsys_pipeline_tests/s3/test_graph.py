"""The whole graph on S3, its feed too."""

import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dagster import AssetSelection

from recsys_pipeline import load_model
from recsys_pipeline.storage.publishing import resume, roll_back
from recsys_pipeline.storage.releases import current_release, problems_of, read_pointer
from recsys_pipeline.storage.warehouse import Warehouse
from recsys_pipeline_tests.conftest import PROJECT
from recsys_pipeline_tests.worlds import (
    TUNED_ALONE,
    failed_checks_of,
    failure_of,
    run_graph,
    write_parity_feedback,
)

pytestmark = pytest.mark.s3

N_ROWS = 200_000


def release_again(feed, warehouse, **config):
    selection = AssetSelection.assets("release")
    return run_graph(feed, warehouse, selection=selection, ops={"release": {"config": config}})


def test_the_graph_runs_releases_rolls_back_and_removes_what_is_old(bucket, tmp_path):
    csv = write_parity_feedback(tmp_path / "feedback.csv")
    (bucket / "feed" / "day.csv").write_bytes(csv.read_bytes())
    feed, warehouse = str(bucket / "feed"), Warehouse(path=str(bucket / "warehouse"))
    first = run_graph(feed, warehouse, ops=TUNED_ALONE, evaluate=True)
    assert first.success
    assert failed_checks_of(first) == {}
    before = {name: warehouse.write_id(name) for name in ("raw_feedback", "bm25_matrix")}
    version = read_pointer(warehouse.root).version
    assert run_graph(feed, warehouse, ops=TUNED_ALONE, evaluate=True).success

    # The same data gives the same tables, and a new release.
    assert before == {name: warehouse.write_id(name) for name in before}
    assert read_pointer(warehouse.root).previous == version
    assert list(problems_of(current_release(warehouse.root))) == []
    model = load_model(warehouse.path)
    assert model.recommend(7)["item"].str[2:].astype(int).mod(2).eq(1).all()

    roll_back(warehouse.root, None, "stale")
    assert load_model(warehouse.path).manifest["version"] == version
    assert "(stale): `recsys releases resume` ends that" in failure_of(release_again(feed, warehouse))
    resume(warehouse.root)
    for _ in range(2):
        assert release_again(feed, warehouse, keep_releases=1).success
    kept = read_pointer(warehouse.root)
    assert version not in kept.published
    there = warehouse.root.fs.find((warehouse.root / "releases").path)
    folders = {name.split("/")[-2] for name in there} - {"releases"}
    assert folders == {kept.previous, kept.version} == set(kept.published)


def test_a_feed_in_parquet_is_read(bucket, tmp_path):
    table = pa.table({"UserID": [1, 2] * 50, "ProductCode": ["00a", "b"] * 50, "Event": ["view"] * 100})
    pq.write_table(table, tmp_path / "day.parquet")
    for day in ("1", "2"):
        (bucket / "feed" / day / "day.parquet").write_bytes((tmp_path / "day.parquet").read_bytes())
    warehouse = Warehouse(path=str(tmp_path / "warehouse"))
    selection = AssetSelection.assets("raw_feedback")
    assert run_graph(str(bucket / "feed" / "*" / "*.parquet"), warehouse, selection=selection).success

    assert warehouse.read_table("raw_feedback").num_rows == 200


@pytest.mark.parametrize("denied", ["PUT", "HEAD"])
def test_a_lack_of_permission_fails_the_run_for_good_and_says_where(bucket, server, tmp_path, denied):
    csv = write_parity_feedback(tmp_path / "feedback.csv")
    server.before = lambda method, *_: 403 if method == denied else None
    warehouse = Warehouse(path=str(bucket / "warehouse"))
    result = run_graph(csv, warehouse, selection=AssetSelection.assets("raw_feedback"))

    assert f"{warehouse.root}" in failure_of(result)
    assert failure_of(result).endswith(
        ": permission is denied: let the user of this process read and write it."
    )


READ = """
import sys
from recsys_pipeline.storage.feedback import Feedback
from recsys_pipeline.storage.feeds.parquet_rows import read_parquet
from recsys_pipeline.storage.feeds.rows import Columns
from recsys_pipeline.storage.warehouse import Warehouse
warehouse = Warehouse(path=sys.argv[1])
events = warehouse.open_table("raw_feedback")
assert events.count_rows() == events.to_table(columns=["UserID"]).num_rows
batches = events.to_batches(batch_readahead=4)
next(batches)
assert warehouse.schema_of("raw_feedback").names == events.schema.names
table = warehouse.path_of("raw_feedback", "raw_feedback")
next(read_parquet(table, Columns.of_feedback(Feedback(path=str(table)))))
"""


def test_a_process_that_ends_in_the_middle_of_reading_ends_well(bucket):
    ids = pa.array(range(N_ROWS))
    table = pa.table({"UserID": ids, "ProductCode": ids, "Event": pa.array(["view"] * N_ROWS)})
    batches = pa.RecordBatchReader.from_batches(table.schema, table.to_batches(max_chunksize=N_ROWS // 10))
    warehouse = Warehouse(path=str(bucket / "warehouse"))
    warehouse.write_tables("raw_feedback", {"raw_feedback": batches})

    # A reader that leaves Arrow's threads a file object of Python's may abort.
    command = [sys.executable, "-c", READ, warehouse.path]
    runs = [subprocess.Popen(command, cwd=PROJECT, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    assert [(run.communicate()[1], run.returncode) for run in runs] == [("", os.EX_OK)] * 3
