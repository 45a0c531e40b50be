"""What a person and CI type, in subprocesses, on a small shop."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from dagster import AssetSelection, DagsterInstance
from dagster._core.remote_origin import RemoteInstigatorOrigin, RemoteRepositoryOrigin
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    ScheduleInstigatorData,
)
from dagster._core.workspace.load import location_origins_from_yaml_paths

from recsys_pipeline import load_model, settings
from recsys_pipeline.storage.warehouse import Warehouse
from recsys_pipeline_tests.conftest import PROJECT
from recsys_pipeline_tests.ports import free_port
from recsys_pipeline_tests.test_feeds import write_feed
from recsys_pipeline_tests.worlds import (
    N_USERS,
    SMALL_GRID,
    TUNED_ALONE,
    made_model,
    run_graph,
    write_parity_feedback,
)

pytestmark = pytest.mark.commands

BIN = Path(sys.executable).parent

# As README, CONTRIBUTING and docs show them; `test_readme.py` compares.
MATERIALIZE = "dagster asset materialize --select '*' -m recsys_pipeline.definitions"
MATERIALIZE_CONFIGURED = (
    f"{MATERIALIZE} --config-json "
    """'{"ops": {"grid_search_results": {"config": {"factors": [64]}}}}'"""
)
WHAT_FOLLOWS = MATERIALIZE.replace("'*'", "'leave_one_out_split*'")
ACTIVATE = ". .venv/bin/activate; export DAGSTER_HOME=$PWD/.dagster_home"
LAUNCH = "dg launch --assets '*'"
MAKE_CONFIGURED = "make materialize CONFIG=examples/retailrocket.yaml"
MAKE_OF_KIND = "make materialize CONFIG=examples/clicks_and_purchases.yaml"
MAKE_DEV = "make dev"
DEV = "dagster dev -w workspace.yaml"
ACTIVATE_ALONE = ". .venv/bin/activate"
RECSYS = (
    "recsys trials",
    *(f"recsys releases {name}" for name in ("list", "show", "verify", "rollback", "resume", "rebuild")),
)
RECSYS_CHECK = "recsys check examples/purchases.yaml"
COMMANDS = {
    *(MATERIALIZE, MATERIALIZE_CONFIGURED, WHAT_FOLLOWS, ACTIVATE),
    *(LAUNCH, MAKE_CONFIGURED, MAKE_OF_KIND, MAKE_DEV, DEV),
    *(ACTIVATE_ALONE, RECSYS_CHECK, *RECSYS),
}

N_USERS_OF_SHOP = 200
SMALL = {"ops": {**TUNED_ALONE, "grid_search_results": {"config": {**SMALL_GRID, "workers": 1}}}}


def new_shop(folder, n_users=N_USERS):
    """Feed, warehouse and Dagster instance, by the environment."""
    home = folder / "dagster_home"
    home.mkdir()
    shutil.copy(PROJECT / "dagster.yaml", home)
    return {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "DAGSTER_HOME": str(home),
        "RECSYS_FEEDBACK": str(write_parity_feedback(folder / "feedback.csv", n_users)),
        "RECSYS_WAREHOUSE": str(folder / "warehouse"),
    }


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """For commands that may follow upon each other: what one has searched, the next need not.

    Users enough to tell the model of the default grid from popularity: else nothing would be released.
    """
    return new_shop(tmp_path_factory.mktemp("shop"), N_USERS_OF_SHOP)


@pytest.fixture
def environment(tmp_path):
    """A shop of the test's own, without pictures: they cost more than a tiny model."""
    return {**new_shop(tmp_path), "RECSYS_PICTURES": "off"}


def run(environment, text, check=True):
    """Run a line as a shell does."""
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {text}"],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        check=check,
    )


def made(line, environment):
    """A line that calls make, but in this virtual environment and without setting it up."""
    done = f"-o {BIN.parent}/.installed -o {environment['DAGSTER_HOME']}/.initialised"
    return line.replace("make ", f"make VENV={BIN.parent} {done} ", 1)


# --- One run ---


@pytest.fixture(scope="module")
def first_run(shop):
    return run(shop, MATERIALIZE)


def test_a_plain_command_materializes_everything_and_prints_the_result(shop, first_run):
    model = load_model(shop["RECSYS_WAREHOUSE"])

    assert len(model.users) == N_USERS_OF_SHOP
    assert f"released {model.manifest['version']}" in first_run.stderr
    assert f"MAP@10 {model.manifest['metrics']['MAP@10']:.4f} in the search" in first_run.stderr
    assert "MAP@10: the tuned model (" in first_run.stderr


def test_a_run_is_configured_on_the_command_line(shop):
    run(shop, MATERIALIZE_CONFIGURED)

    results = pq.read_table(Path(shop["RECSYS_WAREHOUSE"]) / "grid_search_results.parquet")
    assert set(results["factors"].to_pylist()) == {64}


def test_a_ready_file_is_checked_without_a_run(environment):
    assert run(environment, RECSYS_CHECK).stdout == "examples/purchases.yaml is valid\n"
    assert not Path(environment["RECSYS_WAREHOUSE"]).exists()


