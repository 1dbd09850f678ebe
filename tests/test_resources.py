import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from resmem_service import resources
from resmem_service.resources import usable_cpus, usable_memory_bytes

_GIB = 2**30


class Machine:
    """A fabricated `/proc/self` and the control groups that it names."""

    def __init__(self, folder: Path) -> None:
        self.process = folder / "proc" / "self"
        self.mounts = folder / "sys fs"  # with a space, which mountinfo writes as \040
        self.process.mkdir(parents=True)

    def describe(self, groups: str, *mounts: tuple[str, str, str, str]) -> None:
        """Writes `cgroup` and `mountinfo`; a mount is (root, folder, type, options)."""
        (self.process / "cgroup").write_text(groups)
        lines = ["22 27 0:21 / /proc rw,relatime - proc proc rw"]
        for number, (root, folder, kind, options) in enumerate(mounts, 30):
            point = str(self.mounts / folder).replace(" ", "\\040")
            lines.append(f"{number} 22 0:{number} {root} {point} rw - {kind} {kind} {options}")
        (self.process / "mountinfo").write_text("\n".join(lines) + "\n")

    def write(self, group: str, **files: str) -> None:
        folder = self.mounts / group
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name.replace("__", ".")).write_text(content + "\n")

    def cpus(self, allowed: int = 64) -> int:
        return usable_cpus(process=self.process, allowed=allowed)

    def memory(self, ram: int = 64 * _GIB, address_space: int = -1) -> int:
        return usable_memory_bytes(process=self.process, ram=ram, address_space=address_space)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("max 100000", 8),
        ("100000 100000", 1),
        ("150000 100000", 2),
        ("250000 50000", 5),
        ("1000 100000", 1),
        ("6400000 100000", 8),
        ("400000 0", 8),
        ("nonsense", 8),
        ("", 8),
    ],
)
def test_a_quota_of_version_2_counts_rounded_up_and_at_least_one(
    machine: Machine, quota: str, expected: int
) -> None:
    machine.describe("0::/app\n", ("/", "cgroup", "cgroup2", "rw"))
    machine.write("cgroup/app", cpu__max=quota)
    assert machine.cpus(allowed=8) == expected


@pytest.mark.parametrize(
    ("quota", "period", "expected"),
    [("-1", "100000", 8), ("200000", "100000", 2), ("110000", "100000", 2), ("50000", "0", 8)],
)
def test_a_quota_of_version_1(machine: Machine, quota: str, period: str, expected: int) -> None:
    machine.describe(
        "5:memory:/\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n",
        ("/", "cgroup/memory", "cgroup", "rw,memory"),
        ("/", "cgroup/cpu", "cgroup", "rw,cpu,cpuacct"),
    )
    machine.write("cgroup/cpu/docker/abc", cpu__cfs_quota_us=quota, cpu__cfs_period_us=period)
    assert machine.cpus(allowed=8) == expected


def test_the_tightest_of_a_group_and_its_ancestors_counts(machine: Machine) -> None:
    machine.describe("0::/pod/container/app\n", ("/", "cgroup", "cgroup2", "rw"))
    machine.write("cgroup", cpu__max="3200000 100000", memory__max="max")
    machine.write("cgroup/pod", cpu__max="200000 100000", memory__max=str(2 * _GIB))
    machine.write("cgroup/pod/container", cpu__max="max 100000", memory__max=str(4 * _GIB))
    machine.write("cgroup/pod/container/app", cpu__max="600000 100000", memory__max="max")
    machine.write("cgroup/pod/sibling", cpu__max="100000 100000", memory__max="4096")
    assert machine.cpus() == 2
    assert machine.memory() == 2 * _GIB


def test_in_a_namespace_of_its_own_the_group_is_what_is_mounted(machine: Machine) -> None:
    machine.describe("0::/\n", ("/", "cgroup", "cgroup2", "rw"))
    machine.write("cgroup", cpu__max="150000 100000", memory__max=str(_GIB))
    # What lies above the mount is another tree's, whatever it looks like.
    machine.write("", cpu__max="100000 100000", memory__max="4096")
    assert machine.cpus() == 2
    assert machine.memory() == _GIB


