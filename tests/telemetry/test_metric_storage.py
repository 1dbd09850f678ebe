"""Shared cells: sums over workers, also those of other processes and of the dead."""

import subprocess
import sys

import pytest
from resmem_service.telemetry.metric_storage import Board, Cells, Gauge, Restart

COUNT = """
import os, sys
from resmem_service.telemetry.metric_storage import Board, Cells
cells = Cells(Board(2, int(sys.argv[1])), 1)
first = cells.take(2)
cells.values[first + 1] += 1
os.kill(os.getpid(), 9)
"""


def test_alone() -> None:
    cells = Cells()
    first, second = cells.take(2), cells.take(3)
    assert second == first + 2
    cells.values[second] += 4
    assert cells.totals()[first:].tolist() == [0, 0, 4, 0, 0]
    assert cells.by_worker(Gauge.PID) == [cells.values[Gauge.PID]]


def test_another_process_counts_and_dies() -> None:
    board = Board(2)
    cells = Cells(board, 0)
    first = cells.take(2)
    cells.values[first] = 5.0
    for times in (1, 2):  # the second one counts on
        command = [sys.executable, "-c", COUNT, str(board.descriptor)]
        subprocess.run(command, pass_fds=[board.descriptor], timeout=60, check=False)
        assert cells.totals()[first:].tolist() == [5, times]
    assert all(cells.by_worker(Gauge.PID))
    board.ended(1)
    assert cells.by_worker(Gauge.PID)[1] == 0
    assert cells.totals()[first:].tolist() == [5, 2]
    board.close()


def test_restarts_outlive_the_worker_and_count_for_all() -> None:
    board = Board(2)
    cells = Cells(board, 0)
    for worker, why in ((0, Restart.HUNG), (1, Restart.DIED), (1, Restart.DIED)):
        board.ended(worker)
        board.restarted(worker, why)
    totals = cells.totals()
    assert (totals[Restart.DIED], totals[Restart.HUNG]) == (2, 1)
    assert not set(Restart) & set(Gauge)
    assert cells.take(1) > max(Restart)
    board.close()


def test_a_row_has_an_end() -> None:
    board = Board(1)
    with pytest.raises(MemoryError):
        Cells(board).take(10_000)
    board.close()
