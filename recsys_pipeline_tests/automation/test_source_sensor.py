"""The sensor asks for one retrain when the source has changed and settled."""

import gzip
import json
import os

import pytest
from dagster import (
    AssetKey,
    AssetMaterialization,
    DagsterRun,
    DagsterRunStatus,
    SensorResult,
    SkipReason,
    build_sensor_context,
)

from recsys_pipeline.automation.sensors import look, source_sensor
from recsys_pipeline.automation.staleness import Made
from recsys_pipeline.storage.source import seen
from recsys_pipeline_tests.automation.conftest import REPOSITORY
from recsys_pipeline_tests.storage.bucket import new_bucket


class Watch:
    """The sensor, look after look."""

    def __init__(self, shop):
        self.shop, self.cursor = shop, None

    def look(self):
        """The reason why it skips, or the request."""
        context = build_sensor_context(
            instance=self.shop.instance, cursor=self.cursor, repository_def=REPOSITORY
        )
        result = look(context)
        if isinstance(result, SensorResult):
            self.cursor = result.cursor or self.cursor
            if result.run_requests:
                (request,) = result.run_requests
                return request
            return result.skip_reason.skip_message
        assert isinstance(result, SkipReason)
        return result.skip_message


@pytest.fixture
def watch(shop):
    """The feed is the one that was read last."""
    read(shop)
    return Watch(shop)


def read(shop, **tags):
    """As if `raw_feedback` had been made of the source as it is now."""
    path = shop.run_config["resources"]["feedback"]["config"]["path"]
    source = seen([path])
    last = Made.last(shop.instance, "raw_feedback")
    told = {
        "recsys_pipeline/source": source.fingerprint,
        "recsys_pipeline/source_content": source.content() or "none",
    }
    shop.instance.report_runless_asset_event(
        AssetMaterialization(AssetKey("raw_feedback"), tags={**last.tags, **told, **tags})
    )


def change(shop, row="1,00001,click\n"):
    with shop.feed.open("a") as file:
        file.write(row)


def test_a_source_that_was_read_is_left_alone(watch):
    for _ in range(3):
        assert "is what run" in watch.look()


def test_a_change_is_asked_for_once_when_it_has_settled(watch, shop):
    change(shop)
    assert "waits until it stays as it is" in watch.look()
    change(shop)
    assert "waits until it stays as it is" in watch.look()

    request = watch.look()
    assert AssetKey("raw_feedback") in request.asset_selection
    assert AssetKey("release") in request.asset_selection
    assert "its source has changed" in request.tags["recsys_pipeline/why"]
    # The run may fail, or come to nothing: the same files are not asked for again.
    assert "was asked for already" in watch.look()


def test_a_lost_cursor_asks_under_the_same_key_which_dagster_runs_once(watch, shop):
    change(shop)
    watch.look()
    first = watch.look()
    watch.cursor = None
    watch.look()

    assert watch.look().run_key == first.run_key


def test_the_next_change_has_another_key(watch, shop):
    change(shop)
    watch.look()
    first = watch.look()
    change(shop)
    watch.look()

    assert watch.look().run_key != first.run_key


def test_a_change_that_the_night_has_read_meanwhile_is_not_asked_for(watch, shop):
    change(shop)
    watch.look()
    read(shop)

    assert "is what run" in watch.look()


def test_nor_while_a_retrain_waits_or_works(watch, shop):
    change(shop)
    watch.look()
    shop.instance.add_run(DagsterRun("retrain", run_id="at work", status=DagsterRunStatus.STARTED))

    assert watch.look().endswith("waits for run at work")


def test_a_file_that_was_written_again_as_it_was_is_not_read_again(watch, shop):
    os.utime(shop.feed, (1, 1))
    watch.look()

    assert watch.look().endswith("was written again, with the content that it had")
    assert "is what run" in watch.look()


def half(shop, name):
    """A part of a file under another name, which is the source from now on."""
    whole = gzip.compress(shop.feed.read_bytes())
    path = shop.feed.with_name(name)
    shop.run_config["resources"]["feedback"]["config"]["path"] = str(path)
    path.write_bytes(whole[: len(whole) // 2])
    return path, whole


def test_an_upload_that_has_stopped_half_way_is_waited_for(watch, shop):
    path, whole = half(shop, "feedback.csv.gz")
    watch.look()
    assert watch.look() == f"waits for the rest: {path} ends early"

    path.write_bytes(whole)
    watch.look()
    assert watch.look().run_key


def test_so_is_half_a_parquet_file(watch, shop):
    path, _ = half(shop, "feedback.parquet")
    watch.look()

    assert watch.look() == f"waits for the rest: {path} does not end as a Parquet file does"


def test_folders_and_globs_change_when_a_file_comes_or_goes(watch, shop, tmp_path):
    days = tmp_path / "days"
    days.mkdir()
    (days / "monday.csv").write_bytes(shop.feed.read_bytes())
    for path in (days, days / "*.csv"):
        shop.run_config["resources"]["feedback"]["config"]["path"] = str(path)
        read(shop)
        assert "is what run" in watch.look()
        (days / "tuesday.csv").write_bytes(shop.feed.read_bytes())
        assert "2 files" in watch.look()
        (days / "tuesday.csv").unlink()
        assert "is what run" in watch.look()


def test_an_object_store_is_looked_at_too(watch, shop, monkeypatch):
    bucket = new_bucket(monkeypatch)
    (bucket / "feedback.csv").write_text(shop.feed.read_text())
    shop.run_config["resources"]["feedback"]["config"]["path"] = str(bucket / "feedback.csv")
    read(shop)
    assert "is what run" in watch.look()

    (bucket / "feedback.csv").write_text(shop.feed.read_text() + "1,00001,click\n")
    watch.look()
    assert watch.look().run_key


def test_a_source_that_is_gone_starts_nothing(watch, shop):
    shop.feed.unlink()

    assert watch.look().startswith("the source cannot be looked at: ")


def test_where_nothing_was_ever_made_a_person_begins(watch, shop):
    shop.instance.wipe_assets([AssetKey("raw_feedback")])

    assert watch.look().startswith("nothing was ever made")


def test_a_cursor_that_cannot_be_read_counts_as_none(watch, shop):
    change(shop)
    for cursor in ("{", "[]", json.dumps({"seen": 1})):
        watch.cursor = cursor
        assert "waits until it stays as it is" in watch.look()


def test_it_is_off_where_the_setting_is_0():
    assert source_sensor(60).default_status.value == "RUNNING"
    assert source_sensor(0).default_status.value == "STOPPED"
