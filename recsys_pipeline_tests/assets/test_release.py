"""What readers get: replaced as a whole if it deserves it, else as it was."""

import hashlib
import json
import pickle

import pyarrow as pa
import pytest
from dagster import AssetCheckResult, AssetSelection, DagsterInstance, asset_check, materialize

from recsys_pipeline import load_model, settings
from recsys_pipeline.assets import check_results
from recsys_pipeline.assets import release as release_module
from recsys_pipeline.assets.release import DESERVED
from recsys_pipeline.definitions import defs
from recsys_pipeline.storage.feedback import Feedback
from recsys_pipeline.storage.io_manager import WarehouseIOManager
from recsys_pipeline.storage.publishing import resume, roll_back
from recsys_pipeline.storage.releases import current_release, problems_of, read_pointer
from recsys_pipeline_tests.worlds import alone, failed_checks_of, failure_of, metadata_of, run_graph

RELEASE = alone("release")


def released(warehouse):
    return read_pointer(warehouse.root).version


def release_again(feed, warehouse, **config):
    return run_graph(feed, warehouse, selection=RELEASE, ops={"release": {"config": config}})


def test_a_release_says_why_it_was_made(shared_warehouse, shared_result):
    manifest = load_model(shared_warehouse.root).manifest

    assert manifest["decision"]["reasons_against"] == []
    assert "no asset check failed" in manifest["decision"]["reasons_for"]
    assert any("better than popularity" in reason for reason in manifest["decision"]["reasons_for"])
    assert manifest["counts"]["events"] == 560
    metadata = metadata_of(shared_result, "release")
    assert metadata["release"] == manifest["version"]
    assert "no asset check failed" in metadata["decision"]
    # Of the evaluation, as in the reasons, and not of the search.
    figure = f"MAP@10 {metadata['MAP@10 (unseen)']:.4f} of ALS against"
    assert figure in " ".join(manifest["decision"]["reasons_for"])
    assert metadata["At a glance"].startswith(f"released {manifest['version']}: {figure}")
    assert list(problems_of(current_release(shared_warehouse.root))) == []


def test_a_refusal_is_a_failed_check_and_a_failed_run_and_readers_keep_what_they_have(
    parity_csv, own_warehouse
):
    before = released(own_warehouse)
    edit_manifest(own_warehouse, lambda manifest: manifest["counts"].update(events=10_000))
    result = run_graph(parity_csv, own_warehouse, selection=RELEASE)

    reason = "the feedback has 560 events, -94.4% against the 10,000 of the last release"
    assert failure_of(result).startswith(f"not released: {reason}")
    assert failure_of(result).endswith(f"Readers keep release {before}.")
    assert failed_checks_of(result)[DESERVED].description.startswith(reason)
    assert released(own_warehouse) == before


def edit_manifest(warehouse, change):
    """Let the current release say something else of itself, and the pointer agree."""
    folder = current_release(warehouse.root).path
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    text = json.dumps(manifest)
    (folder / "manifest.json").write_text(text)
    pointer = read_pointer(warehouse.root)._replace(manifest_sha256=hashlib.sha256(text.encode()).hexdigest())
    (folder.parent / "current.json").write_bytes(pointer.to_bytes())


@asset_check(asset="best_model")
def never_holds():
    return AssetCheckResult(passed=False, description="it never does")


@asset_check(asset="best_model")
def breaks_down():
    raise RuntimeError


@asset_check(asset="best_model", name="never_holds")
def holds_now():
    return AssetCheckResult(passed=True)


def run_with(check, feed, warehouse, selection, instance=None):
    return materialize(
        [*defs.assets, *defs.asset_checks, check],
        selection=selection,
        resources={
            "feedback": Feedback(path=str(feed)),
            "warehouse": warehouse,
            "io_manager": WarehouseIOManager(warehouse=warehouse),
        },
        instance=instance,
        raise_on_error=False,
    )


def test_a_check_that_fails_in_the_run_stops_the_release(parity_csv, own_warehouse):
    before = released(own_warehouse)
    result = run_with(never_holds, parity_csv, own_warehouse, alone("best_model", "release"))

    assert failure_of(result).startswith("not released: check failed: best_model.never_holds (it never does)")
    assert released(own_warehouse) == before


def test_one_that_breaks_down_does_too_and_is_not_waited_for(parity_csv, own_warehouse, monkeypatch):
    monkeypatch.setattr(settings, "EXECUTOR", "multiprocess")
    monkeypatch.setattr(check_results, "_POLL_SECONDS", -1.0)  # which `sleep` refuses
    result = run_with(breaks_down, parity_csv, own_warehouse, alone("best_model", "release"))

    assert {event.step_key for event in result.all_events if event.is_step_failure} == {
        *("best_model_breaks_down", "release")
    }
    assert not failed_checks_of(result)[DESERVED].passed
    assert "best_model.breaks_down has no result" in failed_checks_of(result)[DESERVED].description


