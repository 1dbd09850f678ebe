"""The metrics' public surface, and what the observers count."""

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from resmem_service.api.routes import OTHER, REASONS, ROUTES, series
from resmem_service.inference.observer import InferenceObserver, OnlineScores
from resmem_service.memory.memory import MemoryStatistics
from resmem_service.memory.observer import MemoryObserver
from resmem_service.telemetry.metric_storage import MetricStorage, MetricTable
from resmem_service.telemetry.metrics import Metrics

SURFACE = {
    "resmem_http_requests": ("counter", {"route", "method", "code"}),
    "resmem_http_request_duration_seconds": ("histogram", {"route"}),
    "resmem_requests_in_flight": ("gauge", set()),
    "resmem_requests_rejected": ("counter", {"reason"}),
    "resmem_connections": ("gauge", set()),
    "resmem_connections_closed": ("counter", {"reason"}),
    "resmem_inflight_body_bytes": ("gauge", set()),
    "resmem_inference_rows": ("counter", set()),
    "resmem_inference_batches": ("counter", set()),
    "resmem_batch_size_rows": ("histogram", set()),
    "resmem_queue_wait_seconds": ("histogram", set()),
    "resmem_stage_duration_seconds": ("histogram", {"stage"}),
    "resmem_worker_restarts": ("counter", {"reason"}),
    "resmem_queue_rows": ("gauge", set()),
    "resmem_memory_rows": ("gauge", {"tier"}),
    "resmem_memory_bytes": ("gauge", set()),
    "resmem_mapped_bytes": ("gauge", set()),
    "resmem_memory_limit_bytes": ("gauge", set()),
    "resmem_major_page_faults": ("counter", {"worker"}),
    "resmem_memory_segments": ("gauge", set()),
    "resmem_memorized_rows": ("counter", {"result"}),
    "resmem_forgotten_rows": ("counter", set()),
    "resmem_journal_commit_seconds": ("histogram", set()),
    "resmem_seal_duration_seconds": ("histogram", set()),
    "resmem_memory_revision": ("gauge", set()),
    "resmem_memory_recall": ("gauge", set()),
    "resmem_memory_unsealed_bytes": ("gauge", set()),
    "resmem_memory_unsealed_limit_bytes": ("gauge", set()),
    "resmem_memory_unusable_segments": ("gauge", set()),
    "resmem_memory_unreadable_rows": ("gauge", set()),
    "resmem_journal_readable": ("gauge", set()),
    "resmem_journal_writable": ("gauge", set()),
    "resmem_seal_failures": ("counter", set()),
    "resmem_neighbour_distance": ("histogram", set()),
    "resmem_correction_magnitude": ("histogram", set()),
    "resmem_online_examples": ("counter", set()),
    "resmem_online_loss_sum": ("unknown", {"predictor"}),
    "resmem_online_errors": ("counter", {"predictor"}),
    "resmem_model_info": ("gauge", {"name", "version", "provider"}),
}


def metrics(in_flight: int = 0, storage: MetricStorage | None = None) -> Metrics:
    made = Metrics(series(), REASONS, in_flight=lambda: in_flight, storage=storage)
    made.serve(
        name="m",
        version="1",
        provider="cpu",
        memory=lambda: MemoryStatistics(5, 2, 640, 1, 9, 0.75, 80, 256, 1, 4, True, False),
        queued_rows=lambda: 3,
    )
    return made


def samples(made: Metrics) -> dict[str, float]:
    """By `name{label=value}`, without the prefix."""
    found = {}
    for family in text_string_to_metric_families(made.scrape().decode()):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            name = sample.name.removeprefix("resmem_")
            found[f"{name}{{{labels}}}" if labels else name] = sample.value
    return found


def test_names_types_and_labels() -> None:
    found = {
        family.name: (
            family.type,
            {label for sample in family.samples for label in sample.labels} - {"le"},
        )
        for family in text_string_to_metric_families(metrics().scrape().decode())
        if not family.name.startswith("process_")
    }
    assert found == SURFACE


def test_it_implements_what_is_observed() -> None:
    inference: InferenceObserver = metrics()
    memory: MemoryObserver = metrics()
    assert inference
    assert memory


def test_children_exist_before_the_first_request() -> None:
    found = samples(metrics())
    for route in ROUTES:
        for code in route.codes:
            labels = f"code={code},method={route.method},route={route.path}"
            assert found[f"http_requests_total{{{labels}}}"] == 0
        assert found[f"http_request_duration_seconds_count{{route={route.path}}}"] == 0
    assert found[f"http_request_duration_seconds_count{{route={OTHER}}}"] == 0
    for reason in REASONS:
        assert found[f"requests_rejected_total{{reason={reason}}}"] == 0
    for stage in ("decode", "base", "search", "combine", "encode"):
        assert found[f"stage_duration_seconds_count{{stage={stage}}}"] == 0
    for result in ("created", "replaced", "unchanged"):
        assert found[f"memorized_rows_total{{result={result}}}"] == 0
    for reason in ("died", "hung"):
        assert found[f"worker_restarts_total{{reason={reason}}}"] == 0
    for predictor in ("base", "resmem"):
        assert found[f"online_errors_total{{predictor={predictor}}}"] == 0


def test_two_apps_count_apart() -> None:
    one, other = metrics(), metrics()
    one.on_forgotten(1)
    assert (samples(one)["forgotten_rows_total"], samples(other)["forgotten_rows_total"]) == (1, 0)


def test_before_a_model_is_served_there_is_none() -> None:
    found = samples(Metrics(series(), REASONS))
    assert found["queue_rows"] == 0
    assert not [name for name in found if name.startswith(("model_info", "memory_"))]


