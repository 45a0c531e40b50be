"""What a person and CI type, in subprocesses, on a small shop."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from recsys_pipeline import load_model
from recsys_pipeline_tests.conftest import PROJECT
from recsys_pipeline_tests.worlds import N_USERS, SMALL_GRID

BIN = Path(sys.executable).parent
SMALL = {"ops": {"grid_search_results": {"config": SMALL_GRID}}}


@pytest.fixture(scope="module")
def new_instance(tmp_path_factory):
    """A Dagster instance, initialised before two processes could do so at once."""
    home = tmp_path_factory.mktemp("instance") / "dagster_home"
    home.mkdir()
    (home / "dagster.yaml").write_text((PROJECT / "dagster.yaml").read_text())
    run({**os.environ, "DAGSTER_HOME": str(home)}, "dagster", "instance", "migrate")
    return home


@pytest.fixture
def environment(tmp_path, parity_csv, new_instance):
    """A shop of its own: feed, warehouse and Dagster instance."""
    home = shutil.copytree(new_instance, tmp_path / "dagster_home")
    return {
        **os.environ,
        "DAGSTER_HOME": str(home),
        "RECSYS_FEEDBACK": str(parity_csv),
        "RECSYS_WAREHOUSE": str(tmp_path / "warehouse"),
    }


def run(environment, command, *arguments, check=True):
    return subprocess.run(
        [str(BIN / command), *arguments],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        check=check,
    )


def test_dagster_asset_materialize(environment):
    config = ["--config-json", json.dumps(SMALL)]
    run(
        environment,
        "dagster",
        "asset",
        "materialize",
        "--select",
        "*",
        "-m",
        "recsys_pipeline.definitions",
        *config,
    )
    model = load_model(environment["RECSYS_WAREHOUSE"])
    assert len(model.users) == N_USERS

    summary = run(environment, "python", "-m", "recsys_pipeline").stdout
    assert f"{model.manifest['metrics']['MAP@10']:.4f}" in summary
    assert "factors 4" in summary
    assert model.manifest["version"] in summary


def test_dagster_asset_materialize_with_a_configuration_file(environment, tmp_path):
    config = tmp_path / "config.yaml"
    other = tmp_path / "elsewhere"
    config.write_text(yaml.safe_dump({**SMALL, "resources": {"warehouse": {"config": {"path": str(other)}}}}))
    run(
        environment,
        *("dagster", "asset", "materialize", "--select", "*", "-m", "recsys_pipeline.definitions"),
        *("--config", str(config)),
    )

    assert load_model(other)


# Long enough to be killed in the middle.
SLOW_GRID = {**SMALL_GRID, "factors": [32], "alpha": [1.0, 2.0, 3.0, 4.0, 5.0], "iterations": [500, 1000]}


def test_a_search_that_is_killed_goes_on_where_it_stopped(environment, tmp_path):
    config = {"ops": {"grid_search_results": {"config": {**SLOW_GRID, "workers": 2}}}}
    command = (
        *("dagster", "asset", "materialize", "--select", "*grid_search_results"),
        *("-m", "recsys_pipeline.definitions", "--config-json", json.dumps(config)),
    )
    journal = Path(environment["RECSYS_WAREHOUSE"]) / "search_journal"

    def finished():
        return len(list(journal.glob("*/*.json")))

    known = 0
    for how in (signal.SIGTERM, signal.SIGKILL):
        with (tmp_path / "log").open("w") as log:
            search = subprocess.Popen(
                [str(BIN / command[0]), *command[1:]],
                cwd=PROJECT,
                env=environment,
                stdout=log,
                stderr=log,
            )
        while finished() < known + 3 and search.poll() is None:
            time.sleep(0.02)
        search.send_signal(how)
        assert search.wait(timeout=60) != 0
        assert f"; {known} are in the journal already" in (tmp_path / "log").read_text()
        assert known + 3 <= finished() < 20
        known = finished()

    resumed = run(environment, *command)
    assert f"; {known} are in the journal already" in resumed.stderr
    whole = {**environment, "RECSYS_WAREHOUSE": str(tmp_path / "whole")}
    run(whole, *command)
    tables = [
        pq.read_table(Path(each["RECSYS_WAREHOUSE"]) / "grid_search_results.parquet").drop_columns(
            "fit_seconds"
        )
        for each in (environment, whole)
    ]
    assert tables[0].equals(tables[1])


def test_dg_launch_and_dg_check(environment, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(SMALL))
    run(environment, "dg", "check", "defs")
    run(environment, "dg", "launch", "--assets", "*", "--config", str(config))

    assert load_model(environment["RECSYS_WAREHOUSE"])


def test_bad_feedback_fails_the_command_and_says_why(environment):
    bad = {**environment, "RECSYS_FEEDBACK": "no/such/file.csv"}
    arguments = ("asset", "materialize", "--select", "*", "-m", "recsys_pipeline.definitions")
    result = run(bad, "dagster", *arguments, check=False)

    assert result.returncode != 0
    assert "no/such/file.csv does not exist. Set RECSYS_FEEDBACK" in result.stderr


def test_the_summary_of_an_empty_warehouse_says_what_to_do(environment):
    result = run(environment, "python", "-m", "recsys_pipeline", check=False)

    assert result.returncode == 1
    assert "Materialize the asset best_model first" in result.stderr


def test_dagster_dev_serves_the_ui_and_its_daemon_retrains_on_schedule(environment, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(SMALL))
    nightly = {**environment, "RECSYS_SCHEDULE": "* * * * *", "RECSYS_RUN_CONFIG": str(config)}
    pointer = Path(environment["RECSYS_WAREHOUSE"]) / "best_model" / "current.json"
    port = free_port()
    with (tmp_path / "dev.log").open("w") as log:
        dev = subprocess.Popen(
            [str(BIN / "dagster"), "dev", "-w", "workspace.yaml", "--port", str(port)],
            cwd=PROJECT,
            env=nightly,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        # The next full minute, then the run; the limit is for a machine that hangs.
        deadline = time.monotonic() + 240
        while not pointer.exists() and time.monotonic() < deadline and dev.poll() is None:
            time.sleep(0.5)
        statuses = wait_for_a_finished_run(environment)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info") as answer:
            served = json.load(answer)
    finally:
        os.killpg(dev.pid, signal.SIGTERM)
        dev.wait(timeout=60)

    assert "SUCCESS" in statuses, (tmp_path / "dev.log").read_text()
    assert "dagster_webserver_version" in served
    assert load_model(environment["RECSYS_WAREHOUSE"])


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_a_finished_run(environment):
    code = (
        "from dagster import DagsterInstance as I;"
        "print(*(r.status.value for r in I.get().get_runs() if r.job_name == 'retrain'))"
    )
    for _ in range(60):
        statuses = run(environment, "python", "-c", code).stdout.split()
        if any(status in ("SUCCESS", "FAILURE") for status in statuses):
            break
        time.sleep(1)
    return statuses
