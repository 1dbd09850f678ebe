"""What this process may use of the machine: CPUs and memory.

The kernel bounds a process in several ways at once: the CPUs that it may run on, a quota of CPU
time, the RAM of the machine, limits on memory. Quotas and limits on memory belong to control groups
(cgroups), of version 1 or 2, and hold for a group with everything below it: the tightest of a group
and its ancestors counts. A leaf: imports nothing of the service.
"""

import os
import re
import resource
from collections.abc import Iterator
from math import ceil
from pathlib import Path, PurePosixPath
from typing import Final

__all__ = ["usable_cpus", "usable_memory_bytes"]

_PROCESS: Final = Path("/proc/self")
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")
"""A character that would end a field of `mountinfo`, as octal digits."""


def usable_cpus(*, process: Path = _PROCESS, allowed: int | None = None) -> int:
    """CPUs that this process can keep busy: those it may run on, or what its quota is worth.

    A quota of 2.5 CPUs counts as 3; the result is at least 1.

    Args:
        process: folder with the files `cgroup` and `mountinfo` of the process.
        allowed: CPUs that it may run on; by default what the operating system says.
    """
    if allowed is None:
        allowed = _allowed_cpus()
    quotas = [quota for group in _groups(process, "cpu") for quota in _cpu_quotas(group)]
    return max(1, min([allowed, *map(ceil, quotas)]))


def usable_memory_bytes(
    *, process: Path = _PROCESS, ram: int | None = None, address_space: int | None = None
) -> int:
    """Bytes of memory that this process can have: the machine's RAM, or a limit below it.

    Args:
        process: folder with the files `cgroup` and `mountinfo` of the process.
        ram: bytes of RAM; by default those of the machine.
        address_space: `RLIMIT_AS` in bytes, below 0 for none; by default that of this process.
    """
    if ram is None:
        ram = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if address_space is None:
        address_space = resource.getrlimit(resource.RLIMIT_AS)[0]
    limits = [limit for group in _groups(process, "memory") for limit in _memory_limits(group)]
    if address_space >= 0 and address_space != resource.RLIM_INFINITY:
        limits.append(address_space)
    return min([ram, *limits])


def _allowed_cpus() -> int:
    if hasattr(os, "process_cpu_count"):  # from Python 3.13 on; it heeds PYTHON_CPU_COUNT too
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_quotas(group: Path) -> Iterator[float]:
    """The quota of a group in CPUs, if it has one."""
    # Version 2: `max 100000` or `150000 100000`, microseconds of CPU time in each period.
    limit = _words(group / "cpu.max") or [
        # Version 1: -1 where there is none.
        *_words(group / "cpu.cfs_quota_us"),
        *_words(group / "cpu.cfs_period_us"),
    ]
    match limit:
        case [quota, period] if quota.isdecimal() and period.isdecimal() and int(period) > 0:
            yield int(quota) / int(period)


def _memory_limits(group: Path) -> Iterator[int]:
    """The limits of a group in bytes."""
    # Above memory.high the kernel reclaims without end, which is as good as a limit. Version 1
    # shows a number near 2**63 where there is none.
    for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
        match _words(group / name):
            case [limit] if limit.isdecimal():
                yield int(limit)


def _groups(process: Path, controller: str) -> Iterator[Path]:
    """The folders of the groups that bound the process, each with its ancestors, both versions."""
    paths = _paths_of_groups(process, controller)
    for line in _lines(process / "mountinfo"):
        before, _, after = line.partition(" - ")
        mount, kind = before.split(" "), after.split(" ")
        if len(mount) < 5 or len(kind) < 3 or kind[0] not in paths:
            continue
        if kind[0] == "cgroup" and controller not in kind[2].split(","):
            continue
        top = Path(_unescaped(mount[4]))
        try:
            below = PurePosixPath(paths[kind[0]]).relative_to(_unescaped(mount[3]))
        except ValueError:
            # Of another namespace than the mount: what is mounted is the best guess there is.
            below = PurePosixPath()
        if ".." in below.parts:
            below = PurePosixPath()
        yield from (top / part for part in (below, *below.parents))


def _paths_of_groups(process: Path, controller: str) -> dict[str, str]:
    """The path of the process's group in each version's tree, by the type of its file system."""
    paths = {}
    for line in _lines(process / "cgroup"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            paths["cgroup2"] = path
        elif controller in controllers.split(","):
            paths["cgroup"] = path
    return paths


def _lines(path: Path) -> list[str]:
    try:
        return os.fsdecode(path.read_bytes()).split("\n")
    except OSError:  # not Linux, or /proc is hidden
        return []


def _words(path: Path) -> list[str]:
    return " ".join(_lines(path)).split()


def _unescaped(field: str) -> str:
    return _ESCAPED.sub(lambda digits: chr(int(digits[1], 8)), field)