@pytest.mark.parametrize(
    ("check", "told"),
    [
        (never_holds, "best_model.never_holds (it never does)"),
        (breaks_down, "best_model.breaks_down has no result"),
    ],
)
@pytest.mark.runs
def test_to_repeat_the_release_alone_does_not_get_past_a_failed_check(parity_csv, own_warehouse, check, told):
    before = released(own_warehouse)
    with DagsterInstance.local_temp() as instance:
        run_with(check, parity_csv, own_warehouse, alone("best_model", "release"), instance)
        result = run_with(check, parity_csv, own_warehouse, RELEASE, instance)

    in_an_earlier_run = f"not released: check failed: {told} in an earlier run: let the check run again."
    assert failure_of(result).startswith(in_an_earlier_run)
    assert released(own_warehouse) == before


@pytest.mark.runs
def test_unless_the_check_has_passed_since(parity_csv, own_warehouse):
    with DagsterInstance.local_temp() as instance:
        run_with(never_holds, parity_csv, own_warehouse, alone("best_model"), instance)
        passes = AssetSelection.checks(holds_now)
        assert run_with(holds_now, parity_csv, own_warehouse, passes, instance).success
        assert run_with(holds_now, parity_csv, own_warehouse, RELEASE, instance).success


def test_a_list_that_breaks_a_promise_stops_the_release(parity_csv, own_warehouse):
    before = released(own_warehouse)
    table = own_warehouse.read_table("recommendations")
    own_warehouse.write_tables("recommendations", {"recommendations": pa.concat_tables([table, table[:1]])})
    result = run_graph(parity_csv, own_warehouse, selection=alone("model_card", "release"))

    assert failure_of(result).startswith("not released: promise broken: recommendations: ")
    assert released(own_warehouse) == before
    assert not list((own_warehouse.root / "releases").glob(".*"))


def test_a_damaged_last_release_is_replaced(parity_csv, own_warehouse):
    (own_warehouse.root / "releases" / "current.json").write_text("{")
    result = release_again(parity_csv, own_warehouse)

    assert result.success
    assert load_model(own_warehouse.root)


def test_after_a_rollback_nothing_is_released_until_somebody_says_so(parity_csv, own_warehouse):
    first = released(own_warehouse)
    assert release_again(parity_csv, own_warehouse).success
    roll_back(own_warehouse.root, None, "lists are stale")
    result = release_again(parity_csv, own_warehouse)

    assert "when somebody rolled back from" in failure_of(result)
    assert "(lists are stale): `recsys releases resume` ends that" in failure_of(result)
    assert released(own_warehouse) == first

    resume(own_warehouse.root)
    assert release_again(parity_csv, own_warehouse).success
    assert released(own_warehouse) > first


def test_a_hold_holds_even_if_the_release_that_was_rolled_back_to_is_damaged(parity_csv, own_warehouse):
    first = released(own_warehouse)
    assert release_again(parity_csv, own_warehouse).success
    roll_back(own_warehouse.root, None, "lists are stale")
    (own_warehouse.root / "releases" / first / "manifest.json").write_text("{")
    result = release_again(parity_csv, own_warehouse)

    assert "when somebody rolled back from" in failure_of(result)
    assert released(own_warehouse) == first


def test_so_many_releases_stay_as_the_configuration_says(parity_csv, own_warehouse):
    for _ in range(3):
        assert release_again(parity_csv, own_warehouse, keep_releases=2).success

    kept = sorted(path.name for path in (own_warehouse.root / "releases").iterdir() if path.is_dir())
    assert len(kept) == 2
    assert released(own_warehouse) == kept[-1]


def test_the_notebooks_file_is_an_implicit_model_of_the_current_release(own_warehouse):
    file = own_warehouse.root / "releases" / "implicit_recommender_model.pkl"
    # What the notebook's consumers do; the project itself never unpickles.
    theirs = pickle.loads(file.read_bytes())

    model = load_model(own_warehouse.root).model
    assert (theirs.user_factors == model.user_factors).all()
    assert theirs.user_factors.flags.writeable
    assert theirs.item_factors.flags.writeable


def test_it_is_not_written_where_nobody_wants_it(parity_csv, own_warehouse):
    assert release_again(parity_csv, own_warehouse, write_pickle=False).success

    assert not list(own_warehouse.root.rglob("*.pkl"))


@pytest.mark.parametrize("asset", ["grid_search_results", "evaluation"])
@pytest.mark.runs
def test_what_does_not_belong_together_is_not_released(parity_csv, own_warehouse, asset):
    before = released(own_warehouse)
    search = {"grid_search_results": {"config": {"factors": [3], "iterations": [2], "alpha": [1.0]}}}
    again = alone("grid_search_results", *({"evaluation"} & {asset}))
    assert run_graph(parity_csv, own_warehouse, selection=again, ops=search).success
    result = run_graph(parity_csv, own_warehouse, selection=RELEASE)

    assert result.success == (asset == "grid_search_results")
    if not result.success:
        assert "were made from different states of grid_search_results" in failure_of(result)
        assert released(own_warehouse) == before


def test_who_is_refused_because_of_a_rollback_meanwhile_is_told_what_readers_have_now(
    parity_csv, own_warehouse, monkeypatch
):
    first = released(own_warehouse)
    assert release_again(parity_csv, own_warehouse).success

    def rolled_back_meanwhile(*_):
        roll_back(own_warehouse.root, None, "")
        return []

    monkeypatch.setattr(release_module, "broken_promises", rolled_back_meanwhile)
    assert failure_of(release_again(parity_csv, own_warehouse)).endswith(f"Readers keep release {first}.")
