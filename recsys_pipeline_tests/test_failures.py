"""What is retried and what is not."""

import inspect

import pytest
from dagster import Failure, RetryRequested

from recsys_pipeline.core.errors import InputError
from recsys_pipeline.definitions import defs
from recsys_pipeline.failures import sorted_failures


def raising(error):
    with sorted_failures():
        raise error


def test_bad_input_fails_for_good_with_its_message():
    with pytest.raises(Failure) as caught:
        raising(InputError("no column 'x'"))

    assert caught.value.description == "no column 'x'"
    assert not caught.value.allow_retries


def test_what_may_pass_by_itself_is_tried_again():
    with pytest.raises(RetryRequested) as caught:
        raising(ConnectionResetError("the object store hung up"))

    assert caught.value.max_retries == 2


@pytest.mark.parametrize("error", [FloatingPointError("NaN"), KeyboardInterrupt()], ids=type)
def test_anything_else_goes_its_way(error):
    with pytest.raises(type(error)):
        raising(error)


def test_every_asset_sorts_its_failures():
    for asset in defs.assets:
        source = inspect.getsource(inspect.unwrap(asset.op.compute_fn.decorated_fn))
        assert "@sorted_failures()" in source, asset.key


def test_no_retry_policy_brings_back_a_run_that_was_terminated():
    job = defs.resolve_job_def("retrain")

    assert job.op_retry_policy is None
    assert all(node.definition.retry_policy is None for node in job.graph.nodes)
