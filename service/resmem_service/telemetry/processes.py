"""What the operating system says of each worker: `process_*` and page faults, labelled by worker.

Not summed: resident memory counts pages that workers share in each of them, and the CPU seconds of
a worker that was replaced start anew, which `rate` understands of one series but not of a sum.
"""

import os
import resource
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from prometheus_client import ProcessCollector
from prometheus_client.metrics_core import Metric

__all__ = ["collect_processes"]


def collect_processes(pids: Sequence[int]) -> Iterator[Metric]:
    """The metrics of these processes; worker i has `pids[i]`, 0 while there is none."""
    families: dict[str, Metric] = {}
    for worker, pid in enumerate(pids):
        if not pid:
            continue
        for one in ProcessCollector(pid=partial(int, pid), registry=None).collect():
            family = families.setdefault(one.name, Metric(one.name, one.documentation, one.type))
            for sample in one.samples:
                family.add_sample(sample.name, {"worker": str(worker)}, sample.value)
    yield from families.values()
    yield _major_faults(pids)


def _major_faults(pids: Sequence[int]) -> Metric:
    """How often a worker waited for the disk since a page of a mapped file was not in RAM."""
    name = "resmem_major_page_faults"
    family = Metric(name, "Pages that were read from the disk when they were touched.", "counter")
    for worker, pid in enumerate(pids):
        faults = _major_faults_of(pid) if pid else None
        if faults is not None:
            family.add_sample(f"{name}_total", {"worker": str(worker)}, faults)
    return family


def _major_faults_of(pid: int) -> int | None:
    """From the operating system; None where it does not tell of a process, or it has ended."""
    if pid == os.getpid():
        return resource.getrusage(resource.RUSAGE_SELF).ru_majflt
    try:
        # The command's name, in parentheses, may hold anything.
        after = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return int(after[9])  # majflt, field 12 of proc_pid_stat(5)
    except (OSError, ValueError, IndexError):
        return None
