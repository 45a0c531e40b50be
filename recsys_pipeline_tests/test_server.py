"""The profile of a server: the commands of the systemd units, with Postgres as Dagster's storage."""

import contextlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from itertools import pairwise
from pathlib import Path

import pytest

from recsys_pipeline import load_model
from recsys_pipeline_tests.conftest import PROJECT
from recsys_pipeline_tests.ports import free_port
from recsys_pipeline_tests.storage.postgres import GUARDED
from recsys_pipeline_tests.test_command_line import SMALL
from recsys_pipeline_tests.worlds import N_USERS, write_parity_feedback

BIN = Path(sys.executable).parent
DEPLOY = PROJECT / "deploy"
PASSWORD = "marked-hunter2"
# For a machine that hangs.
SECONDS = 900

LAUNCH = """mutation ($config: RunConfigData!) { launchRun(executionParams: {
  selector: {repositoryLocationName: "recsys_pipeline", repositoryName: "__repository__", jobName: "retrain"},
  runConfigData: $config})
  { __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
RUNS = "{ runsOrError { ... on Runs { results { runId status startTime endTime } } } }"
LOADED = """{ workspaceOrError { ... on Workspace {
  locationEntries { name loadStatus locationOrLoadError { __typename } } } } }"""


class Shop:
    """The three services on ports of their own, and what the webserver answers."""

    def __init__(self, folder, environment):
        self._folder, self._environment = folder, environment
        self._port = free_port()
        self._processes = []

    def start(self):
        for unit in sorted((DEPLOY / "systemd").glob("*.service")):
            (line,) = re.findall(r"^ExecStart=(.*)$", unit.read_text(), re.MULTILINE)
            told = re.findall(r"^Environment=(\w+)=(.*)$", unit.read_text(), re.MULTILINE)
            line = line.replace("/opt/recsys/.venv/bin", str(BIN)).replace("/opt/recsys", str(PROJECT))
            line = line.replace("--port 3000", f"--port {self._port}")
            line = re.sub(r"\$\{(\w+)\}", lambda found: self._environment[found[1]], line)
            with (self._folder / "services.log").open("a") as log:
                process = subprocess.Popen(
                    shlex.split(line),
                    cwd=PROJECT,
                    env={**self._environment, **dict(told)},
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            self._processes.append(process)
        self.wait(lambda: self._loaded())

    def stop(self):
        """As systemd stops services: SIGTERM to all of their processes."""
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in self._processes:
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise
        self._processes = []

    def ask(self, query, **variables):
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}/graphql",
            json.dumps({"query": query, "variables": variables}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["data"]

    def runs(self):
        return self.ask(RUNS)["runsOrError"]["results"]

    def wait(self, condition):
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            assert all(process.poll() is None for process in self._processes), self.log()
            with contextlib.suppress(OSError):
                if condition():
                    return
            time.sleep(0.3)
        raise AssertionError(self.log())

    def log(self):
        return (self._folder / "services.log").read_text()[-5000:]

    def _loaded(self):
        (entry,) = self.ask(LOADED)["workspaceOrError"]["locationEntries"]
        location = entry["locationOrLoadError"]
        return location and location["__typename"] == "RepositoryLocation"


@pytest.fixture
def shop(server, tmp_path):
    if not importlib.util.find_spec("dagster_postgres"):
        pytest.skip("make postgres installs dagster-postgres")
    from recsys_pipeline.storage.postgres import session

    name = server.new_database()
    with session(server.url("postgres")) as connected:
        connected.execute(f"CREATE ROLE {GUARDED} LOGIN PASSWORD '{PASSWORD}'")
        connected.execute(f"ALTER DATABASE {name} OWNER TO {GUARDED}")
        connected.commit()
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(DEPLOY / "dagster.postgres.yaml", home / "dagster.yaml")
    folder = re.search(r"host=([^&]+)", server.url(name))[1].replace("%2F", "/")
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(home),
        # The server of the tests has a socket and no port: libpq finds it by PGHOST where no host is given.
        "DAGSTER_PG_HOST": "",
        "DAGSTER_PG_USER": GUARDED,
        "DAGSTER_PG_DB": name,
        "PGHOST": folder,
        "PGPASSWORD": PASSWORD,
        "RECSYS_CODE_HOST": "127.0.0.1",
        "RECSYS_CODE_PORT": str(free_port()),
        "RECSYS_FEEDBACK": str(write_parity_feedback(tmp_path / "feedback.csv", N_USERS)),
        "RECSYS_WAREHOUSE": str(tmp_path / "warehouse"),
        # They cost more than a tiny model.
        "RECSYS_PICTURES": "off",
    }
    shop = Shop(tmp_path, environment)
    try:
        yield shop
    finally:
        shop.stop()
        server.drop_database(name)
        with session(server.url("postgres")) as connected:
            connected.execute(f"DROP ROLE {GUARDED}")
            connected.commit()


def test_retrains_queue_and_their_history_survives_a_restart_of_everything(shop, server, tmp_path):
    # All at once on an empty database: whoever comes first makes the tables.
    shop.start()
    launched = [shop.ask(LAUNCH, config=SMALL)["launchRun"] for _ in range(2)]
    assert [each["__typename"] for each in launched] == ["LaunchRunSuccess"] * 2, launched
    shop.wait(lambda: all(run["status"] in ("SUCCESS", "FAILURE") for run in shop.runs()))
    runs = sorted(shop.runs(), key=lambda run: run["startTime"])

    assert [run["status"] for run in runs] == ["SUCCESS"] * 2, shop.log()
    assert {run["runId"] for run in runs} == {each["run"]["runId"] for each in launched}
    # One at a time.
    assert all(before["endTime"] <= after["startTime"] for before, after in pairwise(runs))
    released = load_model(str(tmp_path / "warehouse")).manifest["version"]

    shop.stop()
    server.kill()
    server.restart()
    shop.start()
    assert sorted(shop.runs(), key=lambda run: run["startTime"]) == runs
    assert load_model(str(tmp_path / "warehouse")).manifest["version"] == released
    # Nothing of the history is in the home, and the password is nowhere.
    assert not list((tmp_path / "home").rglob("*.db"))
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in written if PASSWORD.encode() in path.read_bytes()]
