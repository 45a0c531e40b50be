"""What the limit of memory is."""

import pytest

from recsys_pipeline.machine.memory import GB, memory_limit

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
