"""The asset that delivers: what it takes, what it says, and when it does nothing."""

import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from dagster import materialize

from recsys_pipeline import settings
from recsys_pipeline.assets.delivery import delivery
from recsys_pipeline.command_line import main
from recsys_pipeline.core.ranking import Factors
from recsys_pipeline.steps import failures
from recsys_pipeline.storage.feedback import Feedback
from recsys_pipeline.storage.postgres import session
from recsys_pipeline.storage.publishing import Retention, publish, roll_back
from recsys_pipeline.storage.releases import current_release, read_manifest, see_pointer
from recsys_pipeline_tests.worlds import failure_of, metadata_of, publish_model


def tables_of(number):
    """A row a table; the score tells the release."""
    rank, score = pa.array([1], pa.int32()), pa.array([number], pa.float32())
    common = {"rank": rank, "ProductCode": ["042"], "score": score}
    return {
        "recommendations": {"UserID": [7], **common, "source": ["als"]},
        "similar_items": {**common, "SimilarProductCode": ["42"]},
        "popular_items": common,
    }


def publish_tables(warehouse, number):
    """Publish a release with tables; returns its version."""
    factors = Factors(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32))
    model = publish_model(warehouse.root, [[0], [1]], factors, [7, 8], ["042", "42"])
    manifest = read_manifest(current_release(warehouse.root))
    documents = {}
    for name, columns in tables_of(number).items():
        content = pa.BufferOutputStream()
        pq.write_table(pa.table(columns), content)
        documents[f"{name}.parquet"] = content.getvalue().to_pybytes()
    files = {name: model / name for name in manifest["files"]}
    made = {name: manifest[name] for name in manifest.keys() - {"format", "version", "created", "files"}}
    seen = see_pointer(warehouse.root)
    return publish(warehouse.root, files, documents, made, seen=seen, retention=Retention()).name


def run(warehouse, **config):
    return materialize(
        [delivery],
        resources={"warehouse": warehouse, "feedback": Feedback()},
        run_config={"ops": {"delivery": {"config": config}}},
        raise_on_error=False,
    )


def delivered(warehouse, database):
    result = run(warehouse, database=database)
    assert result.success
    return metadata_of(result, "delivery")


def seen(database):
    query = "SELECT version, (SELECT score FROM recsys_recommendations) FROM recsys_release"
    with session(database) as connected:
        return connected.rows(query)


def test_without_a_database_it_does_nothing_and_says_so(warehouse):
    result = run(warehouse)

    assert result.success
    assert metadata_of(result, "delivery") == {
        "At a glance": "nothing is delivered: RECSYS_DELIVERY is not set"
    }


def test_a_release_of_a_version_without_tables_is_not_delivered(warehouse):
    factors = Factors(np.eye(1, dtype=np.float32), np.eye(1, dtype=np.float32))
    publish_model(warehouse.root, [[0]], factors, [7], ["042"])

    told = failure_of(run(warehouse, database="postgresql://127.0.0.1:1/shop"))
    assert "has no recommendations.parquet: an earlier version" in told


def test_nor_one_whose_files_were_changed(warehouse):
    publish_tables(warehouse, 1)
    file = current_release(warehouse.root).path / "popular_items.parquet"
    file.write_bytes(file.read_bytes()[:-1])

    told = failure_of(run(warehouse, database="postgresql://127.0.0.1:1/shop"))
    assert "popular_items.parquet is not the file that was published" in told


def test_without_the_driver_it_says_how_to_install_it(warehouse, monkeypatch):
    publish_tables(warehouse, 1)
    monkeypatch.setitem(sys.modules, "adbc_driver_postgresql", None)

    told = failure_of(run(warehouse, database="postgresql://127.0.0.1:1/shop"))
    assert told.startswith("RECSYS_DELIVERY needs a package that is not installed")
    assert told.endswith(".venv/bin/pip install -e '.[postgres]'.")


def test_the_current_release_is_delivered_and_again_after_a_rollback(warehouse, database):
    first = publish_tables(warehouse, 1)
    told = delivered(warehouse, database)
    assert told["At a glance"].endswith(": its rows were loaded")
    assert told["release"] == first
    assert told["Rows of recommendations"] == 1
    assert seen(database) == [(first, 1.0)]
    told = delivered(warehouse, database)
    assert told["At a glance"].endswith(": it was there already")

    second = publish_tables(warehouse, 2)
    delivered(warehouse, database)
    assert seen(database) == [(second, 2.0)]

    roll_back(warehouse.root, first, "worse than yesterday's")
    told = delivered(warehouse, database)
    assert told["At a glance"].endswith(": its rows were still there")
    assert seen(database) == [(first, 1.0)]


def test_a_rollback_at_the_terminal_takes_the_database_along(warehouse, database, monkeypatch):
    first = publish_tables(warehouse, 1)
    publish_tables(warehouse, 2)
    monkeypatch.setattr(settings, "DELIVERY", database)
    recsys = ["--warehouse", warehouse.path]
    assert CliRunner().invoke(main, [*recsys, "deliver"]).exit_code == 0
    done = CliRunner().invoke(main, [*recsys, "releases", "rollback", first])

    assert done.exit_code == 0
    assert seen(database) == [(first, 1.0)]


@pytest.mark.usefixtures("server")
def test_if_the_database_is_away_readers_of_files_are_led_back_all_the_same(warehouse, monkeypatch):
    first = publish_tables(warehouse, 1)
    publish_tables(warehouse, 2)
    monkeypatch.setattr(settings, "DELIVERY", "postgresql://127.0.0.1:1/shop")
    done = CliRunner().invoke(main, ["--warehouse", warehouse.path, "releases", "rollback", first])

    assert done.exit_code == 1
    assert done.stdout == f"readers get {first} now\n"
    assert "the database still has another release" in done.stderr
    assert done.stderr.endswith("Then run `recsys deliver`.\n")
    assert current_release(warehouse.root).path.name == first


@pytest.mark.usefixtures("server")
def test_a_server_that_is_away_is_tried_again(warehouse, monkeypatch):
    monkeypatch.setattr(failures, "_SECONDS_BETWEEN", 0)
    publish_tables(warehouse, 1)
    result = run(warehouse, database="postgresql://127.0.0.1:1/shop")

    assert not result.success
    assert len([event for event in result.all_events if event.is_step_restarted]) == 2
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    assert "RECSYS_DELIVERY: PostgreSQL cannot be reached" in failed.step_failure_data.error.cause.message


def test_a_database_that_does_not_exist_is_not(warehouse, server):
    publish_tables(warehouse, 1)
    result = run(warehouse, database=server.url("nowhere"))

    assert 'database "nowhere" does not exist' in failure_of(result)
    assert not any(event.is_step_restarted for event in result.all_events)
