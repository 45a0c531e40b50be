"""Whether two solvers found the same model: hand-worked cases."""

import numpy as np
import pytest

from recsys_pipeline.core.agreement import Agreement, agreement
from recsys_pipeline.core.comparison import Interval

N = 400
RANKS = np.random.default_rng(0).integers(1, 12, N).astype(np.uint8)


def compared(ranks, reference):
    users = np.arange(len(ranks))
    return agreement(np.asarray(ranks, np.uint8), np.asarray(reference, np.uint8), users, users, seed=1)


def test_the_figures_are_those_of_each_solver_and_of_their_difference_user_by_user():
    found = compared([1, 2, 11, 4], [1, 1, 11, 11])

    assert found.map == pytest.approx((1 + 1 / 2 + 0 + 1 / 4) / 4)
    assert found.reference_map == pytest.approx((1 + 1) / 4)
    assert found.ranks_differing == 2 / 4
    assert found.difference.low < found.map - found.reference_map < found.difference.high


def test_equal_ranks_agree():
    found = compared(RANKS, RANKS)

    assert found.holds
    assert (found.difference, found.ranks_differing) == ((0.0, 0.0), 0.0)


def test_a_few_ranks_that_rounding_moved_are_no_disagreement():
    moved = RANKS.copy()
    moved[:4] = 11 - moved[:4] % 10

    assert compared(moved, RANKS).holds


@pytest.mark.parametrize("worse", [True, False])
def test_a_small_difference_that_is_sure_is_a_disagreement(worse):
    """One user in thirty loses the first place to the second: 1.7 % of the MAP@10 and 3.3 % of the ranks."""
    moved = np.full(3000, 1, np.uint8)
    moved[::30] = 2
    first = np.ones_like(moved)
    found = compared(moved, first) if worse else compared(first, moved)

    assert found.ranks_differing < 0.05
    assert not found.holds


def test_many_ranks_that_differ_are_a_disagreement_though_the_mean_is_the_same():
    found = compared(np.tile([1, 2], N), np.tile([2, 1], N))

    assert found.difference.low < 0 < found.difference.high
    assert not found.holds


def test_a_reference_that_failed_shows_nothing():
    assert not Agreement.failed("out of memory").holds


def test_it_is_the_same_after_a_way_through_json():
    found = Agreement(0.2, 0.1, Interval(0.05, 0.15), 0.5)

    assert Agreement.from_mapping({**found._asdict(), "difference": list(found.difference)}) == found
