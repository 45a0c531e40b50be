"""The asset that logs to MLflow: when it does nothing, and what it needs."""

import subprocess
import sys

from dagster import materialize

from recsys_pipeline.assets.tracking import mlflow_run
from recsys_pipeline.core.tracked import tracked
from recsys_pipeline.storage.releases import current_release, read_manifest
from recsys_pipeline_tests.assets.test_delivery import publish_tables
from recsys_pipeline_tests.worlds import failure_of, metadata_of


def run(warehouse, **config):
    return materialize(
        [mlflow_run],
        resources={"warehouse": warehouse},
        run_config={"ops": {"mlflow_run": {"config": config}}},
        raise_on_error=False,
    )


def test_without_a_server_it_does_nothing_and_says_so(warehouse):
    result = run(warehouse)

    assert result.success
    told = {"At a glance": "nothing is logged: RECSYS_MLFLOW is not set"}
    assert metadata_of(result, "mlflow_run") == told


def test_without_the_client_it_says_how_to_install_it(warehouse, monkeypatch):
    publish_tables(warehouse, 1)
    for name in ("mlflow", "mlflow.exceptions", "mlflow.tracking"):
        monkeypatch.setitem(sys.modules, name, None)

    told = failure_of(run(warehouse, uri="http://127.0.0.1:1"))
    assert told.startswith("RECSYS_MLFLOW needs a package that is not installed")
    assert told.endswith(".venv/bin/pip install -e '.[mlflow]'.")


def test_before_the_first_release_it_says_what_to_materialize(warehouse):
    told = failure_of(run(warehouse, uri="http://127.0.0.1:1"))

    assert "holds no release" in told
    assert "Materialize the asset release first" in told


def test_names_are_those_that_mlflow_takes_and_no_figure_is_without_a_number(warehouse):
    publish_tables(warehouse, 1)
    release = current_release(warehouse.root)
    models = [
        {"model": "notebook's ALS, as it was", "map": 0.25, "ndcg": float("nan"), "coverage": None},
        {"model": "tuned ALS", "map": 0.5, "map_low": 0.25, "map_high": 0.75},
    ]
    manifest = {
        **read_manifest(release),
        "evaluation": {"models": models},
        "metrics": {"MAP@10": 0.5, "MAP@10 train (notebook)": 1.5, "NDCG@10": None},
        "counts": {"users": 2},
    }
    told = tracked(manifest, release.manifest_sha256, str(release.path), "a run")

    assert told.metrics == {
        "models/notebooks ALS as it was/MAP at 10": 0.25,
        "models/tuned ALS/MAP at 10": 0.5,
        "models/tuned ALS/MAP at 10 low": 0.25,
        "models/tuned ALS/MAP at 10 high": 0.75,
        "unseen/MAP at 10": 0.5,
        "unseen/MAP at 10 low": 0.25,
        "unseen/MAP at 10 high": 0.75,
        "search/MAP at 10": 0.5,
        "search/MAP at 10 train notebook": 1.5,
        "counts/users": 2.0,
    }
    assert told.tags["recsys_pipeline.dagster_run"] == "a run"


def test_where_the_blend_makes_the_lists_its_figures_are_those_of_the_release(warehouse):
    publish_tables(warehouse, 1)
    models = [{"model": "tuned ALS", "map": 0.5}, {"model": "blend", "map": 0.75}]
    manifest = {
        **read_manifest(current_release(warehouse.root)),
        "evaluation": {"models": models},
        "scorer": "blend",
    }

    assert tracked(manifest, "", "", "").metrics["unseen/MAP at 10"] == 0.75


def test_the_client_is_not_loaded_before_there_is_something_to_log():
    code = "import recsys_pipeline.assets.tracking, sys; sys.exit('mlflow' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
