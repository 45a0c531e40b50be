"""The pictures of an asset: files of their own, replaced all at once, and only for what they show."""

import os

import pytest

from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.picture import Picture
from recsys_pipeline.storage.pictures import read_pictures, write_pictures
from recsys_pipeline_tests.storage.bucket import new_bucket

MODELS = Picture("models", "tuned ALS beats <b>$all$", b"first")
SEGMENTS = Picture("segments", "for whom", b"second")


def test_they_lie_under_the_name_of_the_asset_and_are_replaced_as_one(warehouse):
    write_pictures(warehouse.root, "evaluation", [MODELS, SEGMENTS], "one")
    folder = write_pictures(warehouse.root, "evaluation", [MODELS._replace(content=b"third")], "two")

    assert folder == warehouse.root / "pictures" / "evaluation"
    assert sorted(os.listdir(str(folder))) == ["manifest.json", "models.png", "pictures.json"]
    assert (folder / "models.png").read_bytes() == b"third"


def test_who_asks_for_other_tables_gets_none(warehouse):
    write_pictures(warehouse.root, "evaluation", [MODELS], "one")

    assert read_pictures(warehouse.root, "evaluation", "one") == [MODELS]
    assert read_pictures(warehouse.root, "evaluation", "two") == []
    assert read_pictures(warehouse.root, "raw_feedback", "one") == []


def test_what_another_program_changed_is_refused(warehouse):
    folder = write_pictures(warehouse.root, "evaluation", [MODELS], "one")
    (folder / "models.png").write_bytes(b"other")

    with pytest.raises(InputError, match="is not what was written"):
        read_pictures(warehouse.root, "evaluation", "one")


def test_an_object_store_keeps_them_too(monkeypatch):
    bucket = new_bucket(monkeypatch)
    folder = write_pictures(bucket, "evaluation", [MODELS, SEGMENTS], "one")

    assert read_pictures(bucket, "evaluation", "one") == [MODELS, SEGMENTS]
    assert (folder / "models.png").read_bytes() == b"first"
