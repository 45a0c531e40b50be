"""Night after night on a tiny shop: what is made, and what readers have in the morning."""

import gzip
import os
from datetime import UTC, datetime

import pytest
from dagster import DagsterInstance, SensorResult, build_schedule_context, build_sensor_context

from recsys_pipeline import load_model
from recsys_pipeline.automation import jobs
from recsys_pipeline.automation.schedules import nightly
from recsys_pipeline.automation.sensors import look
from recsys_pipeline.storage.releases import read_pointer
from recsys_pipeline.storage.states import States
from recsys_pipeline_tests.automation.conftest import REPOSITORY
from recsys_pipeline_tests.worlds import SMALL_GRID, TUNED_ALONE, failure_of, write_parity_feedback

pytestmark = pytest.mark.nights

ALL = {key.path[-1] for key in REPOSITORY.assets_defs_by_key}
TABLES = ALL - {"release", "delivery", "mlflow_run"}
END = {"release", "delivery", "mlflow_run"}


class Shop:
    """A shop at night."""

    def __init__(self, folder, warehouse, instance):
        self.folder, self.warehouse, self.instance = folder, warehouse, instance
        self.feed = folder / "feedback.csv.gz"
        self.cursor = None
        self.run_config = {
            "resources": {
                "feedback": {"config": {"path": str(self.feed)}},
                "warehouse": {"config": {"path": warehouse.path}},
            },
            "ops": {
                **TUNED_ALONE,
                "grid_search_results": {"config": {**SMALL_GRID, "workers": 1}},
                "recommendations": {"config": {"n": 20}},
            },
        }

    def upload(self, text):
        self.feed.write_bytes(gzip.compress(text.encode(), mtime=0))

    def night(self):
        """The tick of the schedule, and the run that it asks for."""
        when = datetime(2026, 11, 27, 3, tzinfo=UTC)
        context = build_schedule_context(
            instance=self.instance, scheduled_execution_time=when, repository_def=REPOSITORY
        )
        (request,) = nightly.evaluate_tick(context).run_requests
        return self.run(request)

    def look(self):
        """A look of the sensor: the run that it asks for, or why it asks for none."""
        context = build_sensor_context(instance=self.instance, cursor=self.cursor, repository_def=REPOSITORY)
        result = look(context)
        if isinstance(result, SensorResult):
            self.cursor = result.cursor
            if result.run_requests:
                return self.run(result.run_requests[0])
            result = result.skip_reason
        return result.skip_message

    def run(self, request):
        """As the daemon does."""
        checks = request.asset_check_keys
        job = REPOSITORY.get_job("retrain").get_subset(
            asset_selection=set(request.asset_selection),
            asset_check_selection=None if checks is None else set(checks),
        )
        return job.execute_in_process(
            run_config=request.run_config, instance=self.instance, tags=request.tags, raise_on_error=False
        )

    def state(self):
        """What the warehouse holds, and what readers have."""
        version = read_pointer(self.warehouse.root).version
        return {**{name: States(self.warehouse.root, name).current() for name in TABLES}, "release": version}


def made(result):
    return {event.asset_key.path[-1] for event in result.get_asset_materialization_events()}


def said(result):
    return " ".join(check.description or "" for check in result.get_asset_check_evaluations())


@pytest.fixture
def shop(tmp_path, warehouse, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    with DagsterInstance.local_temp(str(home)) as instance:
        shop = Shop(tmp_path, warehouse, instance)
        monkeypatch.setattr(jobs, "RUN_CONFIG", shop.run_config)
        yield shop


@pytest.fixture
def monday(tmp_path):
    return write_parity_feedback(tmp_path / "plain.csv").read_text()


def test_a_week_of_nights(shop, monday):
    # The first night makes everything.
    shop.upload(monday)
    first = shop.night()
    assert made(first) == ALL
    after = shop.state()
    assert load_model(shop.warehouse.root).manifest["version"] == after["release"]

    # No new data: the run says so, and nothing moves.
    nothing = shop.night()
    assert nothing.success
    assert made(nothing) == set()
    assert f"release {after['release']} serves" in said(nothing)
    assert shop.state() == after

    # Somebody copied the same file there again: neither sensor nor schedule retrains.
    os.utime(shop.feed, (1, 1))
    assert "waits until it stays as it is" in shop.look()
    assert "with the content that it had" in shop.look()
    assert made(shop.night()) == set()
    assert shop.state() == after

    # New data.
    tuesday = monday + "".join(f"{user},00{user:03d},click\n" for user in range(40))
    shop.upload(tuesday)
    assert made(shop.night()) == ALL
    assert all(shop.state()[name] != before for name, before in after.items())
    after = shop.state()
    # The sensor has seen that the night was there first.
    assert "is what run" in shop.look()

    # Another configuration of the lists: the model stays.
    shop.run_config["ops"]["recommendations"]["config"]["n"] = 5
    assert made(shop.night()) == {"recommendations", "model_card", *END}
    changed = {name for name, before in after.items() if shop.state()[name] != before}
    assert changed == {"recommendations", "model_card", "release"}
    after = shop.state()

    # Half a file: the sensor waits for the rest. A night in the middle of it fails, and nothing is lost.
    wednesday = tuesday + "".join(f"{user},00{(user + 2) % 60:03d},view\n" for user in range(40))
    whole = gzip.compress(wednesday.encode(), mtime=0)
    shop.feed.write_bytes(whole[: len(whole) // 2])
    assert "waits until it stays as it is" in shop.look()
    assert shop.look() == f"waits for the rest: {shop.feed} ends early"
    failed = shop.night()
    assert "cut short" in failure_of(failed)
    assert made(failed) == set()
    assert shop.state() == after

    # The upload is complete: the sensor retrains, once.
    shop.feed.write_bytes(whole)
    assert "waits until it stays as it is" in shop.look()
    assert made(shop.look()) == ALL
    assert "is what run" in shop.look()
    assert made(shop.night()) == set()
    after = shop.state()

    # Bad data: refused every night until somebody mends it, and nothing good is lost.
    shop.upload(wednesday + "1,2,bought_on_mars\n" * 500)
    for _ in range(2):
        failed = shop.night()
        assert "rows are bad" in failure_of(failed)
        assert made(failed) == set()
        assert shop.state() == after
    shop.look()
    assert "rows are bad" in failure_of(shop.look())
    assert "was asked for already" in shop.look()

    # Mended, as it was before: there is nothing to train.
    shop.upload(wednesday)
    assert made(shop.night()) == set()
    assert shop.state() == after
