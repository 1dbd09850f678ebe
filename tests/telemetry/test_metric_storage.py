"""Shared counts: sums over workers, also those of other processes and of ended ones."""

import subprocess
import sys

import pytest
from resmem_service.telemetry.metric_storage import Gauge, MetricStorage, MetricTable, Restart

COUNT = """
import os, sys
from resmem_service.telemetry.metric_storage import MetricTable, MetricStorage
storage = MetricStorage(MetricTable(2, int(sys.argv[1])), 1)
first = storage.take(2)
storage.values[first + 1] += 1
os.kill(os.getpid(), 9)
"""


def test_alone() -> None:
    storage = MetricStorage()
    first, second = storage.take(2), storage.take(3)
    assert second == first + 2
    storage.values[second] += 4
    assert storage.totals()[first:].tolist() == [0, 0, 4, 0, 0]
    assert storage.by_worker(Gauge.PID) == [storage.values[Gauge.PID]]


def test_another_process_counts_and_dies() -> None:
    table = MetricTable(2)
    storage = MetricStorage(table, 0)
    first = storage.take(2)
    storage.values[first] = 5.0
    for times in (1, 2):  # the second one counts on
        command = [sys.executable, "-c", COUNT, str(table.descriptor)]
        subprocess.run(command, pass_fds=[table.descriptor], timeout=60, check=False)
        assert storage.totals()[first:].tolist() == [5, times]
    assert all(storage.by_worker(Gauge.PID))
    table.ended(1)
    assert storage.by_worker(Gauge.PID)[1] == 0
    assert storage.totals()[first:].tolist() == [5, 2]
    table.close()


def test_restarts_outlive_the_worker_and_count_for_all() -> None:
    table = MetricTable(2)
    storage = MetricStorage(table, 0)
    for worker, why in ((0, Restart.HUNG), (1, Restart.DIED), (1, Restart.DIED)):
        table.ended(worker)
        table.restarted(worker, why)
    totals = storage.totals()
    assert (totals[Restart.DIED], totals[Restart.HUNG]) == (2, 1)
    assert not set(Restart) & set(Gauge)
    assert storage.take(1) > max(Restart)
    table.close()


def test_a_row_has_an_end() -> None:
    table = MetricTable(1)
    with pytest.raises(MemoryError):
        MetricStorage(table).take(10_000)
    table.close()
