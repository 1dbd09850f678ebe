"""The instruments that metrics are made of: counters and histograms that cost little to touch.

prometheus_client's own `Histogram.observe` walks its buckets in Python and takes a lock for each
value it keeps: 0.8 us a call where this one takes 0.3, and it cannot take an array at once. Its
mode for several processes maps a file for each process ever started and reads them all at each
scrape. Its registry, its metric families and its text format are used as they are.

A family takes cells for every combination of its labels' values when it is made, so that the
workers of a service agree where each of them stands without a word.
"""

import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import isfinite, prod
from typing import Final

import numpy as np
from numpy.typing import NDArray
from prometheus_client.metrics_core import Metric

from resmem_service.telemetry.metric_storage import MetricStorage

__all__ = ["Counter", "CounterFamily", "Histogram", "HistogramFamily", "Labels"]

Labels = Mapping[str, Sequence[str]]
"""The values that each label may have."""

_NO_LABELS: Final[Labels] = {}
_MOST_ONE_BY_ONE: Final = 8
"""Values that are counted one by one in the time that numpy needs to begin."""


class Counter:
    """A sum that only grows, in one cell."""

    __slots__ = ("_cell", "_lock", "_values")

    def __init__(self, storage: MetricStorage, cell: int) -> None:
        self._values = storage.values
        self._cell = cell
        self._lock = threading.Lock()

    @property
    def value(self) -> float:
        """What this worker and those before it in its place have added."""
        return self._values[self._cell]

    def add(self, amount: float = 1) -> None:
        """Adds `amount`, at least 0, from any thread."""
        with self._lock:
            self._values[self._cell] += amount


class Histogram:
    """Counts of values by bucket, then their sum. A value equal to a bound belongs below it."""

    __slots__ = ("_bounds", "_edges", "_first", "_lock", "_sum", "_values")

    def __init__(self, storage: MetricStorage, first: int, bounds: Sequence[float]) -> None:
        self._values = storage.values
        self._first = first
        self._sum = first + len(bounds) + 1
        self._bounds = list(bounds)
        self._edges = np.asarray(self._bounds)
        self._lock = threading.Lock()

    def observe(self, value: float) -> None:
        """Counts one value, from any thread."""
        cell = self._first + bisect_left(self._bounds, value)
        values = self._values
        with self._lock:
            values[cell] += 1
            values[self._sum] += value

    def observe_many(self, values: NDArray[np.floating]) -> None:
        """Counts every finite value of an array of any shape."""
        if values.size <= _MOST_ONE_BY_ONE:
            for value in values.ravel().tolist():
                if isfinite(value):
                    self.observe(value)
            return
        finite = values[np.isfinite(values)]
        added = np.bincount(np.searchsorted(self._edges, finite)).tolist()
        total = float(finite.sum(dtype=np.float64))
        cells = self._values
        with self._lock:
            for cell, count in enumerate(added, self._first):
                if count:
                    cells[cell] += count
            cells[self._sum] += total


class _Family:
    """Instruments under one name, told apart by labels; each has `width` cells."""

    def __init__(
        self, name: str, documentation: str, labels: Labels, storage: MetricStorage, width: int
    ) -> None:
        self.name = name
        self._documentation = documentation
        self._labels = tuple(labels)
        self._domains = [tuple(values) for values in labels.values()]
        self._storage = storage
        self._width = width
        self._children = prod(map(len, self._domains))
        self._first = storage.take(self._children * width)

    def _position(self, values: tuple[str, ...]) -> int:
        position = 0
        for domain, value in zip(self._domains, values, strict=True):
            try:
                position = position * len(domain) + domain.index(value)
            except ValueError:
                raise KeyError(f"{self.name} has no child {values}") from None
        return position

    def _cell(self, position: int) -> int:
        return self._first + position * self._width

    def _labelled(self, position: int) -> dict[str, str]:
        values = []
        for domain in reversed(self._domains):
            position, index = divmod(position, len(domain))
            values.append(domain[index])
        return dict(zip(self._labels, reversed(values), strict=True))


class CounterFamily(_Family):
    """Counters under one name."""

    def __init__(
        self,
        name: str,
        documentation: str,
        storage: MetricStorage,
        labels: Labels = _NO_LABELS,
        *,
        shown: Iterable[tuple[str, ...]] | None = None,
        suffix: str = "_total",
    ) -> None:
        """`shown` are the children that are exported at 0 as well, by default all of them.

        `suffix=""` is for a name that the contract fixes without `_total`: it goes out untyped,
        since the text format would rename a counter.
        """
        super().__init__(name, documentation, labels, storage, width=1)
        self._suffix = suffix
        self._made: dict[tuple[str, ...], Counter] = {}
        self._shown = (
            set(range(self._children)) if shown is None else {self._position(one) for one in shown}
        )

    def child(self, *values: str) -> Counter:
        """The counter of these label values, in the order of the labels.

        Raises:
            KeyError: a label may not have such a value.
        """
        counter = self._made.get(values)
        if counter is None:
            counter = Counter(self._storage, self._cell(self._position(values)))
            # Two threads must share one, since its lock guards the cell.
            counter = self._made.setdefault(values, counter)
        return counter

    def collect(self, totals: NDArray[np.float64]) -> Iterator[Metric]:
        """What the registry asks for at each scrape, from the sums by cell."""
        family = Metric(self.name, self._documentation, "counter" if self._suffix else "unknown")
        sums = totals[self._first : self._first + self._children]
        for position in sorted(self._shown.union(np.flatnonzero(sums).tolist())):
            labels = self._labelled(position)
            family.add_sample(self.name + self._suffix, labels, float(sums[position]))
        yield family


class HistogramFamily(_Family):
    """Histograms under one name."""

    def __init__(
        self,
        name: str,
        documentation: str,
        storage: MetricStorage,
        bounds: Sequence[float],
        labels: Labels = _NO_LABELS,
    ) -> None:
        super().__init__(name, documentation, labels, storage, width=len(bounds) + 2)
        self._bounds = [*map(str, map(float, bounds)), "+Inf"]
        self._made = [
            Histogram(storage, self._cell(position), bounds) for position in range(self._children)
        ]

    def child(self, *values: str) -> Histogram:
        """The histogram of these label values, in the order of the labels.

        Raises:
            KeyError: a label may not have such a value.
        """
        return self._made[self._position(values)]

    def collect(self, totals: NDArray[np.float64]) -> Iterator[Metric]:
        """What the registry asks for at each scrape, from the sums by cell."""
        family = Metric(self.name, self._documentation, "histogram")
        for position in range(self._children):
            labels = self._labelled(position)
            cell = self._cell(position)
            *counts, total = totals[cell : cell + self._width].tolist()
            running = 0.0
            for bound, count in zip(self._bounds, counts, strict=True):
                running += count
                family.add_sample(f"{self.name}_bucket", {**labels, "le": bound}, running)
            family.add_sample(f"{self.name}_count", labels, running)
            family.add_sample(f"{self.name}_sum", labels, total)
        yield family
