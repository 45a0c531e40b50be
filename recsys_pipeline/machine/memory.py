"""How much memory this process and its workers may use."""

import os
from pathlib import Path

from recsys_pipeline.machine.cores import CGROUPS, OWN_CGROUP, groups_of_process

GB = 10**9
_SHARE_OF_MACHINE = 0.75
_UNITS = (("GB", GB), ("MB", 10**6), ("kB", 10**3))
_MEMINFO = Path("/proc/meminfo")


def memory_limit(
    wanted_gb: float = 0.0, cgroups: Path = CGROUPS, own: Path = OWN_CGROUP, meminfo: Path = _MEMINFO
) -> int:
    """Bytes: what is wanted, or by default three quarters of what the machine and its control groups leave.

    Args:
        wanted_gb: in units of 10^9 bytes; 0 for the default.
        cgroups: where the control groups are mounted.
        own: the file that names the group of this process.
        meminfo: the file that tells the memory of the machine.
    """
    if wanted_gb:
        return int(wanted_gb * GB)
    limits = [limit for folder in groups_of_process(cgroups, own) if (limit := _limit(folder)) is not None]
    return int(_SHARE_OF_MACHINE * min([_of_machine(meminfo), *limits]))


def told(n_bytes: float) -> str:
    """Bytes for people."""
    unit, n = next(((unit, n) for unit, n in _UNITS if n_bytes >= n), _UNITS[-1])
    return f"{n_bytes / n:.3g} {unit}"


def _of_machine(meminfo: Path) -> int:
    try:
        lines = meminfo.read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemTotal:"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")  # macOS has no /proc


def _limit(cgroup: Path) -> int | None:
    """Bytes by cgroup v2's memory.max, or v1's file; None where there is no limit."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            return int((cgroup / name).read_text())
        except (OSError, ValueError):  # "max"
            continue
    return None