@pytest.mark.parametrize(
    ("path", "root"),
    [
        ("/docker/abc", "/docker/abc"),  # mounted into a container without a namespace
        ("/", "/docker/abc"),  # of another namespace than the mount
        ("/../def", "/"),  # moved out of the root of its namespace
        ("/docker/abc/gone", "/docker/abc"),
        ("/kubepods/pod1/abc", "/"),  # the mount shows less than the path names
    ],
)
def test_a_path_that_does_not_lie_below_the_mount_means_the_mount(
    machine: Machine, path: str, root: str
) -> None:
    machine.describe(f"0::{path}\n", (root, "cgroup", "cgroup2", "rw"))
    machine.write("cgroup", cpu__max="300000 100000", memory__max=str(3 * _GIB))
    machine.write("def", cpu__max="100000 100000", memory__max="4096")
    assert machine.cpus() == 3
    assert machine.memory() == 3 * _GIB


def test_version_1_for_memory_beside_version_2_without_it(machine: Machine) -> None:
    machine.describe(
        "4:memory:/a/b\n0::/a\n",
        ("/", "unified", "cgroup2", "rw"),
        ("/", "memory", "cgroup", "rw,memory"),
    )
    machine.write("memory", memory__limit_in_bytes=str(2**63 - 4096))
    machine.write("memory/a", memory__limit_in_bytes=str(_GIB))
    machine.write("memory/a/b", memory__limit_in_bytes=str(2**63 - 4096))
    machine.write("unified/a", cpu__max="200000 100000")
    assert machine.memory() == _GIB
    assert machine.cpus() == 2


def test_memory_above_which_the_kernel_reclaims_is_a_limit(machine: Machine) -> None:
    machine.describe("0::/app\n", ("/", "cgroup", "cgroup2", "rw"))
    machine.write("cgroup/app", memory__max=str(4 * _GIB), memory__high=str(_GIB))
    assert machine.memory() == _GIB


def test_ram_and_the_limit_of_the_address_space_count_too(machine: Machine) -> None:
    machine.describe("0::/app\n", ("/", "cgroup", "cgroup2", "rw"))
    machine.write("cgroup/app", memory__max=str(4 * _GIB))
    assert machine.memory(ram=2 * _GIB) == 2 * _GIB
    assert machine.memory(address_space=_GIB) == _GIB
    assert machine.memory(address_space=8 * _GIB) == 4 * _GIB
    assert machine.memory(address_space=resource.RLIM_INFINITY) == 4 * _GIB


@pytest.mark.parametrize("groups", ["", "rubbish\n", "0:\n::\n", "0::relative\n"])
def test_what_cannot_be_read_bounds_nothing(machine: Machine, groups: str) -> None:
    assert machine.cpus(allowed=5) == 5  # no such files at all
    assert machine.memory(ram=7 * _GIB) == 7 * _GIB
    machine.describe(groups, ("/", "cgroup", "cgroup2", "rw"))
    with (machine.process / "mountinfo").open("a") as file:
        file.write("rubbish\n - \n1 2 3 4 - cgroup2\n1 2 3 4 / - cgroup2 cgroup2\n")
    assert machine.cpus(allowed=5) == 5
    assert machine.memory(ram=7 * _GIB) == 7 * _GIB


def test_the_cpus_that_may_be_used_are_those_of_the_process(
    monkeypatch: pytest.MonkeyPatch, machine: Machine
) -> None:
    monkeypatch.delattr(os, "process_cpu_count", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    assert usable_cpus(process=machine.process) == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert usable_cpus(process=machine.process) == 7
    monkeypatch.setattr(os, "process_cpu_count", lambda: 4, raising=False)
    assert usable_cpus(process=machine.process) == 4


def test_the_limit_of_this_very_process_is_read() -> None:
    script = (
        "import resource; from resmem_service.resources import usable_memory_bytes as usable\n"
        f"assert usable() > {_GIB}\n"
        f"resource.setrlimit(resource.RLIMIT_AS, ({_GIB}, {_GIB}))\n"
        f"assert usable() == {_GIB}\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_nothing_else_counts_cpus() -> None:
    """`os.cpu_count` and the like know no quota: everybody asks `usable_cpus`."""
    package = Path(resources.__file__).parent
    for path in [*package.rglob("*.py"), *(package.parent / "benchmarks").rglob("*.py")]:
        if path != Path(resources.__file__):
            source = path.read_text()
            assert "cpu_count" not in source, path
            assert "sched_getaffinity" not in source, path
