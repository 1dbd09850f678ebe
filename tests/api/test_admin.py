"""`POST /admin/reload` in one process: what requests under way see, and what a bad version does."""

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from resmem_service import app
from resmem_service.bundle.store import ModelStore
from resmem_service.inference.predictor import Predictor
from resmem_service.settings import load

from tests.api.conftest import Start
from tests.api.local_service import LocalService
from tests.conftest import FittedModel, TwoVersions

ROW = [0.0] * 64


@pytest.fixture
def store(digits_twice: TwoVersions, tmp_path: Path) -> ModelStore:
    """Two versions, the first of which is current."""
    store = ModelStore(Path(shutil.copytree(digits_twice.store, tmp_path / "store")))
    store.use("digits/1")
    return store


def start_on(store: ModelStore, folder: Path, **settings: Any) -> LocalService:
    return LocalService(load(store=store.root, state_dir=folder / "state", **settings))


def reloaded(service: LocalService) -> tuple[str, str]:
    """The version now and before."""
    answer = service.request("POST", "/admin/reload")
    assert answer.status_code == 200, answer.text
    body = answer.json()
    return body["model"]["version"], body["previous"]["version"]


def test_there_and_back(store: ModelStore, tmp_path: Path) -> None:
    with start_on(store, tmp_path) as service:
        body = {"inputs": [ROW], "targets": ["1"], "ids": ["first"]}
        assert service.post("/memorize", body).status_code == 201
        store.use("digits/2")
        assert service.get("/model").json()["version"] == "1", "only a reload changes it"
        assert reloaded(service) == ("2", "1")
        assert service.get("/memories/first").status_code == 404
        classes = service.get("/model").json()["classes"]
        assert classes == [str(digit) for digit in reversed(range(10))]
        assert service.post("/predict", {"inputs": [ROW]}).json()["model"]["version"] == "2"
        store.use("digits/1")
        assert reloaded(service) == ("1", "2")
        assert service.get("/memories/first").status_code == 200
        assert reloaded(service) == ("1", "1")


