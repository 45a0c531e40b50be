"""What a real tracking server has after a release, after the same again, and after what goes wrong."""

import http.server
import os
import re
import sys
import threading
from pathlib import Path

import pytest
from dagster import DagsterInstance, materialize

from recsys_pipeline.assets.tracking import mlflow_run
from recsys_pipeline.steps import failures
from recsys_pipeline.storage import tracking
from recsys_pipeline.storage.releases import current_release, read_manifest
from recsys_pipeline_tests.assets.test_delivery import publish_tables
from recsys_pipeline_tests.mlflow.server import TrackingServer, missing
from recsys_pipeline_tests.ports import free_port
from recsys_pipeline_tests.worlds import failure_of, metadata_of

pytestmark = pytest.mark.mlflow


@pytest.fixture(scope="module", autouse=True)
def _installed():
    if lacks := missing():
        pytest.skip(f"make mlflow installs {' and '.join(lacks)}")


@pytest.fixture(scope="module")
def tracking_server(tmp_path_factory):
    with TrackingServer(tmp_path_factory.mktemp("mlflow")) as server:
        yield server


@pytest.fixture(params=["server", "folder"])
def uri(request, tmp_path):
    """Of a server, and of a folder."""
    if request.param == "server":
        return request.getfixturevalue("tracking_server").uri
    return f"file://{tmp_path / 'runs'}"


@pytest.fixture
def experiment(request):
    """One of the test's own."""
    return request.node.name


@pytest.fixture
def client(uri, monkeypatch):
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    return MlflowClient(uri, uri)


def log(warehouse, uri, instance=None, **config):
    return materialize(
        [mlflow_run],
        resources={"warehouse": warehouse},
        run_config={"ops": {"mlflow_run": {"config": {"uri": uri, **config}}}},
        instance=instance,
        raise_on_error=False,
    )


def logged(warehouse, uri, **config):
    result = log(warehouse, uri, **config)
    assert result.success
    return metadata_of(result, "mlflow_run")


def runs_in(client, experiment):
    return client.search_runs([client.get_experiment_by_name(experiment).experiment_id])


def files_of(client, run, folder="release"):
    return {file.path.rpartition("/")[2] for file in client.list_artifacts(run.info.run_id, folder)}


def test_a_release_is_one_run_with_its_figures_parameters_tags_and_files(
    shared_warehouse, uri, client, experiment, tmp_path
):
    told = logged(shared_warehouse, uri, experiment=experiment)
    release = current_release(shared_warehouse.root)
    manifest = read_manifest(release)

    (run,) = runs_in(client, experiment)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == manifest["version"] == told["release"]
    (tuned,) = [row for row in manifest["evaluation"]["models"] if row["model"] == "tuned ALS"]
    figures = run.data.metrics
    assert figures["unseen/MAP at 10"] == tuned["map"]
    assert figures["unseen/MAP at 10 low"] == tuned["map_low"]
    assert figures["unseen/MAP at 10 high"] == tuned["map_high"]
    assert figures["search/MAP at 10"] == manifest["metrics"]["MAP@10"]
    assert figures["search/ndcg_at_10"] == manifest["metrics"]["ndcg_at_10"]
    assert figures["counts/users"] == 40
    assert figures["counts/interactions"] == 400
    assert "models/popularity/MAP at 10" in figures
    assert run.data.params["factors"] == "4"
    assert run.data.params["bm25_K1"] == "100.0"
    assert run.data.params["seed"] == "42"
    assert run.data.params["solver"] == "batched"
    assert run.data.params["split"].startswith("random leave-one-out")
    assert run.data.params["strengths of events"] == "click=3, compare=4, query_search=2, view=1"
    assert run.data.tags["recsys_pipeline.release"] == manifest["version"]
    assert run.data.tags["recsys_pipeline.manifest_sha256"] == release.manifest_sha256
    assert run.data.tags["recsys_pipeline.location"] == str(release.path)
    # Of the files, those that people look at; the tables are large.
    shown = {name for name in manifest["files"] if name.endswith((".md", ".png", ".svg"))}
    assert files_of(client, run) == {"manifest.json", *shown}
    card = client.download_artifacts(run.info.run_id, "release/model_card.md", str(tmp_path))
    assert Path(card).read_bytes() == (release.path / "model_card.md").read_bytes()


def test_the_same_release_again_is_the_same_run(warehouse, uri, client, experiment):
    publish_tables(warehouse, 1)
    first = logged(warehouse, uri, experiment=experiment)
    again = logged(warehouse, uri, experiment=experiment)
    assert again["At a glance"].startswith("nothing to log")
    assert again["where it is"] == first["where it is"]
    assert len(runs_in(client, experiment)) == 1

    publish_tables(warehouse, 2)
    logged(warehouse, uri, experiment=experiment)
    assert len(runs_in(client, experiment)) == 2


