"""Pictures in the graph: shown, kept, and in the card and the release; one that fails fails nothing."""

import base64
import json
import re
from datetime import UTC, datetime
from functools import partial
from types import SimpleNamespace

import pytest
from dagster import AssetMaterialization, DagsterInstance, build_asset_context

from recsys_pipeline import settings
from recsys_pipeline.assets import pictures as module
from recsys_pipeline.assets.pictures import drawn, kept, last_nights
from recsys_pipeline.core.picture import Picture
from recsys_pipeline.reporting.pictures.feedback import events_by_kind
from recsys_pipeline.reporting.pictures.shown import picture_metadata, with_embedded
from recsys_pipeline.storage.releases import current_release, problems_of, read_manifest, read_text
from recsys_pipeline_tests.worlds import metadata_of

OF_ASSETS = {
    "raw_feedback": {"events_by_kind"},
    "feedback_strengths": {"popularity"},
    "grid_search_results": {"hyperparameters", "heat_map", "best_trials"},
    "evaluation": {"models", "segments"},
    "release": {"history"},
}
IN_CARD = set().union(*OF_ASSETS.values()) - {"history"}


@pytest.mark.parametrize("asset", OF_ASSETS)
def test_what_the_ui_shows_is_what_lies_in_the_warehouse(asset, shared_result, shared_warehouse):
    shown = {
        name.removeprefix("picture of ").replace(" ", "_"): value
        for name, value in metadata_of(shared_result, asset).items()
        if name.startswith("picture of ")
    }

    assert set(shown) == OF_ASSETS[asset]
    for name, markdown in shown.items():
        (encoded,) = re.fullmatch(r"!\[.*\]\(data:image/png;base64,(.*)\)", markdown).groups()
        file = shared_warehouse.root / "pictures" / asset / f"{name}.png"
        assert base64.b64decode(encoded) == file.read_bytes(), name


def test_the_card_refers_to_the_pictures_beside_it_and_the_ui_has_them_within(
    shared_result, shared_warehouse
):
    folder = shared_warehouse.root / "model_card"
    text = (folder / "model_card.md").read_text()
    referred = re.findall(r"\]\((\w+)\.png\)", text)

    assert set(referred) == IN_CARD
    for name in referred:
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    shown = metadata_of(shared_result, "model_card")["card"]
    assert shown.count("(data:image/png;base64,") == len(IN_CARD)
    assert ".png)" not in shown


def test_a_release_has_its_pictures_verified_and_its_card_has_no_more_than_names(shared_warehouse):
    release = current_release(shared_warehouse.root)
    manifest = read_manifest(release)
    card = read_text(release, manifest, "model_card.md")

    assert {name for name in manifest["files"] if name.endswith(".png")} == {
        f"{name}.png" for name in (*IN_CARD, "history")
    }
    assert "data:" not in card
    assert card.rstrip().endswith("](history.png)")
    assert list(problems_of(release)) == []


def test_a_picture_that_cannot_be_drawn_is_a_warning_and_the_others_are_drawn(monkeypatch):
    monkeypatch.setattr(settings, "PICTURES", True)
    warnings = []
    context = SimpleNamespace(log=SimpleNamespace(warning=warnings.append))

    def heat_map():
        raise ValueError("no font")

    nothing_to_see = [lambda: None]
    found = drawn(context, heat_map, *nothing_to_see, partial(events_by_kind, {"view": 1}))

    assert [each.name for each in found] == ["events_by_kind"]
    assert warnings == ["the picture of heat map is not drawn: ValueError: no font"]


def test_a_picture_that_cannot_be_written_is_shown_nevertheless(monkeypatch, warehouse):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_pictures", full)
    warnings = []
    context = SimpleNamespace(
        log=SimpleNamespace(warning=warnings.append), asset_key=SimpleNamespace(path=["evaluation"])
    )

    shown = kept(context, warehouse, "one", [Picture("models", "title", b"png")])

    assert list(shown) == ["picture of models"]
    assert "No space left on device" in warnings[0]


def test_a_title_with_a_name_from_the_feed_is_no_markdown():
    (entry,) = picture_metadata([Picture("events_by_kind", "](x) <img src=y> $1$", b"")]).values()

    assert entry.md_str == r"![\](x) &lt;img src=y\> $1$](data:image/png;base64,)"


def test_only_references_become_pictures():
    text = "models.png ![title](models.png)"

    assert with_embedded(text, [Picture("models", "title", b"")]) == (
        "models.png ![title](data:image/png;base64,)"
    )


def test_the_last_runs_are_what_dagster_keeps_of_them():
    with DagsterInstance.ephemeral() as instance:
        for asset, metadata in [
            ("raw_feedback", {"dagster/row_count": 100}),
            ("evaluation", {"MAP@10": 0.08}),
            ("release", {}),
            ("raw_feedback", {"dagster/row_count": 120}),
            ("evaluation", {"MAP@10": 0.07}),  # not released
            ("evaluation", {"MAP@10 (unseen)": 0.09}),  # about to be
        ]:
            instance.report_runless_asset_event(AssetMaterialization(asset, metadata=metadata))
        nights = last_nights(build_asset_context(instance=instance), 10)

    assert [(night.map, night.events, night.released) for night in nights] == [
        (0.08, 100, True),
        (0.07, 120, False),
        (0.09, 120, True),
    ]
    assert all(night.when <= datetime.now(UTC) for night in nights)


def test_without_a_history_there_is_none():
    with DagsterInstance.ephemeral() as instance:
        assert last_nights(build_asset_context(instance=instance), 10) == []


def test_the_index_says_what_they_were_drawn_from(shared_warehouse):
    index = json.loads((shared_warehouse.root / "pictures" / "raw_feedback" / "pictures.json").read_text())

    assert index["drawn_from"] == shared_warehouse.write_id("raw_feedback")
