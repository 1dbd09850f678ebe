"""Storage of metrics: in this process, or in memory that all workers of a service share."""

import mmap
import os
import tempfile
from enum import IntEnum
from typing import Final, Protocol, cast

import numpy as np
from numpy.typing import NDArray

__all__ = ["Gauge", "MetricStorage", "MetricTable", "Restart", "Row", "anonymous_file"]

_ROW_VALUES: Final = 8192
_ROW_BYTES: Final = 8 * _ROW_VALUES


class Gauge(IntEnum):
    """The first cells of a row: what a worker says of itself now, and no longer once it ended."""

    PID = 0
    REQUESTS_IN_FLIGHT = 1
    QUEUE_ROWS = 2
    HEARTBEAT = 3
    """Moves while the worker gets on with its work; see `resmem_service.server.supervisor`."""
    CONNECTIONS = 4
    BODY_BYTES = 5
    LOADING = 6
    """1 while a worker takes requests that it cannot answer yet, and before it does; else 0."""


class Restart(IntEnum):
    """The cells after the gauges, which the supervisor writes while a row has no worker."""

    DIED = len(Gauge)
    HUNG = len(Gauge) + 1


class Row(Protocol):
    """The cells of a worker, as far as they are touched one by one."""

    def __getitem__(self, cell: int, /) -> float: ...
    def __setitem__(self, cell: int, value: float, /) -> None: ...


class MetricTable:
    """Shared memory with a row of float64 cells for each worker.

    A worker writes its own row alone. The row outlives it, and whoever takes its place counts on
    from there, so no sum ever falls. The memory has no name: it goes with the last process that
    has it open, and nothing stale is found at the next start.
    """

    def __init__(self, workers: int, descriptor: int | None = None) -> None:
        """`descriptor` is that of another process's table; None makes a new one, all zeros."""
        if descriptor is None:
            self.descriptor = anonymous_file("resmem-metrics")
        else:
            self.descriptor = descriptor
        if descriptor is None:
            os.truncate(self.descriptor, workers * _ROW_BYTES)
        shared = mmap.mmap(self.descriptor, workers * _ROW_BYTES)
        self.values: NDArray[np.float64] = np.frombuffer(shared).reshape(workers, _ROW_VALUES)
        """`[workers, cells]`"""
        whole = memoryview(shared)
        self.rows = [
            cast(Row, whole[first : first + _ROW_BYTES].cast("d"))
            for first in range(0, workers * _ROW_BYTES, _ROW_BYTES)
        ]
        """The same, each worker's, five times quicker than numpy to touch one by one."""

    def starting(self, worker: int) -> None:
        """Says that a worker will take requests before it has loaded the model."""
        self.values[worker, Gauge.LOADING] = 1.0

    def ended(self, worker: int) -> None:
        """Clears the gauges of a worker that has ended."""
        self.values[worker, : len(Gauge)] = 0.0

    def restarted(self, worker: int, why: Restart) -> None:
        """Counts that a worker, which has ended, is replaced."""
        self.values[worker, why] += 1.0

    def close(self) -> None:
        """Lets go of the descriptor; what is mapped stays."""
        os.close(self.descriptor)


class MetricStorage:
    """The cells that one worker writes; sums are over all workers of its table."""

    def __init__(self, table: MetricTable | None = None, worker: int = 0) -> None:
        """Without a table there is one worker, and its cells are a list, the quickest to touch."""
        self.worker = worker
        self._table = table
        self._next = len(Gauge) + len(Restart)
        self._own: list[float] = [0.0] * self._next if table is None else []
        self.values: Row = self._own if table is None else table.rows[worker]
        """Own cells, by number."""
        self.values[Gauge.PID] = float(os.getpid())

    def take(self, count: int) -> int:
        """The number of the first of `count` cells that nobody else has.

        Workers of one table take the same cells for the same things, since they run the same code.

        Raises:
            MemoryError: the row has no room left.
        """
        first = self._next
        self._next += count
        if self._table is None:
            self._own += [0.0] * count
        elif self._next > _ROW_VALUES:
            raise MemoryError(f"{self._next} cells do not fit a row of {_ROW_VALUES}")
        return first

    def totals(self) -> NDArray[np.float64]:
        """The sum over all workers, by cell."""
        if self._table is None:
            return np.array(self._own)
        totals: NDArray[np.float64] = self._table.values[:, : self._next].sum(axis=0)
        return totals

    def by_worker(self, gauge: Gauge) -> list[float]:
        """The value of a gauge in each worker."""
        if self._table is None:
            return [self._own[gauge]]
        values: list[float] = self._table.values[:, gauge].tolist()
        return values


def anonymous_file(name: str) -> int:
    """The descriptor of a new file in memory that no folder has; `name` is for those who debug."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
