"""Memory is bounded by configuration: what the limit is, and how many fits it is enough for."""

import numpy as np
import pytest

from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.holdout import Split
from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.pattern import Pattern
from recsys_pipeline.engines.local.memory import Budget, data_bytes, fit_bytes


def trial(factors):
    return Hyperparameters(
        factors=factors, regularization=0.1, alpha=1.0, iterations=1, bm25_K1=100.0, bm25_B=0.8
    )


@pytest.fixture
def splits():
    pattern = Pattern.from_coordinates(np.repeat(np.arange(50), 4), np.tile(np.arange(4), 50), (50, 4))
    return [Split.leaving_out(pattern, np.ones(200), np.arange(0, 200, 4))]


def test_arrays_that_splits_share_count_once(splits):
    assert data_bytes(splits * 2) == data_bytes(splits)


def test_the_widest_trial_decides_how_many_fits_run_side_by_side(splits):
    narrow, wide = trial(8), trial(64)
    room = 2 * fit_bytes(splits, wide)
    budget = Budget.of(2 * data_bytes(splits) + room, splits, wanted=4)

    assert fit_bytes(splits, wide) > fit_bytes(splits, narrow)
    assert budget.fits_at_once(wide) == 2
    assert budget.fits_at_once(narrow) == 4
    assert budget.memory([narrow, wide]).told.endswith("so 2 workers instead of 4")
    assert "instead" not in budget.memory([narrow]).told
    assert budget.memory([narrow, wide]).enough


def test_one_fit_that_may_not_fit_is_tried_and_said(splits):
    budget = Budget.of(2 * data_bytes(splits) + 10, splits, wanted=4)
    memory = budget.memory([trial(64)])

    assert budget.fits_at_once(trial(64)) == 1
    assert not memory.enough
    assert "a fit of 64 factors" in memory.told
    assert "RECSYS_MEMORY_LIMIT" in memory.told


def test_data_beyond_the_limit_are_refused(splits):
    with pytest.raises(InputError, match=r"the interactions alone take .*RECSYS_MEMORY_LIMIT"):
        Budget.of(100, splits, wanted=1)
