"""Counters and histograms: their arithmetic, also from several threads."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client import Histogram as Reference
from prometheus_client.metrics_core import Metric
from resmem_service.telemetry.instruments import Counter, CounterFamily, Histogram, HistogramFamily
from resmem_service.telemetry.metric_storage import MetricStorage, MetricTable

BOUNDS = (0.5, 1.0, 2.5)
values = st.lists(st.one_of(st.floats(-1e6, 1e6), st.sampled_from(BOUNDS)), max_size=30)


class Scrape:
    """What `Metrics` is to a registry."""

    def __init__(self, family: CounterFamily | HistogramFamily, storage: MetricStorage) -> None:
        self._family, self._storage = family, storage

    def collect(self) -> Iterator[Metric]:
        yield from self._family.collect(self._storage.totals())


@pytest.fixture(params=["alone", "shared"])
def storage(request: pytest.FixtureRequest) -> Iterator[MetricStorage]:
    if request.param == "alone":
        yield MetricStorage()
        return
    table = MetricTable(2)
    yield MetricStorage(table, 1)
    table.close()


@given(values)
def test_a_histogram_is_what_prometheus_makes_of_it(observed: list[float]) -> None:
    ours, theirs, storage = CollectorRegistry(), CollectorRegistry(), MetricStorage()
    family = HistogramFamily("h", "A histogram.", storage, BOUNDS)
    ours.register(Scrape(family, storage))
    reference = Reference("h", "A histogram.", buckets=BOUNDS, registry=theirs)
    for value in observed:
        family.child().observe(value)
        reference.observe(value)
    expected = [
        line for line in generate_latest(theirs).decode().splitlines() if "created" not in line
    ]
    assert generate_latest(ours).decode().splitlines() == expected


@given(values)
def test_many_at_once_are_the_same_as_one_by_one(observed: list[float]) -> None:
    storage = MetricStorage()
    first, second = storage.take(5), storage.take(5)
    single, together = Histogram(storage, first, BOUNDS), Histogram(storage, second, BOUNDS)
    for value in observed:
        single.observe(value)
    together.observe_many(np.array([*observed, np.nan, np.inf]))
    totals = storage.totals()
    assert totals[second : second + 5] == pytest.approx(totals[first : first + 5])


def test_nothing_is_lost_between_threads(storage: MetricStorage) -> None:
    first = storage.take(6)
    counter, histogram = Counter(storage, first), Histogram(storage, first + 1, BOUNDS)

    def work(_: int) -> None:
        for _ in range(2000):
            counter.add()
            histogram.observe(1.0)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert storage.totals()[first:].tolist() == [8000, 0, 8000, 0, 0, 8000]


def test_children_of_a_counter(storage: MetricStorage) -> None:
    labels = {"a": ("x", "w"), "b": ("y", "z", "v")}
    family = CounterFamily("c", "A counter.", storage, labels, shown=[("w", "y")])
    family.child("x", "z").add(2)
    family.child("w", "v").add()
    assert family.child("x", "z") is family.child("x", "z")
    (metric,) = family.collect(storage.totals())
    assert [(one.name, one.labels, one.value) for one in metric.samples] == [
        ("c_total", {"a": "x", "b": "z"}, 2),
        ("c_total", {"a": "w", "b": "y"}, 0),
        ("c_total", {"a": "w", "b": "v"}, 1),
    ]


def test_every_child_has_cells_of_its_own(storage: MetricStorage) -> None:
    counters = CounterFamily("c", "Counters.", storage, {"a": ("x", "y")})
    histograms = HistogramFamily("h", "Histograms.", storage, BOUNDS, {"a": ("x", "y")})
    counters.child("y").add(3)
    histograms.child("x").observe(9.0)
    histograms.child("y").observe(0.1)
    (metric,) = counters.collect(storage.totals())
    assert [one.value for one in metric.samples] == [0, 3]
    (metric,) = histograms.collect(storage.totals())
    assert [one.value for one in metric.samples] == [0, 0, 0, 1, 1, 9.0, 1, 1, 1, 1, 1, 0.1]


def test_a_label_has_the_values_it_was_born_with(storage: MetricStorage) -> None:
    labels = {"a": ("x",)}
    with pytest.raises(KeyError):
        HistogramFamily("h", "A histogram.", storage, BOUNDS, labels).child("y")
    with pytest.raises(KeyError):
        CounterFamily("c", "A counter.", storage, labels).child("y")
