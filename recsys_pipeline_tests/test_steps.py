"""What every step has in common: inputs that belong together, and what becomes of an error."""

import contextlib
import errno
import inspect
import os
from pathlib import Path

import pyarrow as pa
import pytest
from dagster import (
    AssetCheckResult,
    AssetExecutionContext,
    AssetSelection,
    Config,
    DagsterExecutionInterruptedError,
    DagsterInstance,
    Failure,
    MaterializeResult,
    RetryRequested,
    asset,
    materialize,
)
from dagster._core.execution.plan.objects import ErrorSource
from fsspec.implementations.memory import MemoryFileSystem

from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.lineage import Lineage, as_written, with_ancestors
from recsys_pipeline.definitions import defs
from recsys_pipeline.reporting.trials import told_terminated
from recsys_pipeline.steps import failures
from recsys_pipeline.steps.failures import Terminated, classify_errors, told_if_terminated
from recsys_pipeline.steps.step import asset_step, check_step
from recsys_pipeline_tests.storage.bucket import new_bucket
from recsys_pipeline_tests.worlds import metadata_of, run_graph


def table_of(asset, **ancestors):
    return as_written(with_ancestors(pa.table({"x": [1]}), ancestors), asset, f"state of {asset}")


# Both say of which state of the feed they are.
RESULTS, SPLIT = table_of("results", feed="monday"), table_of("split", feed="tuesday")
REFUSED = "split and results were made from different states of feed: materialize results and split again"


def function_of(definition):
    """What Dagster calls."""
    return definition.op.compute_fn.decorated_fn


ASSETS = {asset.key.path[-1]: asset for asset in defs.assets}
CHECKS = {check.node_def.name: check for check in defs.asset_checks}


# --- Inputs ---


@pytest.mark.parametrize("name", ASSETS)
def test_no_asset_is_made_from_inputs_of_different_ancestors(name):
    function = function_of(ASSETS[name])
    with pytest.raises(Failure) as refused:
        list(function(RESULTS, SPLIT)) if inspect.isgeneratorfunction(function) else function(RESULTS, SPLIT)

    assert refused.value.description.startswith(REFUSED)
    assert not refused.value.allow_retries


@pytest.mark.parametrize("name", CHECKS)
def test_no_claim_holds_of_inputs_of_different_ancestors(name):
    made = function_of(CHECKS[name])(RESULTS, other=SPLIT)
    results = [made]
    if not isinstance(made, AssetCheckResult):
        results = []
        with contextlib.suppress(Failure):  # by which a claim that blocks ends the step
            results.extend(made)

    assert {result.check_name for result in results} <= {None, *(key.name for key in CHECKS[name].check_keys)}
    assert not any(result.passed for result in results)
    assert all(result.description.startswith(REFUSED) for result in results)
    assert len(results) == len(list(CHECKS[name].check_keys))


def test_all_tables_of_an_asset_name_its_inputs_and_what_those_were_made_from():
    @asset_step
    def compute(results, feedback):
        return MaterializeResult(value={"first": results.slice(1), "second": pa.table({"from": [feedback]})})

    made = compute(RESULTS, feedback="a resource").value

    for table in made.values():
        read = as_written(table, "mine", "1")
        assert Lineage.of(read).ancestors == {"results": "state of results", "feed": "monday"}


@check_step
def check_that_raises(error):
    raise error


def test_a_claim_about_what_is_damaged_is_false_and_says_why():
    result = check_that_raises(InputError("best_model/current.json is missing"))

    assert result == AssetCheckResult(passed=False, description="best_model/current.json is missing")


def test_but_an_io_error_says_nothing_about_a_claim():
    with pytest.raises(RetryRequested):
        check_that_raises(ConnectionResetError("the object store hung up"))


# --- Errors ---


def raising(error):
    with classify_errors():
        raise error


def test_bad_input_fails_for_good_with_its_message():
    with pytest.raises(Failure) as caught:
        raising(InputError("no column 'x'"))

    assert caught.value.description == "no column 'x'"
    assert not caught.value.allow_retries


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError("the object store hung up"),
        TimeoutError("the object store says nothing"),
        OSError(errno.EIO, "Input/output error", "feed.csv"),
        OSError("an object store's own error, without a number"),
    ],
    ids=repr,
)
def test_transient_io_errors_are_tried_again(error):
    with pytest.raises(RetryRequested) as caught:
        raising(error)

    assert caught.value.max_retries == 2


@pytest.mark.parametrize(
    ("number", "mend"),
    [
        (errno.ENOSPC, "there is no space left: free some, or choose another RECSYS_WAREHOUSE or TMPDIR"),
        (errno.EDQUOT, "the disk quota is used up: free some, or choose another RECSYS_WAREHOUSE or TMPDIR"),
        (errno.EROFS, "the file system is read-only: choose another RECSYS_WAREHOUSE"),
        (errno.EACCES, "permission is denied: let the user of this process read and write it"),
        (errno.EPERM, "the operation is not permitted: let the user of this process read and write it"),
        (errno.EISDIR, "it is a folder where a file is expected: move it away"),
        (errno.ENOTDIR, "it is a file where a folder is expected: move it away"),
    ],
)
def test_what_only_a_person_can_mend_fails_for_good_with_its_path_and_the_mend(number, mend):
    with pytest.raises(Failure) as caught:
        raising(OSError(number, os.strerror(number), "/data/warehouse/x.parquet"))

    assert caught.value.description == f"/data/warehouse/x.parquet: {mend}."
    assert not caught.value.allow_retries


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the device that is always full is Linux's")
def test_so_does_a_disk_that_is_really_full():
    """Arrow's own error, which has the number and the text but no path."""
    with (
        pytest.raises(Failure, match="No space left on device: there is no space left: free some"),
        classify_errors(),
        pa.OSFile("/dev/full", "wb") as file,
    ):
        file.write(b"x")


