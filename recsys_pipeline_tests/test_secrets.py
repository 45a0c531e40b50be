"""A password that somebody puts where a location belongs reaches no log, no event and no artefact."""

import logging
import os
import sqlite3
import subprocess
import sys

import pytest
from dagster import DagsterInstance, materialize

from recsys_pipeline.definitions import defs
from recsys_pipeline.storage.feedback import Feedback
from recsys_pipeline.storage.io_manager import WarehouseIOManager
from recsys_pipeline.storage.warehouse import Warehouse
from recsys_pipeline_tests.worlds import SMALL_GRID

SECRET = "hunter2-marked"
LOCATION = f"simplecache::s3://user:{SECRET}@bucket/x"


def places_with_the_secret(folder):
    """Files that hold it; of a database, the tables."""
    found = []
    for path in (path for path in folder.rglob("*") if path.is_file()):
        if SECRET.encode() not in path.read_bytes():
            continue
        if path.suffix != ".db":
            found.append(path.name)
            continue
        with sqlite3.connect(path) as database:
            tables = [
                name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            ]
            found += [
                f"{path.name}: {table}"
                for table in tables
                if any(SECRET in str(row) for row in database.execute(f"SELECT * FROM {table}"))
            ]
    return found


def run_with(resources, ops, instance):
    warehouse = Warehouse.configure_at_launch()
    return materialize(
        [*defs.assets, *defs.asset_checks],
        resources={
            "feedback": Feedback.configure_at_launch(),
            "warehouse": warehouse,
            "io_manager": WarehouseIOManager(warehouse=warehouse),
        },
        run_config={"resources": resources, "ops": ops},
        instance=instance,
        raise_on_error=False,
    )


@pytest.mark.parametrize("field", ["feedback", "warehouse", "leave_one_out_split", "evaluation", "delivery"])
def test_not_from_the_configuration_of_a_run(field, parity_csv, tmp_path, capfd, caplog):
    resources = {
        name: {"config": {"path": LOCATION if name == field else str(path)}}
        for name, path in (("feedback", parity_csv), ("warehouse", tmp_path / "warehouse"))
    }
    ops = {"grid_search_results": {"config": SMALL_GRID}}
    if field == "delivery":
        ops[field] = {"config": {"database": f"postgresql://user:{SECRET}@host/shop"}}
    elif field not in resources:
        ops[field] = {"config": {"strategy": "file", "file": LOCATION}}
    caplog.set_level(logging.DEBUG)
    (tmp_path / "home").mkdir()
    with DagsterInstance.local_temp(str(tmp_path / "home")) as instance:
        result = run_with(resources, ops, instance)
        told = str([event.message for event in result.all_events])

    assert not result.success
    printed = capfd.readouterr()
    assert SECRET not in told + printed.out + printed.err + caplog.text
    assert "holds a password or key" in printed.out + printed.err + caplog.text
    # Dagster keeps what was typed into the Launchpad with the run; nothing else has it.
    assert places_with_the_secret(tmp_path) == ["runs.db: runs"]


def test_not_from_the_environment(tmp_path):
    dagster = os.path.join(os.path.dirname(sys.executable), "dagster")
    command = [dagster, "asset", "materialize", "--select", "*", "-m", "recsys_pipeline.definitions"]
    run = subprocess.run(
        command,
        env={**os.environ, "RECSYS_WAREHOUSE": LOCATION, "DAGSTER_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode != 0
    assert "RECSYS_WAREHOUSE: the URL holds a password or key" in run.stderr + run.stdout
    assert SECRET not in run.stderr + run.stdout
    assert places_with_the_secret(tmp_path) == []
