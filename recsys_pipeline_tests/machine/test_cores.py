"""Cores are those that the machine and the control group leave."""

import os

import pytest

from recsys_pipeline.machine.cores import usable_cores

ALL = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def write(folder, **files):
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("100000 100000", 1), ("50000 100000", 1), ("max 100000", ALL), ("99900000 100000", ALL)],
)
def test_the_limit_of_cgroup_v2(tmp_path, limit, expected):
    assert usable_cores(write(tmp_path, cpu_dot_max=f"{limit}\n")) == expected


@pytest.mark.skipif(ALL < 2, reason="a limit shows where there is more than one core")
def test_part_of_a_core_counts_as_one(tmp_path):
    assert usable_cores(write(tmp_path, cpu_dot_max="110000 100000\n")) == 2


@pytest.mark.parametrize(("quota", "expected"), [("100000", 1), ("-1", ALL)])
def test_the_limit_of_cgroup_v1(tmp_path, quota, expected):
    files = {"cpu__cpu_dot_cfs_quota_us": quota, "cpu__cpu_dot_cfs_period_us": "100000"}

    assert usable_cores(write(tmp_path, **files)) == expected


def test_no_control_group(tmp_path):
    assert usable_cores(tmp_path) == ALL


def test_the_limit_of_a_group_holds_for_the_groups_within_it(tmp_path):
    write(tmp_path, system__slice__cpu_dot_max="100000 100000\n")
    write(tmp_path, system__slice__job__cpu_dot_max="max 100000\n")
    (tmp_path / "own").write_text("0::/system/slice/job\n")

    assert usable_cores(tmp_path, tmp_path / "own") == 1