@pytest.mark.parametrize("error", [FloatingPointError("NaN"), KeyboardInterrupt()], ids=type)
def test_anything_else_goes_its_way(error):
    with pytest.raises(type(error)):
        raising(error)


@pytest.fixture
def feed_in_a_bucket(monkeypatch, parity_csv):
    """The feed on an object store, and a way to let opening it fail."""
    bucket = new_bucket(monkeypatch)
    (bucket / "feedback.csv").write_text(parity_csv.read_text())
    errors = []

    def open_or_fail(self, path, *arguments, **options):
        if errors and str(path).endswith("feedback.csv"):
            raise errors.pop()
        return opened(self, path, *arguments, **options)

    opened = MemoryFileSystem._open
    monkeypatch.setattr(MemoryFileSystem, "_open", open_or_fail)
    monkeypatch.setattr(failures, "_SECONDS_BETWEEN", 0)
    return str(bucket / "feedback.csv"), errors


FEED = AssetSelection.assets("raw_feedback")


def test_a_store_that_hangs_up_twice_costs_two_retries_and_no_run(feed_in_a_bucket, warehouse):
    feed, errors = feed_in_a_bucket
    errors += [ConnectionResetError("hung up")] * 2
    result = run_graph(feed, warehouse, selection=FEED)

    assert result.success
    assert metadata_of(result, "raw_feedback")["dagster/row_count"] == 560
    assert len([event for event in result.all_events if event.is_step_up_for_retry]) == 2


def test_and_for_good_the_third_time(feed_in_a_bucket, warehouse):
    feed, errors = feed_in_a_bucket
    errors += [ConnectionResetError("hung up")] * 3

    assert not run_graph(feed, warehouse, selection=FEED).success
    assert errors == []


def test_no_retry_policy_brings_back_a_run_that_was_terminated():
    job = defs.resolve_job_def("retrain")

    assert job.op_retry_policy is None
    assert all(node.definition.retry_policy is None for node in job.graph.nodes)


# --- What a step says ---


class Knobs(Config):
    """What can be set."""

    turns: int = 3


@asset
@asset_step
def turned(context: AssetExecutionContext, config: Knobs) -> MaterializeResult[None]:  # noqa: ARG001  # to log
    """An asset that is configured."""
    if config.turns == 0:
        raise InputError(
            "nothing turns", {"reasons": {"no turn": 1200}, "where": Path("/feed/rejected.parquet")}
        )
    if config.turns == 1:
        raise DagsterExecutionInterruptedError
    return MaterializeResult(metadata={"where it is": "here", "settings": "these", "At a glance": "it turns"})


def run_turned(instance, **config):
    return materialize(
        [turned], run_config={"ops": {"turned": {"config": config}}}, instance=instance, raise_on_error=False
    )


@pytest.mark.parametrize(
    ("config", "told"),
    [({}, "configuration: the default"), ({"turns": 7}, "configuration: turns 7; else the default")],
)
def test_it_says_first_in_what_its_configuration_differs_from_the_default(config, told):
    """Dagster takes a misspelt name of an asset without a word, and runs the default."""
    with DagsterInstance.ephemeral() as instance:
        result = run_turned(instance, **config)
        said = [
            entry.user_message for entry in instance.all_logs(result.run_id) if not entry.is_dagster_event
        ]

    assert said == [told]


def test_its_metadata_are_in_the_order_in_which_they_are_shown():
    with DagsterInstance.ephemeral() as instance:
        names = list(metadata_of(run_turned(instance), "turned"))

    assert names == ["At a glance", "settings", "where it is"]


def test_a_failure_carries_what_is_known_of_its_reason():
    with DagsterInstance.ephemeral() as instance:
        (failed,) = [event for event in run_turned(instance, turns=0).all_events if event.is_step_failure]
    known = failed.step_failure_data.user_failure_data.metadata

    assert "| no turn | 1,200 |" in known["reasons"].value
    assert known["where"].value == "/feed/rejected.parquet"


def test_a_terminated_step_is_interrupted_and_says_what_it_leaves_instead_of_where_it_stood():
    with DagsterInstance.ephemeral() as instance:
        (failed,) = [event for event in run_turned(instance, turns=1).all_events if event.is_step_failure]
    error = failed.step_failure_data.error

    assert failed.step_failure_data.error_source is ErrorSource.INTERRUPT
    assert error.message == "terminated; what this asset has made before stays as it was"
    assert error.stack == []


def test_what_a_step_knows_better_is_what_its_termination_says():
    with (
        pytest.raises(Terminated, match="terminated, 10 of 64 trials kept"),
        told_if_terminated(lambda: "outside"),
        told_if_terminated(lambda: told_terminated(10, 64)),
    ):
        raise KeyboardInterrupt
