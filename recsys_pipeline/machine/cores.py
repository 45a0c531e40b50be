"""How many cores this process may use."""

import math
import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")


def usable_cores(cgroups: Path = CGROUPS, own: Path = OWN_CGROUP) -> int:
    """The cores that affinity and the limits of the control groups leave, at least one.

    A container that is limited to 1.5 cores sees all cores of its host: more workers than it may use would
    only wait for each other.

    Args:
        cgroups: where the control groups are mounted.
        own: the file that names the group of this process.
    """
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limits = [limit for folder in groups_of_process(cgroups, own) if (limit := _limit(folder)) is not None]
    return max(1, min([available, *(math.ceil(limit) for limit in limits)]))


def groups_of_process(cgroups: Path, own: Path) -> list[Path]:
    """The folders of the group of this process and of all that contain it; the limit of each holds."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        lines = []
    # Of version 2 there is one hierarchy, number 0.
    path = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), "/")
    group = cgroups / path.lstrip("/")
    return [folder for folder in (group, *group.parents) if folder.is_relative_to(cgroups)]


def _limit(cgroups: Path) -> float | None:
    """Cores by quota over period: cgroup v2's cpu.max, or v1's two files; None where there is no limit."""
    try:
        quota, period = (cgroups / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (cgroups / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (cgroups / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    try:
        cores = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):  # "max"
        return None
    return cores if cores > 0 else None  # v1 writes -1 for none
