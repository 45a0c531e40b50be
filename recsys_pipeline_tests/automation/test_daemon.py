"""With the real daemon, and with real commands: runs queue, a change is trained on, a failure is reported."""

import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from dagster import AssetKey, DagsterInstance, DagsterRunStatus, RunsFilter
from dagster._core.definitions.freshness import FreshnessState

from recsys_pipeline.storage.releases import read_pointer
from recsys_pipeline.storage.warehouse import Warehouse
from recsys_pipeline_tests.conftest import PROJECT
from recsys_pipeline_tests.worlds import SMALL_GRID, TUNED_ALONE, write_parity_feedback

pytestmark = pytest.mark.nights

BIN = Path(sys.executable).parent
MODULE = ("-m", "recsys_pipeline.definitions")
MOST_SECONDS = 1800
SECRET = "hunter2-marked"
RUN_CONFIG = {
    "ops": {
        **TUNED_ALONE,
        "grid_search_results": {"config": {**SMALL_GRID, "workers": 1}},
    }
}


class Server:
    """A home of Dagster with a daemon, a shop, and a webhook."""

    def __init__(self, folder):
        self.folder, self.home, self.feed = folder, folder / "home", folder / "feedback.csv"
        self.home.mkdir()
        shutil.copy(PROJECT / "dagster.yaml", self.home)
        write_parity_feedback(self.feed)
        self.run_config = folder / "run.yaml"
        self.run_config.write_text(yaml.safe_dump(RUN_CONFIG))
        self.warehouse = Warehouse(path=str(folder / "warehouse"))
        self.reports = []

    def environment(self, **settings):
        return {
            **os.environ,
            "DAGSTER_HOME": str(self.home),
            "RECSYS_FEEDBACK": str(self.feed),
            "RECSYS_WAREHOUSE": self.warehouse.path,
            "RECSYS_RUN_CONFIG": str(self.run_config),
            "RECSYS_WATCH_SECONDS": "5",
            "RECSYS_SCHEDULE": "0 0 29 2 *",
            "RECSYS_MAX_RELEASE_HOURS": "0.02",
            "RECSYS_UI_URL": "https://ui.example.com",
            # They cost more than a tiny model.
            "RECSYS_PICTURES": "off",
            **settings,
        }

    def dagster(self, *arguments):
        return subprocess.run(
            [BIN / "dagster", *arguments],
            env=self.environment(),
            capture_output=True,
            text=True,
            check=True,
            timeout=MOST_SECONDS,
        )

    def instance(self):
        return DagsterInstance.from_config(str(self.home))

    def runs(self, **filters):
        with self.instance() as instance:
            return instance.get_run_records(RunsFilter(job_name="retrain", **filters))

    def is_overdue(self):
        with self.instance() as instance:
            states = instance.get_freshness_state_records([AssetKey("release")])
        return states and states[AssetKey("release")].freshness_state is FreshnessState.FAIL

    def wait_for(self, what):
        deadline = time.monotonic() + MOST_SECONDS
        while not (found := what()):
            assert time.monotonic() < deadline, self.log()
            time.sleep(2)
        return found

    def log(self):
        return (self.folder / "daemon.log").read_text()[-5000:]

    @contextmanager
    def webhook(self):
        """Takes reports."""
        reports = self.reports

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                reports.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/{SECRET}"
        server.shutdown()
        server.server_close()

    @contextmanager
    def daemon(self):
        with self.webhook() as url, (self.folder / "daemon.log").open("w") as log:
            process = subprocess.Popen(
                [BIN / "dagster-daemon", "run", *MODULE],
                env=self.environment(RECSYS_ALERT_WEBHOOK=url),
                stdout=log,
                stderr=log,
            )
            try:
                yield
            finally:
                process.terminate()
                process.wait(60)


@pytest.fixture
def home(tmp_path):
    """A fixture called `server` would be that of PostgreSQL."""
    return Server(tmp_path)


def finished(server, n):
    done = server.runs(statuses=[DagsterRunStatus.SUCCESS])
    failed = server.runs(statuses=[DagsterRunStatus.FAILURE])
    assert not failed, server.log()
    return done if len(done) >= n else None


def test_retrains_queue_changes_are_trained_on_failures_are_reported_and_a_late_release_shows(home):
    server = home
    server.dagster("instance", "migrate")
    for _ in range(2):
        server.dagster("job", "launch", *MODULE, "-j", "retrain")
    assert len(server.runs(statuses=[DagsterRunStatus.QUEUED])) == 2
    with server.daemon():
        # Both end, one after the other.
        done = server.wait_for(lambda: finished(server, 2))
        spans = sorted((record.start_time, record.end_time) for record in done)
        assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))

        # New data: the sensor retrains, once.
        before = read_pointer(server.warehouse.root).version
        with server.feed.open("a") as file:
            file.write("1,00001,click\n")
        server.wait_for(lambda: finished(server, 3))
        assert read_pointer(server.warehouse.root).version > before

        # Bad data: the run fails, the webhook hears of it, readers keep their release.
        before = read_pointer(server.warehouse.root).version
        with server.feed.open("a") as file:
            file.write("1,2,bought_on_mars\n" * 500)
        server.wait_for(lambda: server.reports)
        assert read_pointer(server.warehouse.root).version == before

        # It is a minute since the last release: it shows as overdue.
        server.wait_for(server.is_overdue)
    (report,) = server.reports
    (failed,) = server.runs(statuses=[DagsterRunStatus.FAILURE])
    assert "raw_feedback of retrain failed" in report
    assert "rows are bad" in report
    assert f"https://ui.example.com/runs/{failed.dagster_run.run_id}" in report
    assert len(server.runs()) == 4
    assert SECRET not in server.log()
    for path in server.home.rglob("*"):
        assert not (path.is_file() and SECRET.encode() in path.read_bytes()), path


def test_two_runs_of_the_command_line_share_a_warehouse_one_after_the_other(home):
    server = home
    server.dagster("instance", "migrate")
    command = [BIN / "dagster", "asset", "materialize", "--select", "*", *MODULE, "-c", server.run_config]
    running = [
        subprocess.Popen(
            command, env=server.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for _ in range(2)
    ]
    told = [process.communicate(timeout=MOST_SECONDS)[0] for process in running]

    assert [process.returncode for process in running] == [0, 0], told
    assert sum("waiting for it" in text for text in told) == 1
    with server.instance() as instance:
        made = instance.fetch_materializations(AssetKey("release"), limit=9).records
    versions = [record.asset_materialization.metadata["release"].value for record in made]
    assert len(set(versions)) == 2
    assert read_pointer(server.warehouse.root).version == max(versions)
