"""One run at a time writes a warehouse; whoever comes second waits or says for whom."""

import os
import signal
import time
from itertools import count

import pytest
from dagster import asset, materialize
from upath import UPath

from recsys_pipeline.core.errors import InputError
from recsys_pipeline.storage.lock import held_by_run
from recsys_pipeline.storage.warehouse import Warehouse
from recsys_pipeline_tests.storage.bucket import new_bucket
from recsys_pipeline_tests.storage.killing import alive_inside


@pytest.fixture
def root(tmp_path):
    return UPath(tmp_path / "warehouse")


def run(root, run_id, patience_seconds=0.0, log=pytest.fail):
    return held_by_run(root, run_id, patience_seconds, log)


def test_a_run_holds_the_warehouse_until_it_ends(root):
    for run_id in ("first", "second"):
        with run(root, run_id):
            pass


def test_a_second_run_fails_when_it_has_waited_long_enough_and_names_the_first(root):
    with (
        alive_inside(run(root, "first")) as process,
        pytest.raises(InputError, match=rf"is in use by run first \(process {process} on .*`lock_seconds`"),
        run(root, "second"),
    ):
        pytest.fail("both run")


def test_a_second_run_says_once_for_whom_it_waits_and_goes_on_when_the_first_was_killed(root, monkeypatch):
    told, polls = [], count(1)
    with alive_inside(run(root, "first")) as process:

        def sleep(_):
            if next(polls) == 3:
                os.kill(process, signal.SIGKILL)

        monkeypatch.setattr(time, "sleep", sleep)
        with run(root, "second", 60, told.append):
            pass

    (message,) = told
    assert f"is in use by run first (process {process} on " in message
    assert message.endswith("waiting for it")


def test_the_steps_of_a_run_hold_it_together_and_the_last_one_lets_go(root):
    with run(root, "first"):
        with alive_inside(run(root, "first")), pytest.raises(InputError), run(root, "second"):
            pytest.fail("both run")
        # One step has ended, the other has not.
        with pytest.raises(InputError, match="run first"), run(root, "second"):
            pytest.fail("both run")
    with run(root, "second"):
        pass


@pytest.mark.parametrize("content", ["", "{", "[]", "\udcff"])
def test_what_a_killed_run_left_in_the_lock_file_stops_nobody(root, content):
    root.mkdir()
    (root / ".lock").write_text(content, errors="surrogateescape")

    with run(root, "first"), pytest.raises(InputError, match="run first"), run(root, "second"):
        pytest.fail("both run")


def test_a_warehouse_that_cannot_be_locked_says_why(root):
    (root / ".lock").mkdir(parents=True)

    with pytest.raises(InputError, match=r"cannot be locked .*Is a directory.*\.lock"), run(root, "first"):
        pytest.fail("it runs")


def test_an_object_store_has_no_lock(monkeypatch):
    store = new_bucket(monkeypatch)

    with run(store, "first"), run(store, "second"):
        assert not store.exists()


def test_a_run_of_dagster_that_finds_it_in_use_does_nothing_and_says_why(root):
    done = []

    @asset
    def anything(warehouse: Warehouse) -> None:
        done.append(warehouse)

    def run_dagster():
        warehouse = Warehouse(path=str(root), lock_seconds=0)
        return materialize([anything], resources={"warehouse": warehouse}, raise_on_error=False)

    with run(root, "of somebody else"):
        refused = run_dagster()
    assert not refused.success
    assert not done
    messages = [str(event.event_specific_data) for event in refused.all_events if event.is_failure]
    assert any("is in use by run of somebody else" in message for message in messages)

    assert run_dagster().success
    assert len(done) == 1
