"""Clients that go away while their request waits."""

import asyncio
import threading

import pytest
from resmem_service.api.body import Disconnected
from resmem_service.api.disconnect_watcher import DisconnectWatcher
from resmem_service.inference.base_model import BaseModel, BaseOutput
from resmem_service.inference.rows import Rows
from starlette.types import Message

from tests.api.conftest import Start
from tests.conftest import FittedModel


async def stays() -> Message:
    return await asyncio.Future()


async def goes() -> Message:
    return {"type": "http.disconnect"}


def test_a_client_that_stays() -> None:
    async def wait() -> str:
        future = asyncio.get_running_loop().create_future()
        answer = asyncio.create_task(DisconnectWatcher().wait(future, stays))
        await asyncio.sleep(
            0.2
        )  # past the time that no request is watched for, so that a watcher has begun
        future.set_result("answer")
        return str(await answer)

    assert asyncio.run(wait()) == "answer"


def test_a_client_that_goes() -> None:
    async def wait() -> None:
        future = asyncio.get_running_loop().create_future()
        with pytest.raises(Disconnected):
            await DisconnectWatcher().wait(future, goes)
        assert future.cancelled()
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    asyncio.run(wait())


def test_each_request_has_its_own_client() -> None:
    async def wait() -> None:
        watcher, loop = DisconnectWatcher(), asyncio.get_running_loop()
        futures = [loop.create_future() for _ in range(3)]
        waits = [
            asyncio.create_task(watcher.wait(future, receive))
            for future, receive in zip(futures, (stays, goes, stays), strict=True)
        ]
        with pytest.raises(Disconnected):
            await waits[1]
        futures[0].set_result(0)
        futures[2].set_exception(KeyError("its own"))
        assert await waits[0] == 0
        with pytest.raises(KeyError):
            await waits[2]
        # It looks again for those that come after it had nobody left to look at.
        await asyncio.sleep(0.2)
        with pytest.raises(Disconnected):
            await watcher.wait(loop.create_future(), goes)

    asyncio.run(wait())


def test_no_watcher_outlives_its_request() -> None:
    async def wait() -> None:
        future = asyncio.get_running_loop().create_future()
        answer = asyncio.create_task(DisconnectWatcher().wait(future, stays))
        await asyncio.sleep(0.2)
        assert len(asyncio.all_tasks()) == 3  # this one, the request's, its watcher
        future.set_result(None)
        await answer
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(wait())


def test_a_task_cancelled_by_others_stays_cancelled() -> None:
    async def cancel() -> None:
        future = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(DisconnectWatcher().wait(future, stays))
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
    assert service.app.lifecycle.in_flight() == 0
    assert service.app.metrics.requests("/predict", "POST", "499").value == 1
