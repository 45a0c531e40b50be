"""A password that somebody puts where a location belongs reaches no log, no event and no artefact."""

import ast
import gzip
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import traceback
import zlib
from contextlib import closing, suppress

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
import yaml
from dagster import DagsterInstance, asset, materialize

from recsys_pipeline.assets.delivery import delivery
from recsys_pipeline.assets.feedback import raw_feedback
from recsys_pipeline.assets.tracking import mlflow_run
from recsys_pipeline.configuration import InvalidConfigurationError
from recsys_pipeline.definitions import defs
from recsys_pipeline.steps import failures
from recsys_pipeline.storage.feedback import Feedback
from recsys_pipeline.storage.io_manager import WarehouseIOManager
from recsys_pipeline.storage.warehouse import Warehouse
from recsys_pipeline_tests.assets.test_delivery import publish_tables
from recsys_pipeline_tests.conftest import PROJECT
from recsys_pipeline_tests.worlds import SMALL_GRID, TUNED_ALONE

SECRET = "hunter2-marked"
LOCATION = f"simplecache::s3://user:{SECRET}@bucket/x"


# Variables by which credentials are given, as they should be; and settings whose address is a secret.
VARIABLES = [
    *("PGPASSWORD", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AZURE_STORAGE_SAS_TOKEN"),
    *("AZURE_STORAGE_CONNECTION_STRING", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"),
]
ADDRESSES = {"RECSYS_ALERT_WEBHOOK": f"https://hooks.example.org/services/{SECRET}"}
LOCATIONS = [
    *("RECSYS_FEEDBACK", "RECSYS_WAREHOUSE", "RECSYS_CATALOGUE", "RECSYS_ALLOW_LIST", "RECSYS_DENY_LIST"),
    *("RECSYS_RUN_CONFIG", "RECSYS_DELIVERY", "RECSYS_MLFLOW"),
]
REFUSED = [
    f"https://user:{SECRET}@host/x",
    f"s3://user:{SECRET}@bucket/x",
    f"https://host/x?token={SECRET}",
    f"https://account.blob.core.windows.net/c/x?sv=2024-11-04&sp=r&sig={SECRET}",
    f"abfs://container@account.dfs.core.windows.net/x?sig={SECRET}",
    f"postgresql://user:{SECRET}@host/shop",
    f"postgresql://host/shop?password={SECRET}",
]


def contents_of(path):
    """What a file holds, as bytes: as it is, and if it is compressed also what it is made of."""
    yield path.name, path.read_bytes()
    if path.suffix == ".gz":
        yield path.name, gzip.decompress(path.read_bytes())
    if path.suffix in (".parquet", ".arrow"):
        table = pq.read_table(path) if path.suffix == ".parquet" else feather.read_table(path)
        yield path.name, f"{table.schema.metadata} {table.to_pylist()}".encode()
    if path.suffix == ".db":
        with closing(sqlite3.connect(path)) as database:
            names = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            for (name,) in names:
                for row in database.execute(f"SELECT * FROM {name}"):
                    for value in row:
                        yield f"{path.name}: {name}", plain(value)


def plain(value):
    """A value of a database as bytes; Dagster compresses what is large."""
    content = value if isinstance(value, bytes) else str(value).encode()
    with suppress(zlib.error):
        return zlib.decompress(content)
    return content


def places_with_the_secret(folder):
    """Files that hold it; of a database, the tables."""
    found = {
        place
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        for place, content in contents_of(path)
        if SECRET.encode() in content
    }
    # Where a table has it, so has its file.
    return sorted(place for place in found if not any(f"{place}: " in other for other in found))


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
        with pytest.raises(InvalidConfigurationError) as refused:
            run_with(resources, ops, instance)
        told = "".join(traceback.format_exception(refused.value))

    printed = capfd.readouterr()
    assert SECRET not in told + printed.out + printed.err + caplog.text
    assert "holds a password or key" in told
    # It is refused before there is a run that would keep it.
    assert places_with_the_secret(tmp_path) == []


@pytest.mark.runs
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


def test_no_setting_takes_a_url_with_a_secret_or_shows_it():
    code = (
        "import importlib, os, recsys_pipeline.settings as settings\n"
        f"for name in {LOCATIONS}:\n"
        f"    for value in {REFUSED}:\n"
        "        os.environ[name] = value\n"
        "        try:\n"
        "            importlib.reload(settings)\n"
        "            print((name, 'taken'))\n"
        "        except ValueError as error:\n"
        "            print((name, str(error)))\n"
        "        del os.environ[name]\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    told = [ast.literal_eval(line) for line in done.stdout.splitlines()]

    assert len(told) == len(LOCATIONS) * len(REFUSED)
    assert [name for name, message in told if not message.startswith(f"{name}: ")] == []
    assert SECRET not in done.stdout + done.stderr


@pytest.fixture
def secrets(monkeypatch):
    """Marked credentials in every variable that can hold some."""
    for name in VARIABLES:
        monkeypatch.setenv(name, SECRET)
    for name, address in ADDRESSES.items():
        monkeypatch.setenv(name, address)


@pytest.mark.usefixtures("secrets")
def test_not_from_variables_whether_a_step_succeeds_or_fails(
    parity_csv, warehouse, tmp_path, capfd, caplog, monkeypatch
):
    monkeypatch.setattr(failures, "_SECONDS_BETWEEN", 0)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    publish_tables(warehouse, 1)
    caplog.set_level(logging.DEBUG)
    (tmp_path / "home").mkdir()
    # With or without the packages of the extras, both fail: nobody listens there.
    away = {
        "delivery": {"config": {"database": "postgresql://clerk@127.0.0.1:1/shop"}},
        "mlflow_run": {"config": {"uri": "http://127.0.0.1:1"}},
    }
    with DagsterInstance.local_temp(str(tmp_path / "home")) as instance:
        result = materialize(
            [raw_feedback, delivery, mlflow_run],
            resources={
                "feedback": Feedback(path=str(parity_csv)),
                "warehouse": warehouse,
                "io_manager": WarehouseIOManager(warehouse=warehouse),
            },
            run_config={"ops": away},
            instance=instance,
            raise_on_error=False,
        )

    assert {event.step_key for event in result.all_events if event.is_step_success} == {"raw_feedback"}
    assert {event.step_key for event in result.all_events if event.is_step_failure} == set(away)
    printed = capfd.readouterr()
    assert SECRET not in printed.out + printed.err + caplog.text
    assert places_with_the_secret(tmp_path) == []


@pytest.mark.usefixtures("secrets")
def test_what_looks_for_secrets_finds_them(tmp_path):
    @asset
    def talkative(context):
        context.log.info(os.environ["PGPASSWORD"])
        context.add_output_metadata({"settings": dict(os.environ)})

    (tmp_path / "home").mkdir()
    with DagsterInstance.local_temp(str(tmp_path / "home")) as instance:
        materialize([talkative], instance=instance)
    table = pa.table({"column": [SECRET] * 1000})
    pq.write_table(table, tmp_path / "table.parquet", compression="zstd")
    feather.write_feather(table, tmp_path / "table.arrow", compression="zstd")
    (tmp_path / "rows.csv.gz").write_bytes(gzip.compress(SECRET.encode()))
    with closing(sqlite3.connect(tmp_path / "own.db")) as database:
        database.execute("CREATE TABLE packed (body BLOB)")
        database.execute("INSERT INTO packed VALUES (?)", [zlib.compress(SECRET.encode())])
        database.commit()

    found = places_with_the_secret(tmp_path)
    assert {"rows.csv.gz", "table.arrow", "table.parquet", "own.db: packed"} <= set(found)
    assert any(place.endswith(".db: event_logs") for place in found)


@pytest.mark.commands
def test_nor_when_the_whole_graph_runs_as_a_user_runs_it_and_then_fails(parity_csv, tmp_path):
    home, warehouse, config = tmp_path / "home", tmp_path / "warehouse", tmp_path / "config.yaml"
    home.mkdir()
    shutil.copy(PROJECT / "dagster.yaml", home)
    small = {
        **TUNED_ALONE,
        "grid_search_results": {"config": SMALL_GRID},
        "release": {"config": {"must_beat_popularity": False}},
    }
    config.write_text(yaml.safe_dump({"ops": small}))
    dagster = os.path.join(os.path.dirname(sys.executable), "dagster")
    command = [dagster, "asset", "materialize", "--select", "*", "-m", "recsys_pipeline.definitions", "-c"]
    environment = {
        **os.environ,
        **dict.fromkeys(VARIABLES, SECRET),
        **ADDRESSES,
        "DAGSTER_HOME": str(home),
        "RECSYS_FEEDBACK": str(parity_csv),
        "RECSYS_WAREHOUSE": str(warehouse),
    }
    for expected in (0, 1):
        run = subprocess.run(
            [*command, str(config)], env=environment, capture_output=True, text=True, check=False
        )
        assert run.returncode == expected, run.stderr
        assert SECRET not in run.stdout + run.stderr
        assert places_with_the_secret(tmp_path) == []
        # The next time it fails.
        parity_csv.write_text("UserID,Event\n1,view\n")
    assert list((warehouse / "releases").glob("*/manifest.json"))