def test_gauges_are_read_at_the_scrape() -> None:
    found = samples(metrics(in_flight=4))
    assert found["memory_rows{tier=sealed}"] == 5
    assert found["memory_rows{tier=growing}"] == 2
    assert found["memory_bytes"] == 640
    assert found["memory_segments"] == 1
    assert found["memory_revision"] == 9
    assert found["memory_recall"] == 0.75
    assert found["memory_unsealed_bytes"] == 80
    assert found["memory_unsealed_limit_bytes"] == 256
    assert found["memory_unusable_segments"] == 1
    assert found["memory_unreadable_rows"] == 4
    assert (found["journal_readable"], found["journal_writable"]) == (1, 0)
    assert found["queue_rows"] == 3
    assert found["requests_in_flight"] == 4
    assert found["model_info{name=m,provider=cpu,version=1}"] == 1


def test_what_inference_tells() -> None:
    made = metrics()
    made.on_batch(5, [0.001, 0.002])
    made.on_stage("search", 0.5)
    made.on_corrections(np.array([0.5, np.inf]), np.array([1, 2], np.float32))
    made.on_learned(OnlineScores(4, 3.5, 1.25, 2, 1))
    found = samples(made)
    assert found["inference_batches_total"] == 1
    assert found["inference_rows_total"] == found["batch_size_rows_sum"] == 5
    assert found["queue_wait_seconds_count"] == 2
    assert found["queue_wait_seconds_sum"] == pytest.approx(0.003)
    assert found["stage_duration_seconds_sum{stage=search}"] == 0.5
    assert found["neighbour_distance_count"] == 1  # no neighbour is no distance
    assert found["correction_magnitude_sum"] == 3
    assert found["online_examples_total"] == 4
    assert found["online_loss_sum{predictor=base}"] == 3.5
    assert found["online_loss_sum{predictor=resmem}"] == 1.25
    assert found["online_errors_total{predictor=base}"] == 2
    assert found["online_errors_total{predictor=resmem}"] == 1


def test_what_the_memory_tells() -> None:
    made = metrics()
    made.on_commit(0.02)
    made.on_memorized(created=3, replaced=2, unchanged=1)
    made.on_forgotten(7)
    made.on_sealed(2.0, 100)
    found = samples(made)
    assert found["journal_commit_seconds_count"] == 1
    assert found["seal_duration_seconds_sum"] == 2
    assert found["memorized_rows_total{result=created}"] == 3
    assert found["memorized_rows_total{result=replaced}"] == 2
    assert found["memorized_rows_total{result=unchanged}"] == 1
    assert found["forgotten_rows_total"] == 7


def test_buckets() -> None:
    found = samples(metrics())

    def bounds(name: str) -> list[float]:
        prefix = f"{name}_bucket{{le="
        return sorted(float(key[len(prefix) : -1]) for key in found if key.startswith(prefix))

    seconds = bounds("queue_wait_seconds")
    assert (seconds[0], seconds[-2]) == (5e-5, 10)
    rows = bounds("batch_size_rows")[:-1]
    assert rows == [2**power for power in range(len(rows))]


def test_any_of_several_workers_answers_for_all() -> None:
    table = MetricTable(2)
    one, other = metrics(2, MetricStorage(table, 0)), metrics(3, MetricStorage(table, 1))
    for made, rows in ((one, 1), (other, 10)):
        made.on_batch(rows, [0.001])
        made.requests("/predict", "POST", "200").add()
        made.on_corrections(np.array([0.5]), np.array([1.0], np.float32))
        made.publish()
    found = samples(one)
    also = samples(other)
    assert {name for name in found if found[name] != also[name]} <= {
        name for name in found if name.startswith("process_")
    }
    assert found["inference_rows_total"] == 11
    assert found["http_requests_total{code=200,method=POST,route=/predict}"] == 2
    assert found["queue_wait_seconds_sum"] == pytest.approx(0.002)
    assert found["neighbour_distance_count"] == 2
    assert found["requests_in_flight"] == 5
    assert found["queue_rows"] == 6
    # One memory and one model, whoever tells of them.
    assert found["memory_rows{tier=sealed}"] == 5
    assert found["model_info{name=m,provider=cpu,version=1}"] == 1
    table.close()


def test_a_worker_that_is_replaced_takes_nothing_along_but_its_gauges() -> None:
    table = MetricTable(2)
    one, other = metrics(2, MetricStorage(table, 0)), metrics(3, MetricStorage(table, 1))
    other.on_forgotten(7)
    other.publish()
    table.ended(1)
    assert samples(one)["forgotten_rows_total"] == 7
    assert samples(one)["requests_in_flight"] == 2
    replaced = metrics(1, MetricStorage(table, 1))
    replaced.on_forgotten(1)
    assert samples(replaced)["forgotten_rows_total"] == 8
    table.close()


def test_processes_are_told_apart() -> None:
    table = MetricTable(3)
    one = metrics(storage=MetricStorage(table, 0))
    metrics(storage=MetricStorage(table, 2))
    found = samples(one)
    assert found["process_resident_memory_bytes{worker=0}"] > 0
    assert found["process_resident_memory_bytes{worker=2}"] > 0
    assert "process_resident_memory_bytes{worker=1}" not in found
    assert samples(metrics())["process_resident_memory_bytes{worker=0}"] > 0
    table.close()


def test_requests_that_nobody_expects() -> None:
    made = metrics()
    before = samples(made)
    made.requests("/predict", "BREW", "418").add()
    made.requests("/predict", "PUT", "405").add()
    assert samples(made).keys() - before.keys() == {
        "http_requests_total{code=other,method=other,route=/predict}",
        "http_requests_total{code=405,method=PUT,route=/predict}",
    }
