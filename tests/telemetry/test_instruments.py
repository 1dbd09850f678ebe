"""Counters and histograms: their arithmetic, also from several threads."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client import Histogram as Reference

from service.telemetry.instruments import Counter, CounterFamily, Histogram, HistogramFamily

BOUNDS = (0.5, 1.0, 2.5)
values = st.lists(st.one_of(st.floats(-1e6, 1e6), st.sampled_from(BOUNDS)), max_size=30)


@given(values)
def test_a_histogram_is_what_prometheus_makes_of_it(observed: list[float]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    family = HistogramFamily("h", "A histogram.", BOUNDS)
    ours.register(family)
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
    single, together = Histogram(BOUNDS), Histogram(BOUNDS)
    for value in observed:
        single.observe(value)
    together.observe_many(np.array([*observed, np.nan, np.inf]))
    counts, total = single.snapshot()
    assert together.snapshot()[0] == counts
    assert together.snapshot()[1] == pytest.approx(total)


def test_nothing_is_lost_between_threads() -> None:
    counter, histogram = Counter(), Histogram(BOUNDS)

    def work(_: int) -> None:
        for _ in range(2000):
            counter.add()
            histogram.observe(1.0)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert counter.value == 8000
    assert histogram.snapshot() == ([0, 8000, 0, 0], 8000.0)


def test_children_of_a_counter() -> None:
    family = CounterFamily("c", "A counter.", ["a", "b"], [("x", "y")])
    family.child("x", "y").add(2)
    family.child("x", "z").add()
    assert family.child("x", "y") is family.child("x", "y")
    (metric,) = family.collect()
    assert [(one.name, one.labels, one.value) for one in metric.samples] == [
        ("c_total", {"a": "x", "b": "y"}, 2),
        ("c_total", {"a": "x", "b": "z"}, 1),
    ]


def test_a_histogram_has_the_children_it_was_born_with() -> None:
    family = HistogramFamily("h", "A histogram.", BOUNDS, ["a"], [("x",)])
    with pytest.raises(KeyError):
        family.child("y")
