"""An asset is stale if a run would make something else of it now; nothing else is."""

import os
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from dagster import AssetCheckEvaluation, AssetKey, AssetMaterialization, AssetSpec

from recsys_pipeline import settings
from recsys_pipeline.automation.freshness import with_freshness
from recsys_pipeline.automation.nights import SERVED
from recsys_pipeline.automation.staleness import Made, source_changed, stale_assets
from recsys_pipeline.storage.releases import Hold, read_pointer
from recsys_pipeline.storage.source import seen
from recsys_pipeline_tests.automation.conftest import REPOSITORY

ALL = {key.path[-1] for key in REPOSITORY.assets_defs_by_key}
EXPORTS = {"recommendations", "similar_items", "popular_items"}
END = {"release", "delivery", "mlflow_run"}


@pytest.fixture
def shop(shop, materialized_graph):
    """The path of the feed is configuration: it is the one that the graph was made with."""
    original = Path(materialized_graph.warehouse.path).parent / "feedback.csv"
    shop.run_config["resources"]["feedback"]["config"]["path"] = str(original)
    before = original.stat()
    content = original.read_bytes()
    yield shop._replace(feed=original)
    original.write_bytes(content)
    os.utime(original, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_nothing_is_stale_after_a_run_and_the_night_says_so(shop):
    night = shop.night()
    request = night.request(shop.instance)

    assert night.stale == {}
    assert (request.asset_selection, request.asset_check_keys) == ([], [SERVED])
    told = request.tags["recsys_pipeline/why"]
    assert told.startswith(f"nothing new: {shop.feed} of ")
    assert told.endswith(f"release {read_pointer(shop.warehouse.root).version} serves")


def test_a_feed_with_another_content_makes_everything_stale(shop):
    with shop.feed.open("a") as file:
        file.write("1,00001,click\n")
    night = shop.night()

    assert set(night.stale) == ALL
    assert night.why().startswith(f"raw_feedback: its source has changed: {shop.feed} of ")
    assert night.stale["release"].startswith("it follows ")


def test_a_feed_that_was_written_again_with_the_same_content_makes_nothing_stale(shop):
    content = shop.feed.read_bytes()
    shop.feed.unlink()
    shop.feed.write_bytes(content)
    os.utime(shop.feed, (1, 1))

    assert shop.night().stale == {}


def test_a_feed_that_is_gone_is_for_the_run_to_complain_of(shop, tmp_path):
    shutil.move(shop.feed, tmp_path / "aside.csv")
    try:
        assert "raw_feedback: its source cannot be looked at" in shop.night().why()
    finally:
        shutil.move(tmp_path / "aside.csv", shop.feed)


def test_another_configuration_makes_its_asset_stale_and_what_follows(shop):
    night = shop.night(recommendations={"n": 7})

    assert set(night.stale) == {"recommendations", "model_card", *END}
    assert night.why() == "recommendations: its configuration has changed"


def test_the_request_has_the_stale_assets_their_checks_and_their_configuration_alone(shop):
    request = shop.night(recommendations={"n": 7}).request(shop.instance)

    assert {key.path[-1] for key in request.asset_selection} == {"recommendations", "model_card", *END}
    assert request.run_config["ops"] == {"recommendations": {"config": {"n": 7}}}
    assert set(request.run_config["resources"]) == {"feedback", "warehouse"}
    assert {key.asset_key.path[-1] for key in request.asset_check_keys} == {
        "recommendations",
        "model_card",
        "release",
    }
    assert "readers_are_served" in {key.name for key in request.asset_check_keys}


def test_another_strength_of_an_event_makes_everything_stale(shop):
    shop.run_config["resources"]["feedback"]["config"]["strengths"] = {"view": 1, "click": 9}

    assert set(shop.night().stale) == ALL


def test_where_the_warehouse_is_and_how_long_a_run_waits_for_it_is_no_configuration(shop):
    shop.run_config["resources"]["warehouse"]["config"]["lock_seconds"] = 1

    assert shop.night().stale == {}


def test_a_file_of_the_shops_rules_counts_as_a_source_of_the_catalogue(shop, tmp_path):
    rules = tmp_path / "never.csv"
    rules.write_text("ProductCode\n00001\n")
    night = shop.night(catalogue={"deny_list": str(rules)})

    assert set(night.stale) == {"catalogue", *EXPORTS, "model_card", *END}
    assert night.plan.locations("catalogue") == [str(rules)]
    made = {"recsys_pipeline/source": seen([str(rules)]).fingerprint}
    assert source_changed([str(rules)], made) == ""
    rules.write_text("ProductCode\n00001\n00002\n")
    assert source_changed([str(rules)], made).startswith(f"its source has changed: {rules} of ")


def test_a_table_that_the_warehouse_has_lost_is_stale(shop):
    shutil.rmtree(shop.warehouse.root / ".tables" / "popular_items")

    night = shop.night()
    assert set(night.stale) == {"popular_items", *END}
    assert "popular_items: it is missing" in night.why()


def test_so_is_one_that_somebody_else_has_replaced(shop):
    table = shop.warehouse.read_table("popular_items")
    shop.warehouse.write_tables("popular_items", {"popular_items": table.slice(1)})

    assert shop.night().why() == "popular_items: the warehouse holds another state of it"


def made_again(shop, asset, **tags):
    last = Made.last(shop.instance, asset)
    shop.instance.report_runless_asset_event(
        AssetMaterialization(AssetKey(asset), tags={**last.tags, **tags})
    )


def test_what_was_refused_after_its_inputs_were_made_is_stale(shop):
    """The search was made again and all that follows, but for the release."""
    made_again(shop, "similar_items", **{"dagster/data_version": shop.warehouse.write_id("catalogue")})
    shutil.rmtree(shop.warehouse.root / ".tables" / "similar_items")
    shutil.copytree(
        shop.warehouse.root / ".tables" / "catalogue",
        shop.warehouse.root / ".tables" / "similar_items",
        symlinks=True,
    )

    night = shop.night()
    assert set(night.stale) == END
    assert night.why() == "release: similar_items was made again, and is another"


def test_what_was_made_again_and_is_the_same_makes_nothing_stale(shop):
    made_again(shop, "feedback_strengths")

    assert shop.night().stale == {}


def test_another_version_of_the_code_makes_its_asset_stale(shop):
    night = shop.night()
    specs = [
        spec.replace_attributes(code_version="2") if spec.key == AssetKey("model_card") else spec
        for spec in night.plan.specs
    ]
    stale = stale_assets(shop.instance, night.plan._replace(specs=specs))

    assert set(stale) == {"model_card", *END}
    assert stale["model_card"] == "its code has changed"


def test_a_release_that_is_gone_is_stale(shop):
    shutil.rmtree(shop.warehouse.root / "releases")

    night = shop.night()
    assert set(night.stale) == END
    assert "release: it is missing" in night.why()


def test_a_check_that_failed_runs_again_with_the_release_that_it_stands_against(shop):
    """Else the release could never come: it also asks what the checks of earlier runs said."""
    key = next(key for key in shop.night().plan.checks if key.name == "the_model_recommends")
    failed = AssetCheckEvaluation(asset_key=key.asset_key, check_name=key.name, passed=False, metadata={})
    shop.instance.report_runless_asset_event(failed)
    shutil.rmtree(shop.warehouse.root / "releases")

    assert key in shop.night().request(shop.instance).asset_check_keys


def test_a_database_may_have_changed_at_any_time():
    url = "postgresql://host/shop?table=events"

    assert source_changed([url], {}) == f"whether {url} has changed cannot be seen"


def test_readers_of_an_older_release_have_it_on_purpose_until_the_hold_ends(shop):
    """As `recsys releases rollback` leaves it."""
    made_again(shop, "release", **{"dagster/data_version": "20990101T000000000000Z"})
    assert set(shop.night().stale) == END

    pointer = read_pointer(shop.warehouse.root)
    held = pointer._replace(hold=Hold("2026-11-27T03:00:00+00:00", pointer.version, "worse"))
    (shop.warehouse.root / "releases" / "current.json").write_bytes(held.to_bytes())
    for name in ("delivery", "mlflow_run"):
        made_again(shop, name, **{"dagster/input_data_version/release": "20990101T000000000000Z"})
    night = shop.night()
    assert night.stale == {}
    assert "releases are held since" in night.request(shop.instance).tags["recsys_pipeline/why"]


def test_the_release_alone_may_be_overdue():
    spec = REPOSITORY.assets_defs_by_key[AssetKey("release")].get_asset_spec(AssetKey("release"))

    assert spec.freshness_policy.fail_window.to_timedelta() == timedelta(hours=settings.MAX_RELEASE_HOURS)
    assert with_freshness(AssetSpec("delivery")).freshness_policy is None
    assert with_freshness(AssetSpec("release"), hours=0).freshness_policy is None