def test_the_tables_come_along_where_that_is_wanted_also_later(warehouse, uri, client, experiment):
    publish_tables(warehouse, 1)
    logged(warehouse, uri, experiment=experiment)
    (run,) = runs_in(client, experiment)
    assert files_of(client, run) == {"manifest.json"}

    logged(warehouse, uri, experiment=experiment, tables=True)
    (run,) = runs_in(client, experiment)
    manifest = read_manifest(current_release(warehouse.root))
    assert files_of(client, run) == {"manifest.json", *manifest["files"]}
    again = logged(warehouse, uri, experiment=experiment, tables=True)
    assert again["At a glance"].startswith("nothing to log")


def test_what_was_interrupted_is_marked_and_completed_the_next_time(
    warehouse, uri, client, experiment, monkeypatch
):
    publish_tables(warehouse, 1)

    def lost(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(tracking, "verified", lost)
        with pytest.raises(KeyboardInterrupt):
            tracking.log_current(warehouse.root, uri, experiment, str, print)
    (run,) = runs_in(client, experiment)
    assert run.info.status == "FAILED"

    logged(warehouse, uri, experiment=experiment)
    (run,) = runs_in(client, experiment)
    assert run.info.status == "FINISHED"
    assert files_of(client, run) == {"manifest.json"}
    history = client.get_metric_history(run.info.run_id, "counts/users")
    assert len({(point.timestamp, point.step, point.value) for point in history}) <= 1


def test_the_run_that_released_is_named(warehouse, uri, client, experiment, tmp_path):
    from dagster import AssetMaterialization, asset

    version = publish_tables(warehouse, 1)

    @asset
    def release(context):
        context.log_event(AssetMaterialization("release", metadata={"version": version}))

    (tmp_path / "home").mkdir()
    with DagsterInstance.local_temp(str(tmp_path / "home")) as instance:
        released = materialize([release], instance=instance)
        assert log(warehouse, uri, instance, experiment=experiment).success
    (run,) = runs_in(client, experiment)
    assert run.data.tags["recsys_pipeline.dagster_run"] == released.run_id


def test_an_experiment_that_was_deleted_is_named(warehouse, uri, client, experiment):
    publish_tables(warehouse, 1)
    client.delete_experiment(client.create_experiment(experiment))

    told = failure_of(log(warehouse, uri, experiment=experiment))
    assert f"the experiment {experiment} is deleted there: restore it" in told


# --- Errors ---


def test_a_server_that_is_away_is_tried_again_and_takes_nothing_back(warehouse, monkeypatch):
    monkeypatch.setattr(failures, "_SECONDS_BETWEEN", 0)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    version = publish_tables(warehouse, 1)
    result = log(warehouse, f"http://127.0.0.1:{free_port()}")

    assert not result.success
    assert len([event for event in result.all_events if event.is_step_restarted]) == 2
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    assert (
        "RECSYS_MLFLOW: the tracking server cannot be reached" in failed.step_failure_data.error.cause.message
    )
    assert current_release(warehouse.root).path.name == version


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (404, "does not take it: .*Is it the address of an MLflow tracking server"),
        (401, "the server refuses: .*MLFLOW_TRACKING_USERNAME"),
        (403, "the server refuses: .*MLFLOW_TRACKING_TOKEN"),
    ],
)
def test_another_server_and_one_that_refuses_are_told_apart(warehouse, status, message):
    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"<html>" + b"a long page " * 1000)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    publish_tables(warehouse, 1)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as page:
        threading.Thread(target=page.serve_forever, daemon=True).start()
        result = log(warehouse, f"http://127.0.0.1:{page.server_port}")
        page.shutdown()

    told = failure_of(result)
    assert not any(event.is_step_restarted for event in result.all_events)
    assert len(told) < 700
    assert re.search(message, told)


def test_a_release_that_was_changed_is_not_logged(warehouse, uri, experiment):
    publish_tables(warehouse, 1)
    file = current_release(warehouse.root).path / "manifest.json"
    file.write_bytes(file.read_bytes() + b" ")

    assert "manifest that was published" in failure_of(log(warehouse, uri, experiment=experiment))


def test_nothing_of_the_clients_settings_stays(warehouse, uri, experiment, monkeypatch):
    for name in tracking._ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    publish_tables(warehouse, 1)
    logged(warehouse, uri, experiment=experiment)

    assert not set(tracking._ENVIRONMENT) & set(os.environ)


def test_nothing_is_pickled(warehouse, uri, experiment, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("pickled")

    publish_tables(warehouse, 1)
    for name in ("cloudpickle", "mlflow.pyfunc"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr("pickle.dumps", refuse)
    monkeypatch.setattr("pickle.loads", refuse)
    assert tracking.log_current(warehouse.root, uri, experiment, str, print).changed
