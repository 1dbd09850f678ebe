"""The metrics of one app: every name and label of the public surface stands on this page.

`Metrics` has the methods of `resmem_service.inference.observer.InferenceObserver` and of
`resmem_service.memory.observer.MemoryObserver`, so both are handed the same object. What touches a
request is bound to its child when the app is built; gauges are read when Prometheus asks.

With several workers, any of them answers for all: counters, histograms, requests in flight and
queued rows are summed over them; the memory, the same one for all, and the model are as the worker
that answers sees them; `process_*` are told apart by worker.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from resmem_service.resources import usable_memory_bytes
from resmem_service.telemetry.instruments import Counter, CounterFamily, HistogramFamily, Labels
from resmem_service.telemetry.metric_storage import Gauge, MetricStorage, Restart
from resmem_service.telemetry.processes import collect_processes

__all__ = ["CONTENT_TYPE", "Metrics", "Series"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

Series = tuple[str, str, str]
"""Route template, method and status code of a request."""

_SECONDS: Final = (
    *(5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
_ROWS: Final = tuple(float(2**power) for power in range(14))
_SIZES: Final = tuple(2.0**power for power in range(-10, 11))
"""Distances and norms have no unit of their own; these cover whitened embeddings with room."""

_OTHER: Final = "other"
_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", _OTHER)
_MORE_CODES: Final = ("400", "404", "405", "499", "500", "503", _OTHER)
"""What a route may answer beyond what it means to."""

_STAGES: Final = ("decode", "base", "search", "combine", "encode")
_PREDICTORS: Final = ("base", "resmem")
_RESULTS: Final = ("created", "replaced", "unchanged")
_CLOSED: Final = ("silent", "idle", "slow_reader", "evicted")


class _Online(Protocol):
    """`resmem_service.inference.observer.OnlineScores`, as far as it is counted here."""

    @property
    def rows(self) -> int: ...
    @property
    def base_loss(self) -> float: ...
    @property
    def resmem_loss(self) -> float: ...
    @property
    def base_errors(self) -> int: ...
    @property
    def resmem_errors(self) -> int: ...


class _Statistics(Protocol):
    """What the memory says of itself at a scrape."""

    @property
    def sealed_rows(self) -> int: ...
    @property
    def growing_rows(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def segments(self) -> int: ...
    @property
    def revision(self) -> int: ...
    @property
    def recall(self) -> float: ...
    @property
    def unsealed_bytes(self) -> int: ...
    @property
    def unsealed_bytes_limit(self) -> int: ...
    @property
    def unusable_segments(self) -> int: ...
    @property
    def unreadable_rows(self) -> int: ...
    @property
    def journal_readable(self) -> bool: ...
    @property
    def journal_writable(self) -> bool: ...


class Metrics:
    """All instruments of one app in a registry of its own."""

    def __init__(
        self,
        series: Iterable[Series],
        reasons: Iterable[str],
        *,
        in_flight: Callable[[], int] = int,
        storage: MetricStorage | None = None,
    ) -> None:
        """`series` are the requests to expect and `reasons` the codes of refusals: their children
        exist, at 0, before the first of them happens. `in_flight` counts the requests being
        answered, and `storage` is where counts are kept."""
        series = list(series)
        self._in_flight = in_flight
        self._storage = storage or MetricStorage()
        self._memory: Callable[[], _Statistics] | None = None
        self._queued_rows: Callable[[], int] = int
        self._model_bytes = 0
        self._connections: Callable[[], int] = int
        self._body_bytes: Callable[[], int] = int
        self._model: dict[str, str] | None = None
        self._families: list[CounterFamily | HistogramFamily] = []

        routes = tuple(dict.fromkeys(route for route, _, _ in series))
        self._codes = tuple(dict.fromkeys([*(code for *_, code in series), *_MORE_CODES]))
        self._requests = CounterFamily(
            "resmem_http_requests", "Requests answered.", self._storage,
            {"route": routes, "method": _METHODS, "code": self._codes}, shown=series,
        )  # fmt: skip
        self._families.append(self._requests)
        durations = self._histogram(
            "http_request_duration_seconds", "From the head of a request to the end of its answer.",
            _SECONDS, {"route": routes},
        )  # fmt: skip
        rejections = self._counter(
            "requests_rejected", "Requests refused, by error code.", {"reason": tuple(reasons)}
        )
        self.durations = {route: durations.child(route).observe for route in routes}
        """By route: tells its histogram the seconds that a request took."""
        self.rejections = rejections.child
        """Counter of a reason."""
        self.closed_connections = self._counter(
            "connections_closed",
            "Connections closed without a request to answer, or because its answer was not read.",
            {"reason": _CLOSED},
        ).child
        """Counter of a reason: `silent` (no request came), `idle` (none came any more),
        `slow_reader`, or `evicted` for the sake of a new one."""
        self._build_inference()
        self._build_memory()
        self._build_quality()

        self._registry = CollectorRegistry()
        self._registry.register(self)

    def requests(self, route: str, method: str, code: str) -> Counter:
        """Counter of a route, method and code; what nobody expects counts as `other`."""
        return self._requests.child(
            route,
            method if method in _METHODS else _OTHER,
            code if code in self._codes else _OTHER,
        )

    def serve(
        self,
        *,
        name: str,
        version: str,
        provider: str,
        memory: Callable[[], _Statistics],
        queued_rows: Callable[[], int],
        model_bytes: int = 0,
    ) -> None:
        """From now on scrapes tell of this model and ask these for their gauges."""
        self._model_bytes = model_bytes
        self._model = {"name": name, "version": version, "provider": provider}
        self._memory = memory
        self._queued_rows = queued_rows

    @property
    def storage(self) -> MetricStorage:
        """Where counts are kept."""
        return self._storage

    def watch(self, *, connections: Callable[[], int], body_bytes: Callable[[], int]) -> None:
        """From now on gauges tell of this server's connections and the bodies that it holds."""
        self._connections = connections
        self._body_bytes = body_bytes

    def scrape(self) -> bytes:
        """All metrics in the Prometheus text format, `CONTENT_TYPE`."""
        return generate_latest(self._registry)

    def publish(self, *, beat: bool = False) -> None:
        """Writes this worker's gauges where the others find them, and moves its heartbeat."""
        own = self._storage.values
        own[Gauge.HEARTBEAT] += beat
        own[Gauge.REQUESTS_IN_FLIGHT] = float(self._in_flight())
        own[Gauge.QUEUE_ROWS] = float(self._queued_rows())
        own[Gauge.CONNECTIONS] = float(self._connections())
        own[Gauge.BODY_BYTES] = float(self._body_bytes())

    def collect(self) -> Iterator[Metric]:
        """What the registry asks for at each scrape."""
        self.publish()
        totals = self._storage.totals()
        yield from collect_processes([int(pid) for pid in self._storage.by_worker(Gauge.PID)])
        for family in self._families:
            yield from family.collect(totals)
        yield _restarts(totals)
        in_flight, queued = totals[Gauge.REQUESTS_IN_FLIGHT], totals[Gauge.QUEUE_ROWS]
        yield _gauge("requests_in_flight", "Requests being answered.", float(in_flight))
        yield _gauge("queue_rows", "Rows accepted and not yet answered.", float(queued))
        connections, held = totals[Gauge.CONNECTIONS], totals[Gauge.BODY_BYTES]
        yield _gauge("connections", "Open connections.", float(connections))
        yield _gauge(
            "inflight_body_bytes", "Memory that bodies of requests in flight take.", float(held)
        )
        if self._model is not None:
            info = GaugeMetricFamily(
                "resmem_model_info", "The model that is served; always 1.", labels=list(self._model)
            )
            info.add_metric(list(self._model.values()), 1)
            yield info
        if self._memory is not None:
            statistics = self._memory()
            yield from _memory_gauges(statistics)
            yield _gauge(
                "mapped_bytes",
                "Files that predictions read: the memory's segments and the base model.",
                statistics.nbytes + self._model_bytes,
            )
            yield _gauge(
                "memory_limit_bytes",
                "Memory that the service may use: RAM, or the limit of its control group.",
                usable_memory_bytes(),
            )

    def on_batch(self, rows: int, waits: Sequence[float]) -> None:
        """A batch of this many rows begins; its new requests waited these seconds."""
        self._batches()
        self._rows(rows)
        self._batch_rows(rows)
        for seconds in waits:
            self._waits(seconds)

    def on_stage(self, stage: str, seconds: float) -> None:
        """A stage (decode, base, search, combine, encode) took this long."""
        self._stages[stage](seconds)

    def on_corrections(self, nearest: NDArray[np.float64], magnitudes: NDArray[np.float32]) -> None:
        """Distances to the nearest memory `[n]`, infinite if none, and L2 norms `[n]`."""
        self._distances(nearest)
        self._magnitudes(magnitudes)

    def on_learned(self, scores: _Online) -> None:
        """Rows were predicted, then learned."""
        self._examples(scores.rows)
        self._losses["base"](scores.base_loss)
        self._losses["resmem"](scores.resmem_loss)
        self._errors["base"](scores.base_errors)
        self._errors["resmem"](scores.resmem_errors)

    def on_commit(self, seconds: float) -> None:
        """One journal transaction took this long."""
        self._commits(seconds)

    def on_memorized(self, *, created: int, replaced: int, unchanged: int) -> None:
        """One append request was committed."""
        for result, rows in zip(_RESULTS, (created, replaced, unchanged), strict=True):
            self._memorized[result](rows)

    def on_forgotten(self, rows: int) -> None:
        """This many memories were forgotten."""
        self._forgotten(rows)

    def on_sealed(self, seconds: float, rows: int) -> None:  # noqa: ARG002
        """A segment was built and published in this time."""
        self._seals(seconds)

    def on_seal_failed(self) -> None:
        """A segment could not be built or published."""
        self._seal_failures()

    def _build_inference(self) -> None:
        stages = self._histogram(
            "stage_duration_seconds", "Work on one request (decode, encode) or one batch.",
            _SECONDS, {"stage": _STAGES},
        )  # fmt: skip
        self._stages = {stage: stages.child(stage).observe for stage in _STAGES}
        self._rows = self._counter("inference_rows", "Rows run through the model.").child().add
        self._batches = self._counter("inference_batches", "Batches run.").child().add
        self._batch_rows = (
            self._histogram("batch_size_rows", "Rows of a batch.", _ROWS).child().observe
        )
        waits = self._histogram("queue_wait_seconds", "From arrival to the first batch.", _SECONDS)
        self._waits = waits.child().observe

    def _build_memory(self) -> None:
        memorized = self._counter("memorized_rows", "Rows of /memorize.", {"result": _RESULTS})
        self._memorized = {result: memorized.child(result).add for result in _RESULTS}
        self._forgotten = self._counter("forgotten_rows", "Memories forgotten.").child().add
        commits = self._histogram("journal_commit_seconds", "One journal transaction.", _SECONDS)
        self._commits = commits.child().observe
        seals = self._histogram(
            "seal_duration_seconds", "Building and publishing a sealed segment.",
            (*_SECONDS, 30.0, 60.0, 120.0, 300.0, 600.0),
        )  # fmt: skip
        self._seals = seals.child().observe
        failures = self._counter("seal_failures", "Builds of sealed segments that failed.")
        self._seal_failures = failures.child().add

    def _build_quality(self) -> None:
        distances = self._histogram("neighbour_distance", "To the nearest memory.", _SIZES)
        self._distances = distances.child().observe_many
        magnitudes = self._histogram("correction_magnitude", "L2 norm of a correction.", _SIZES)
        self._magnitudes = magnitudes.child().observe_many
        examples = self._counter("online_examples", "Examples predicted, then learned.")
        self._examples = examples.child().add
        labels = {"predictor": _PREDICTORS}
        losses = self._counter(
            "online_loss_sum", "Loss on examples before they were learned.", labels, suffix=""
        )
        errors = self._counter(
            "online_errors", "Examples labelled wrongly before they were learned.", labels
        )
        self._losses = {each: losses.child(each).add for each in _PREDICTORS}
        self._errors = {each: errors.child(each).add for each in _PREDICTORS}

    def _counter(
        self, name: str, documentation: str, labels: Labels | None = None, suffix: str = "_total"
    ) -> CounterFamily:
        family = CounterFamily(
            f"resmem_{name}", documentation, self._storage, labels or {}, suffix=suffix
        )
        self._families.append(family)
        return family

    def _histogram(
        self,
        name: str,
        documentation: str,
        bounds: Sequence[float],
        labels: Labels | None = None,
    ) -> HistogramFamily:
        family = HistogramFamily(
            f"resmem_{name}", documentation, self._storage, bounds, labels or {}
        )
        self._families.append(family)
        return family


