"""The middleware: what it counts, the ids of requests, apps below a path of another."""

import asyncio

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from tests.api.conftest import Start
from tests.api.local_service import LocalService
from tests.conftest import FittedModel

ROW = [0.0] * 64


def samples(service: LocalService) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = service.get("/metrics").text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(service: LocalService, name: str, /, **labels: str) -> float:
    return samples(service)[f"resmem_{name}", tuple(sorted(labels.items()))]


@pytest.fixture
def service(digits: FittedModel, start: Start) -> LocalService:
    return start(digits, max_body_bytes=4096)


def test_requests_are_counted_by_template(service: LocalService) -> None:
    for path in ("/memories/a", "/memories/b"):
        service.get(path)
    service.post("/predict", {"inputs": [ROW]})
    service.get("/predict")
    service.get("/nowhere")
    service.get("/else/where")
    service.request("BREW", "/predict")

    def count(route: str, method: str, code: str) -> float:
        return value(service, "http_requests_total", route=route, method=method, code=code)

    assert count("/memories/{id}", "GET", "404") == 2
    assert count("/predict", "POST", "200") == 1
    assert count("/predict", "GET", "405") == 1
    assert count("/predict", "other", "405") == 1
    assert count("other", "GET", "404") == 2
    assert value(service, "http_request_duration_seconds_count", route="/memories/{id}") == 2
    assert value(service, "http_request_duration_seconds_count", route="other") == 2


def test_refusals_are_counted_by_reason(service: LocalService) -> None:
    before = samples(service)
    service.post("/predict", b"{")
    service.post("/predict", {})
    service.post("/predict", b" " * 5000)
    service.get("/memories?limit=0")
    service.get("/nowhere")
    after = samples(service)
    moved = {
        dict(labels)["reason"]: after[name, labels] - before[name, labels]
        for name, labels in after
        if name == "resmem_requests_rejected_total" and after[name, labels] != before[name, labels]
    }
    assert moved == {
        "malformed_body": 1,
        "invalid_input": 2,
        "body_too_large": 1,
        "not_found": 1,
    }


def test_stages_and_rows(service: LocalService) -> None:
    stages = ("decode", "base", "search", "combine", "encode")
    before = samples(service)
    service.post("/predict", {"inputs": [ROW] * 3})
    after = samples(service)

    def grew(name: str, **labels: str) -> float:
        key = (f"resmem_{name}", tuple(sorted(labels.items())))
        return after[key] - before[key]

    for stage in stages:
        assert grew("stage_duration_seconds_count", stage=stage) == 1, stage
    assert grew("inference_rows_total") == grew("batch_size_rows_sum") == 3
    assert grew("inference_batches_total") == grew("queue_wait_seconds_count") == 1
    assert grew("neighbour_distance_count") == grew("correction_magnitude_count") == 3


def test_the_memory_is_counted(service: LocalService) -> None:
    assert value(service, "memory_rows", tier="sealed") == 900
    body = {"inputs": [ROW] * 2, "targets": [1, 2], "ids": ["a", "b"], "source": "s"}
    service.post("/memorize", body)
    service.post("/memorize", body)
    service.post("/memorize", {**body, "targets": [1, 3]})
    service.delete("/memories/a")
    service.delete("/memories?source=s")
    results = {
        result: value(service, "memorized_rows_total", result=result)
        for result in ("created", "replaced", "unchanged")
    }
    assert results == {"created": 2, "replaced": 1, "unchanged": 3}
    assert value(service, "forgotten_rows_total") == 2
    assert value(service, "memory_rows", tier="growing") == 0
    assert value(service, "journal_commit_seconds_count") > 0
    assert value(service, "memory_bytes") > 0
    assert value(service, "memory_segments") == 1
    revision = service.get("/model").json()["memory"]["revision"]
    assert value(service, "memory_revision") == revision > 0


def test_online_quality(service: LocalService, digits: FittedModel) -> None:
    """Each example is predicted before it is learned, and counts once."""
    body = {
        "inputs": digits.inputs[:5].tolist(),
        "targets": digits.targets[:5].tolist(),
        "ids": [str(row) for row in range(5)],
    }
    service.post("/memorize", body)
    service.post("/memorize", body)
    assert value(service, "online_examples_total") == 5
    base = value(service, "online_loss_sum", predictor="base")
    assert 0 < value(service, "online_loss_sum", predictor="resmem") < base
    assert value(service, "online_errors_total", predictor="base") <= 5


def test_who_is_served(service: LocalService) -> None:
    assert value(service, "model_info", name="digits", version="1", provider="cpu") == 1


def test_in_flight_returns_to_zero(service: LocalService) -> None:
    async def many() -> None:
        posts = [service.client.post("/predict", json={"inputs": [ROW]}) for _ in range(8)]
        posts += [service.client.post("/predict", content=b"{") for _ in range(8)]
        await asyncio.gather(*posts)

    service.run(many())
    assert service.app.lifecycle.in_flight() == 0
    assert value(service, "queue_rows") == 0
    # The scrape itself.
    assert value(service, "requests_in_flight") == 1


@pytest.mark.parametrize("path", ["/healthz", "/nowhere", "/memories/nobody"])
def test_a_request_keeps_its_id(digits_service: LocalService, path: str) -> None:
    answer = digits_service.get(path, headers={"X-Request-ID": "abc-1"})
    assert answer.headers["x-request-id"] == "abc-1"


@pytest.mark.parametrize("mine", [None, "", "x" * 129, "a\x1b[31m"])
def test_a_request_without_a_good_id_gets_one(
    digits_service: LocalService, mine: str | None
) -> None:
    headers = {} if mine is None else {"X-Request-ID": mine}
    first, second = (
        digits_service.get("/healthz", headers=headers).headers["x-request-id"] for _ in range(2)
    )
    assert first not in (second, mine)
    assert first.isprintable()


def test_below_a_path_of_another_app(service: LocalService) -> None:
    """The answer is the same, and so is what it counts as."""
    outer = FastAPI()
    outer.mount("/ml", service.app.asgi)
    transport = httpx.ASGITransport(outer)

    async def ask() -> tuple[httpx.Response, httpx.Response]:
        async with httpx.AsyncClient(transport=transport, base_url="http://outer") as client:
            return (
                await client.post("/ml/predict", json={"inputs": [ROW]}),
                await client.post("/ml/memorize", json={"inputs": [ROW], "targets": [99]}),
            )

    good, bad = service.run(ask())
    assert good.json() == service.post("/predict", {"inputs": [ROW]}).json()
    assert (bad.status_code, bad.json()["error"]["field"]) == (422, "targets")
    assert value(service, "http_requests_total", route="/predict", method="POST", code="200") == 2
