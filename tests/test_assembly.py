"""What a backend is put together from: the settings that reach the memory."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from resmem_service.memory.segments.lock import try_lock
from resmem_service.settings import load

from tests.api.local_service import LocalService
from tests.conftest import FittedModel

ROW = [0.0] * 64

Start = Callable[..., LocalService]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with ExitStack() as stack:

        def begin(model: FittedModel, **settings: Any) -> LocalService:
            made = load(store=model.store, state_dir=tmp_path / "state", **settings)
            return stack.enter_context(LocalService(made))

        yield begin


def until(condition: Callable[[], bool]) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("not within a minute")


def test_the_bounds_of_the_memory_are_shown(digits: FittedModel, start: Start) -> None:
    limits: dict[str, float] = {
        "capacity_rows": 1000,
        "capacity_bytes": 10**9,
        "max_age_s": 3600.5,
        "growing_bytes": 2**16,
        "max_growing_bytes": 2**18,
        "max_segment_rows": 5000,
        "busy_ms": 100,
        "max_weight": 12.5,
    }
    service = start(digits, **limits)
    assert service.get("/model").json()["memory"]["limits"] == limits


def test_the_oldest_are_forgotten(digits: FittedModel, start: Start) -> None:
    service = start(digits, capacity_rows=5)
    body = {
        "inputs": digits.inputs[:8].tolist(),
        "targets": digits.targets[:8].tolist(),
        "ids": [f"m{number}" for number in range(8)],
    }
    assert service.post("/memorize", body).status_code == 201

    def kept() -> list[str]:
        return [one["id"] for one in service.get("/memories").json()["memories"]]

    until(lambda: len(kept()) <= 5)
    assert kept() == ["m3", "m4", "m5", "m6", "m7"]


def test_memories_that_cannot_be_sealed_in_time(
    digits: FittedModel, start: Start, tmp_path: Path
) -> None:
    """429 while they wait, and taken again once sealing has caught up."""
    service = start(digits, growing_bytes=2**16, max_growing_bytes=2**18)
    body = {"inputs": [ROW] * 500, "targets": [1] * 500}
    with try_lock(tmp_path / "state/digits/1/segments.lock") as lock:
        assert lock is not None
        for _ in range(2):
            assert service.post("/memorize", body).status_code == 201
        answer = service.post("/memorize", body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "queue_full")
        assert answer.headers["retry-after"]
        assert service.post("/predict", {"inputs": [ROW]}).status_code == 200
    until(lambda: service.post("/memorize", body).status_code == 201)