def _restarts(totals: NDArray[np.float64]) -> Metric:
    family = CounterMetricFamily(
        "resmem_worker_restarts", "Workers replaced, by what was wrong.", labels=["reason"]
    )
    for reason in Restart:
        family.add_metric([reason.name.lower()], float(totals[reason]))
    return family


def _gauge(name: str, documentation: str, value: float) -> Metric:
    return GaugeMetricFamily(f"resmem_{name}", documentation, value)


def _memory_gauges(statistics: _Statistics) -> Iterator[Metric]:
    rows = GaugeMetricFamily("resmem_memory_rows", "Memories that predictions use.", None, ["tier"])
    rows.add_metric(["sealed"], statistics.sealed_rows)
    rows.add_metric(["growing"], statistics.growing_rows)
    yield rows
    yield _gauge("memory_bytes", "Bytes that the memory's segments take.", statistics.nbytes)
    yield _gauge("memory_segments", "Sealed segments.", statistics.segments)
    yield _gauge("memory_revision", "Grows with every change of the memory.", statistics.revision)
    yield _gauge(
        "memory_recall",
        "Share of a sample of its own rows that the worst sealed segment finds.",
        statistics.recall,
    )
    yield _gauge(
        "memory_unsealed_bytes", "Rows in RAM that wait to be sealed.", statistics.unsealed_bytes
    )
    yield _gauge(
        "memory_unsealed_limit_bytes",
        "Appends are refused while unsealed rows take this much.",
        statistics.unsealed_bytes_limit,
    )
    yield _gauge(
        "memory_unusable_segments",
        "Sealed segments that are damaged, gone or do not open, the bundle's among them.",
        statistics.unusable_segments,
    )
    yield _gauge(
        "memory_unreadable_rows",
        "Memories left out, since the journal's rows differ from their checksums.",
        statistics.unreadable_rows,
    )
    yield _gauge(
        "journal_readable",
        "1 where predictions know what was committed, 0 where they use what was read before.",
        float(statistics.journal_readable),
    )
    yield _gauge(
        "journal_writable", "1 where memories can be committed.", float(statistics.journal_writable)
    )
