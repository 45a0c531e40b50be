"""Memory is bounded by configuration: what the limit is, and how many fits it is enough for."""

import numpy as np
import pytest

from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.holdout import Split
from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.pattern import Pattern
from recsys_pipeline.engines.local.memory import GB, Budget, data_bytes, fit_bytes, memory_limit

MACHINE_KB = 24 * 10**6


@pytest.fixture
def meminfo(tmp_path):
    path = tmp_path / "meminfo"
    path.write_text(f"MemTotal:       {MACHINE_KB} kB\nMemFree:        1 kB\n")
    return path


def group(folder, limit, name="memory.max"):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"{limit}\n")


def limit_in(tmp_path, meminfo, own="/"):
    (tmp_path / "own").write_text(f"0::{own}\n")
    return memory_limit(0.0, tmp_path / "cgroups", tmp_path / "own", meminfo)


def test_three_quarters_of_the_machine_where_nothing_limits_it(tmp_path, meminfo):
    assert limit_in(tmp_path, meminfo) == 0.75 * MACHINE_KB * 1024


@pytest.mark.parametrize("name", ["memory.max", "memory/memory.limit_in_bytes"], ids=["v2", "v1"])
def test_or_of_the_control_group(tmp_path, meminfo, name):
    group(tmp_path / "cgroups", 8 * GB, name)

    assert limit_in(tmp_path, meminfo) == 6 * GB


@pytest.mark.parametrize("limit", ["max", 2**63 - 4096])
def test_a_control_group_without_a_limit_leaves_the_machine(tmp_path, meminfo, limit):
    group(tmp_path / "cgroups", limit)

    assert limit_in(tmp_path, meminfo) == 0.75 * MACHINE_KB * 1024


def test_the_limit_of_a_group_holds_for_the_groups_within_it(tmp_path, meminfo):
    group(tmp_path / "cgroups" / "pod", 4 * GB)
    group(tmp_path / "cgroups" / "pod" / "container", 8 * GB)

    assert limit_in(tmp_path, meminfo, own="/pod/container") == 3 * GB


def test_what_a_person_sets_counts_alone(tmp_path, meminfo):
    assert memory_limit(2.5, tmp_path, tmp_path, meminfo) == 2_500_000_000


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