@pytest.mark.parametrize(
    "line", ["recsys releases list", "python -m recsys_pipeline", MATERIALIZE, "recsys check"]
)
def test_a_setting_that_cannot_be_read_ends_a_command_with_one_sentence(environment, line):
    done = run({**environment, "RECSYS_MAX_PER_CATEGORY": "x"}, line, check=False)

    assert done.returncode != 0
    assert "Error: RECSYS_MAX_PER_CATEGORY: 'x' is no whole number from 0 to" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_out_of_bounds_ends_the_command_with_one_sentence(environment):
    config = '{"ops": {"grid_search_results": {"config": {"factors": [0]}}}}'
    done = run(environment, f"{MATERIALIZE} --config-json '{config}'", check=False)

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("Error: grid_search_results: factors[0] is 0")
    assert "Traceback" not in done.stderr


def test_make_takes_the_ready_file_of_a_kind_of_feed(environment, tmp_path):
    write_feed("clicks_and_purchases", tmp_path / "feedback.csv")

    done = run(environment, made(MAKE_OF_KIND, environment))

    assert "on unseen data" in done.stdout
    assert load_model(environment["RECSYS_WAREHOUSE"]).manifest["target_events"] == ["buy"]


@pytest.mark.usefixtures("first_run")
def test_an_asset_and_what_follows_it_can_be_materialized(shop):
    warehouse = Warehouse(path=shop["RECSYS_WAREHOUSE"])
    matrix, model = warehouse.write_id("bm25_matrix"), load_model(warehouse.root).manifest["version"]
    run(shop, WHAT_FOLLOWS)

    assert warehouse.write_id("bm25_matrix") == matrix
    assert load_model(warehouse.root).manifest["version"] > model


@pytest.mark.skipif(not (PROJECT / ".venv").exists(), reason="make sets the virtual environment up")
def test_the_virtual_environment_is_activated_as_shown():
    assert run(dict(os.environ), f"{ACTIVATE_ALONE}; command -v recsys").stdout
    found = run(dict(os.environ), f"{ACTIVATE}; command -v dagster; echo $DAGSTER_HOME").stdout.split()

    assert found == [str(PROJECT / ".venv" / "bin" / "dagster"), str(PROJECT / ".dagster_home")]


def test_dg_launches_it_too(shop):
    before = time.time()
    run(shop, LAUNCH)

    pointer = Path(shop["RECSYS_WAREHOUSE"]) / "releases" / "current.json"
    assert pointer.stat().st_mtime >= before


@pytest.mark.usefixtures("first_run")
def test_releases_are_looked_at_and_rolled_back_as_shown(shop):
    """After the runs above there are several."""
    pointer = Path(shop["RECSYS_WAREHOUSE"]) / "releases" / "current.json"
    run(shop, "dagster asset materialize --select release -m recsys_pipeline.definitions")
    before = json.loads(pointer.read_text())
    for line in RECSYS:
        run(shop, line)

    assert json.loads(pointer.read_text())["version"] == before["previous"]


def test_or_by_a_file_and_with_a_process_a_step_the_graph_is_the_same(environment, tmp_path):
    config = tmp_path / "config.yaml"
    warehouse = Warehouse(path=str(tmp_path / "elsewhere"))
    # Only the executor `multiprocess` has a start method; this one takes the least time.
    forkserver = {"forkserver": {"preload_modules": ["recsys_pipeline.definitions"]}}
    content = {
        **SMALL,
        "resources": {"warehouse": {"config": {"path": warehouse.path}}},
        "execution": {"config": {"start_method": forkserver, "max_concurrent": 2}},
    }
    config.write_text(yaml.safe_dump(content))
    done = run({**environment, "RECSYS_EXECUTOR": "multiprocess"}, f"{MATERIALIZE} --config {config}")

    assert "MAP@10: the tuned model (" in done.stderr
    assert not Path(environment["RECSYS_WAREHOUSE"]).exists()
    in_one_process = Warehouse(path=str(tmp_path / "in_one_process"))
    assert run_graph(environment["RECSYS_FEEDBACK"], in_one_process).success
    for asset in ("raw_feedback", "feedback_strengths", "bm25_matrix", "leave_one_out_split"):
        assert warehouse.write_id(asset) == in_one_process.write_id(asset)
    assert load_model(warehouse.root).recommend(7).equals(made_model(in_one_process).recommend(7))


def test_make_initialises_the_instance_once_and_alone(tmp_path, environment):
    """Several processes that initialise an empty one at the same time break it."""
    fresh = {**environment, "DAGSTER_HOME": str(tmp_path / "fresh")}
    line = made("make materialize", fresh).replace(f" -o {fresh['DAGSTER_HOME']}/.initialised", "")
    told = run(fresh, line.replace("make ", "make --dry-run ", 1)).stdout

    for wanted in (f"cp dagster.yaml {fresh['DAGSTER_HOME']}/dagster.yaml", "dagster instance migrate"):
        (found,) = (each for each in told.splitlines() if wanted in each)
        assert f"scripts/alone.py {fresh['DAGSTER_HOME']} " in found


