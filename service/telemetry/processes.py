"""What the operating system says of each worker: the `process_*` metrics, labelled by worker.

Not summed: resident memory counts pages that workers share in each of them, and the CPU seconds of
a worker that was replaced start anew, which `rate` understands of one series but not of a sum.
"""

from collections.abc import Iterator, Sequence
from functools import partial

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
