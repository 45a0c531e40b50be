"""Owners, tags, versions of the code and column lineage of the assets."""

import shutil

import pytest
from dagster import AssetKey, DagsterInstance

from recsys_pipeline import attributes, load_model
from recsys_pipeline.assets.run_tags import RELEASE
from recsys_pipeline.attributes import code_version, with_attributes
from recsys_pipeline.core.column_lineage import sources_of
from recsys_pipeline.definitions import defs
from recsys_pipeline_tests.conftest import PROJECT
from recsys_pipeline_tests.worlds import alone, metadata_of, run_graph

LOCAL = "recsys_pipeline.engines.local"
SPECS = {spec.key.to_user_string(): spec for asset in defs.assets for spec in asset.specs}


def test_every_asset_has_a_stage_kinds_and_a_version_of_its_code():
    assert all(spec.tags.get("stage") and spec.kinds and spec.code_version for spec in SPECS.values())


def test_owners_are_those_of_the_settings():
    owned = with_attributes(defs.assets, owners=["team:recommendations"])

    assert {owner for asset in owned for spec in asset.specs for owner in spec.owners} == {
        "team:recommendations"
    }


# --- Code versions ---


@pytest.fixture
def versions(tmp_path, monkeypatch):
    """A copy of the package, and the versions of the search and of the release in it as it is."""
    package = tmp_path / "recsys_pipeline"
    shutil.copytree(PROJECT / "recsys_pipeline", package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(attributes, "_PACKAGE", package)

    def now(changed=""):
        if changed:
            module = package / changed
            module.write_text(module.read_text() + "\n# changed\n")
        forget()
        return [code_version(f"recsys_pipeline.assets.{name}") for name in ("search", "release")]

    yield now
    forget()


def forget():
    for cached in (attributes.code_version, attributes._imported, attributes._path):
        cached.cache_clear()


@pytest.mark.parametrize(
    ("changed", "search_changes", "release_changes"),
    [
        ("assets/release.py", False, True),
        ("storage/publishing.py", False, True),
        ("reporting/trials.py", False, False),
        ("engines/local/kernels.py", True, False),
        ("core/folding.py", False, False),
    ],
)
def test_the_version_changes_with_what_the_asset_imports_and_with_nothing_else(
    versions, changed, search_changes, release_changes
):
    before = versions()
    assert versions() == before

    after = versions(changed)
    assert [old != new for old, new in zip(before, after, strict=True)] == [search_changes, release_changes]


def test_what_a_process_of_its_own_runs_counts_too():
    assert "recsys_pipeline.engines.local.worker" in attributes._imported(
        "recsys_pipeline.engines.local.pool"
    )
    assert code_version("recsys_pipeline.assets.search") != code_version("recsys_pipeline.assets.model")


# --- Column lineage ---


def test_columns_name_the_columns_that_they_are_made_of(shared_result):
    found = metadata_of(shared_result, "feedback_strengths")["dagster/column_lineage"].deps_by_column

    assert [(dep.asset_key, dep.column_name) for dep in found["UserID"]] == [
        (AssetKey("raw_feedback"), "UserID")
    ]
    assert [dep.column_name for dep in found["count_view"]] == ["Event"]


def test_what_columns_are_made_of_is_upstream_and_there(shared_result):
    """As far as the other asset has columns that Dagster knows."""
    columns = {}
    for name in SPECS:
        schema = metadata_of(shared_result, name).get("dagster/column_schema")
        columns[name] = {column.name for column in schema.columns} if schema else set()
    for name in SPECS:
        for column, sources in sources_of(name, columns[name]).items():
            for other, of_other in sources:
                assert column in columns[name]
                assert other in SPECS
                assert of_other in columns[other] or other == "best_model"


# --- The list of runs ---


@pytest.mark.runs
def test_a_run_is_tagged_with_its_figure_and_its_release(parity_csv, own_warehouse):
    with DagsterInstance.local_temp() as instance:
        result = run_graph(parity_csv, own_warehouse, selection=alone("release"), instance=instance)
        tags = instance.get_run_by_id(result.run_id).tags

    manifest = load_model(own_warehouse.root).manifest
    assert tags[RELEASE] == manifest["version"]
    assert tags["MAP@10"] == f"{manifest['evaluation']['models'][0]['map']:.4f}"
