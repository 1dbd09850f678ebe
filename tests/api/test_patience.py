"""Clients that go away while their request waits."""

import asyncio
import threading

import pytest
from starlette.types import Message

from service.api.body import Disconnected
from service.api.patience import while_client_waits
from service.inference.base_model import BaseModel, BaseOutput
from service.inference.rows import Rows
from tests.api.conftest import Start
from tests.conftest import FittedModel


def test_a_client_that_stays() -> None:
    async def receive() -> Message:
        return await asyncio.Future()

    async def wait() -> str:
        with while_client_waits(receive):
            await asyncio.sleep(0.1)  # past the patience, so that the watcher has begun
            return "answer"

    assert asyncio.run(wait()) == "answer"


def test_a_client_that_goes() -> None:
    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def wait() -> int:
        with pytest.raises(Disconnected), while_client_waits(receive):
            await asyncio.Future()
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling()

    assert asyncio.run(wait()) == 0


def test_a_task_cancelled_by_others_stays_cancelled() -> None:
    async def receive() -> Message:
        return await asyncio.Future()

    async def wait() -> None:
        with while_client_waits(receive):
            await asyncio.Future()

    async def cancel() -> None:
        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())


def test_rows_of_a_client_that_goes_leave_the_queue(
    digits: FittedModel, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They never run, nobody is answered, and the metrics say 499."""
    service = start(digits)
    busy, go_on, sizes = threading.Event(), threading.Event(), list[int]()
    run = BaseModel.run

    def slow(self: BaseModel, rows: Rows) -> BaseOutput:
        sizes.append(len(rows))
        busy.set()
        assert go_on.wait(30)
        return run(self, rows)

    monkeypatch.setattr(BaseModel, "run", slow)
    body = b'{"inputs": [' + b",".join([b"[" + b"0," * 63 + b"0]"] * 7) + b"]}"
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def play() -> None:
        first = asyncio.ensure_future(
            service.client.post("/predict", json={"inputs": [[0.0] * 64]})
        )
        await asyncio.to_thread(busy.wait, 30)
        messages: list[Message] = [
            {"type": "http.request", "body": body},
            {"type": "http.disconnect"},
        ]

        async def receive() -> Message:
            return messages.pop(0)

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/predict",
            "headers": [],
            "root_path": "",
        }
        await service.app.asgi(scope, receive, send)
        go_on.set()
        assert (await first).status_code == 200

    service.run(play())
    assert sent == []
    assert sizes == [1]
    assert service.app.gate.in_flight() == 0
    assert service.app.metrics.requests("/predict", "POST", "499").value == 1