def test_a_request_under_way_ends_on_its_version(
    store: ModelStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its memory stays open as long as it takes; then the old version is closed."""
    closed: list[Predictor] = []
    close = Predictor.close

    async def noted(self: Predictor) -> None:
        closed.append(self)
        await close(self)

    monkeypatch.setattr(Predictor, "close", noted)

    async def life(service: LocalService) -> None:
        half, rest = asyncio.Event(), asyncio.Event()

        async def body() -> AsyncIterator[bytes]:
            whole = orjson.dumps({"inputs": [ROW], "targets": ["7"], "ids": ["late"]})
            yield whole[:20]
            half.set()
            await rest.wait()
            yield whole[20:]

        slow = asyncio.create_task(service.client.post("/memorize", content=body()))
        await half.wait()
        store.use("digits/2")
        for _ in range(2):
            assert (await service.client.post("/admin/reload")).status_code == 200
        # Reloads as well are requests, and wait for nobody.
        assert not closed
        rest.set()
        assert (await slow).status_code == 201
        assert (await service.client.get("/memories/late")).status_code == 404
        async with asyncio.timeout(60):
            while len(closed) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        store.use("digits/1")
        assert (await service.client.post("/admin/reload")).status_code == 200
        assert (await service.client.get("/memories/late")).status_code == 200

    with caplog.at_level(logging.INFO), start_on(store, tmp_path) as service:
        service.run(life(service))
    assert len(closed) == 4, "all of them, each once"
    assert not list(tmp_path.rglob("*-wal"))


def test_ended_while_a_request_holds_the_old_version(store: ModelStore, tmp_path: Path) -> None:
    with start_on(store, tmp_path) as service:
        service.app.lifecycle.requests.size += 1
        assert reloaded(service) == ("1", "1")
    assert not list(tmp_path.rglob("*-wal"))


def refused(service: LocalService) -> str:
    answer = service.request("POST", "/admin/reload")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (409, "reload_failed")
    assert service.get("/model").json()["version"] == "1"
    assert service.post("/predict", {"inputs": [ROW]}).status_code == 200
    message: str = error["message"]
    assert message.startswith("digits/1 still serves: ")
    return message


def test_a_version_that_will_not_do(
    store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with start_on(store, tmp_path) as service:
        model = store.root / "digits/2/base.onnx"
        store.use("digits/2")
        good = model.read_bytes()
        model.write_bytes(good[:-1])
        assert "base.onnx has" in refused(service)
        model.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        assert "SHA-256" in refused(service)
        model.unlink()
        assert "base.onnx" in refused(service)
        model.write_bytes(good)

        def broken(_: Predictor) -> None:
            raise ZeroDivisionError("in the warm-up")

        with monkeypatch.context() as patch:
            patch.setattr(Predictor, "warm_up", broken)
            assert "ZeroDivisionError: in the warm-up" in refused(service)
        assert not list((tmp_path / "state/digits/2").glob("*-wal")), "its memory is closed again"
        assert reloaded(service) == ("2", "1")


def test_pinned(store: ModelStore, tmp_path: Path) -> None:
    store.use("digits/2")
    with start_on(store, tmp_path, model="digits/1") as service:
        body = service.request("POST", "/admin/reload").json()
        assert body["pinned"] is True
        assert body["model"] == body["previous"] == {"name": "digits", "version": "1"}


def test_another_model_in_the_store_does_not_matter(
    store: ModelStore, tmp_path: Path, diabetes: FittedModel
) -> None:
    """At the start there was only one, and so nobody has said which."""
    with start_on(store, tmp_path) as service:
        shutil.copytree(diabetes.store / "diabetes", store.root / "diabetes")
        store.use("digits/2")
        assert reloaded(service) == ("2", "1")


def test_who_may(digits: FittedModel, start: Start) -> None:
    service = start(digits, predict_keys="p", memorize_keys="m", admin_keys="a")
    for key, status in (("p", 403), ("m", 403), ("a", 200)):
        answer = service.request(
            "POST", "/admin/reload", headers={"authorization": f"Bearer {key}"}
        )
        assert answer.status_code == status


def test_not_before_the_end(digits: FittedModel, start: Start) -> None:
    service = start(digits)
    service.app.lifecycle.drain()
    answer: httpx.Response = service.request("POST", "/admin/reload")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "reload_failed")
    assert "the server is shutting down" in answer.json()["error"]["message"]
    service.app.lifecycle.stop()
    answer = service.request("POST", "/admin/reload")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_ready")


def test_a_hundred_reloads_load_two_versions(
    store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They queued, and each waited for the requests of all: 4.5 GB, 378 threads."""
    opened: list[Predictor] = []
    closed: list[Predictor] = []
    start, close = Predictor.start, Predictor.close

    def begin(self: Predictor) -> None:
        opened.append(self)
        start(self)

    async def end(self: Predictor) -> None:
        closed.append(self)
        await close(self)

    monkeypatch.setattr(Predictor, "start", begin)
    monkeypatch.setattr(Predictor, "close", end)

    async def storm(service: LocalService) -> list[int]:
        asked = [service.client.post("/admin/reload") for _ in range(100)]
        codes = [answer.status_code for answer in await asyncio.gather(*asked)]
        while len(closed) < len(opened) - 1:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        return codes

    with start_on(store, tmp_path) as service:
        codes = service.run(storm(service))
        assert set(codes) == {200, 429}
        assert codes.count(200) == 64
        assert len(opened) == 3, "the first version, and two reloads for all"
        assert reloaded(service) == ("1", "1")


def test_a_reload_waits_while_earlier_versions_are_still_in_use(
    store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that never ends its body keeps its version, and no more of them than two."""
    monkeypatch.setattr(app, "_RETIREMENT_S", 0.05)

    async def life(service: LocalService) -> None:
        let_go = asyncio.Event()

        async def body() -> AsyncIterator[bytes]:
            yield b"{"
            await let_go.wait()
            yield b"}"

        slow = []
        for expected in (200, 200, 409):
            slow.append(asyncio.create_task(service.client.post("/predict", content=body())))
            await asyncio.sleep(0.05)
            answer = await service.client.post("/admin/reload")
            assert answer.status_code == expected, answer.text
        assert "2 earlier versions" in answer.json()["error"]["message"]
        let_go.set()
        for each in slow:
            assert (await each).status_code == 422
        while (await service.client.post("/admin/reload")).status_code != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    with start_on(store, tmp_path) as service:
        service.run(life(service))