def test_make_says_what_is_wrong_with_a_feed_and_no_more(environment):
    """The sentence, without a stack trace, and no summary of a model that was not made."""
    bad = {**environment, "RECSYS_FEEDBACK": "no/such/file.csv"}
    done = run(bad, made(MAKE_CONFIGURED, bad), check=False)

    assert done.returncode != 0
    lines = done.stderr.splitlines()
    assert (
        "no/such/file.csv does not exist. Set RECSYS_FEEDBACK, or `path` of the `feedback` resource." in lines
    )
    assert not any(
        "Traceback" in line or "Stack Trace" in line or line.startswith("  File") for line in lines
    )
    assert "on unseen data" not in done.stdout


# --- A search that is killed ---


# Long enough to be killed in the middle.
SLOW_GRID = {
    **SMALL_GRID,
    "factors": [32],
    "alpha": [1.0, 2.0, 3.0, 4.0, 5.0],
    "iterations": [200, 400],
    "n_trials": 10,
    "workers": 1,
}


def test_a_random_search_that_is_killed_goes_on_where_it_stopped(environment, tmp_path, capsys):
    search = {"grid_search_results": {"config": {**SLOW_GRID, "strategy": "random"}}}
    selection = AssetSelection.assets("grid_search_results").upstream()
    journal = Path(environment["RECSYS_WAREHOUSE"]) / "search_journal"

    def finished():
        return {entry: entry.stat().st_mtime_ns for entry in journal.glob("*/*.json")}

    def searched(warehouse):
        assert run_graph(environment["RECSYS_FEEDBACK"], warehouse, ops=search, selection=selection).success
        return warehouse.read_table("grid_search_results").drop_columns("fit_seconds")

    line = f"exec {MATERIALIZE} --config-json '{json.dumps({'ops': search})}'"
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            ["bash", "-c", line.replace("'*'", "'*grid_search_results'")],
            cwd=PROJECT,
            env=environment,
            stdout=log,
            stderr=log,
        )
    while len(finished()) < 3 and process.poll() is None:
        time.sleep(0.02)
    process.kill()
    assert process.wait(timeout=60) != 0, (tmp_path / "log").read_text()
    known = finished()
    assert 3 <= len(known) < 10

    resumed = searched(Warehouse(path=environment["RECSYS_WAREHOUSE"]))
    assert f"; {len(known)} are in the journal already" in capsys.readouterr().err
    assert finished().items() > known.items()
    assert resumed.equals(searched(Warehouse(path=str(tmp_path / "whole"))))


# --- Every night ---


def test_make_dev_serves_the_ui_and_its_daemon_makes_up_for_a_night_that_it_missed(environment, tmp_path):
    """No wait for 3 o'clock: to the daemon it looks as if it had been off at that hour."""
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(SMALL))
    port = free_port()
    nightly = {**environment, "RECSYS_RUN_CONFIG": str(config), "RECSYS_UI_PORT": str(port)}
    line = made(MAKE_DEV, nightly)
    assert DEV in run(nightly, line.replace("make ", "make --dry-run ", 1)).stdout

    with DagsterInstance.from_config(environment["DAGSTER_HOME"]) as instance:
        see_the_schedule_first(instance, just_before_the_last_hour(3))
        with (tmp_path / "dev.log").open("w") as log:
            dev = subprocess.Popen(
                ["bash", "-c", f"exec {line}"],
                cwd=PROJECT,
                env=nightly,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            # The limit is for a machine that hangs.
            deadline = time.monotonic() + 240
            while not finished_runs(instance) and time.monotonic() < deadline and dev.poll() is None:
                time.sleep(0.2)
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info") as answer:
                served = json.load(answer)
        finally:
            os.killpg(dev.pid, signal.SIGTERM)
            dev.wait(timeout=60)

        (night,) = finished_runs(instance)
    assert night.status.value == "SUCCESS", (tmp_path / "dev.log").read_text()
    assert night.job_name == "retrain"
    assert night.tags["dagster/schedule_name"] == "nightly"
    assert "dagster_webserver_version" in served
    model = load_model(environment["RECSYS_WAREHOUSE"])
    assert model.manifest["hyperparameters"]["factors"] in SMALL_GRID["factors"]


def finished_runs(instance):
    return [run for run in instance.get_runs() if run.is_finished]


def just_before_the_last_hour(hour):
    now = datetime.now(UTC)
    last = now.replace(hour=hour, minute=0, second=0, microsecond=0)
    return (last if last <= now else last - timedelta(days=1)) - timedelta(minutes=1)


def see_the_schedule_first(instance, when):
    """Note in the instance, as its daemon does, when it first saw the schedule that the code declares."""
    (location,) = location_origins_from_yaml_paths([str(PROJECT / "workspace.yaml")])
    schedule = RemoteInstigatorOrigin(RemoteRepositoryOrigin(location, "__repository__"), "nightly")
    seen = ScheduleInstigatorData(settings.SCHEDULE, when.timestamp())
    instance.add_instigator_state(
        InstigatorState(schedule, InstigatorType.SCHEDULE, InstigatorStatus.DECLARED_IN_CODE, seen)
    )
