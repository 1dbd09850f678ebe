"""Building the app: what is checked before, what happens when loading fails or is cut short."""

import asyncio
import gc
import logging
import shutil
import weakref
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from resmem_service.app import ResmemApp, create_app
from resmem_service.durable import sha256_of
from resmem_service.errors import BundleError, CorruptFile
from resmem_service.memory.memory import ResidualMemory
from resmem_service.settings import Settings, load

from tests.conftest import FittedModel, TwoVersions
from tests.migrate.states import teach


def settings(model: FittedModel, folder: Path) -> Settings:
    return load(store=model.store, state_dir=folder / "state")


async def until_over(app: ResmemApp) -> httpx.Response:
    """What `/readyz` says once loading is over, and the model's own routes say the same."""
    transport = httpx.ASGITransport(app.asgi)
    async with (
        app.asgi.router.lifespan_context(app.asgi),
        httpx.AsyncClient(transport=transport, base_url="http://resmem") as client,
    ):
        assert (await client.get("/healthz")).status_code == 200
        first = await client.get("/readyz")
        assert (first.status_code, first.json()["error"]["code"]) == (503, "not_ready")
        answer = first
        while "being loaded" in answer.text:
            await asyncio.sleep(0.001)
            answer = await client.get("/readyz")
        assert (await client.get("/model")).status_code == answer.status_code
        return answer


async def until_served(app: ResmemApp) -> None:
    """Waits until a model is served."""
    async with asyncio.timeout(30):
        while app.loading:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.01)
    app.lifecycle.backend()


def test_not_ready_until_loaded(digits: FittedModel, tmp_path: Path) -> None:
    app = ResmemApp(settings(digits, tmp_path))
    assert asyncio.run(until_over(app)).status_code == 200
    assert (tmp_path / "state/digits/1").is_dir()


@pytest.fixture
def collector() -> Iterator[None]:
    """The garbage collector, as it was before the test again after it."""
    thresholds = gc.get_threshold()
    gc.unfreeze()
    yield
    gc.set_threshold(*thresholds)


@pytest.mark.usefixtures("collector")
def test_the_collector_leaves_requests_alone(digits: FittedModel, tmp_path: Path) -> None:
    assert gc.get_freeze_count() < 1000
    asyncio.run(until_over(ResmemApp(settings(digits, tmp_path))))
    assert gc.get_freeze_count() > 10_000
    assert gc.get_threshold()[0] == 20_000


@pytest.mark.usefixtures("collector")
def test_what_retires_is_collected_without_a_walk_over_the_whole_heap(
    digits: FittedModel, tmp_path: Path
) -> None:
    app = ResmemApp(settings(digits, tmp_path))

    async def reload_twice() -> None:
        async with app.asgi.router.lifespan_context(app.asgi):
            await until_served(app)
            for _ in range(2):
                memory = weakref.ref(app.lifecycle.backend().predictor.memory)
                frozen = gc.get_freeze_count()
                await app.reload()
                async with asyncio.timeout(30):
                    while memory() is not None:  # noqa: ASYNC110 - nor has this
                        await asyncio.sleep(0.01)
                # What was frozen at the start still is, and what is walked over is far less.
                assert gc.get_freeze_count() > 0.9 * frozen > 5 * len(gc.get_objects())

    asyncio.run(reload_twice())


def test_there_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        create_app(load(store=tmp_path))


def test_a_file_of_the_bundle_is_missing(digits: FittedModel, tmp_path: Path) -> None:
    store = Path(shutil.copytree(digits.store, tmp_path / "store"))
    (store / "digits/1/memories/graph.hnsw").unlink()
    with pytest.raises(CorruptFile, match="graph"):
        create_app(load(store=store))


def test_a_model_that_does_not_load(
    digits: FittedModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Path(shutil.copytree(digits.store, tmp_path / "store"))
    model = store / "digits/1/base.onnx"
    model.write_bytes(b"\0" * model.stat().st_size)
    # Published like this, not damaged since.
    manifest = store / "digits/1/manifest.json"
    published = digits.bundle.manifest.files["base.onnx"].sha256
    manifest.write_text(manifest.read_text().replace(published, sha256_of(model)))
    manifest.with_name("manifest.json.sha256").unlink()
    app = ResmemApp(load(store=store, state_dir=tmp_path / "state"))
    with caplog.at_level(logging.ERROR):
        answer = asyncio.run(until_over(app))
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_ready")
    assert "log" in answer.json()["error"]["message"]
    assert isinstance(app.lifecycle.failure, BundleError)
    assert "base.onnx" in caplog.text
    assert "Traceback" not in caplog.text


def test_what_nobody_expected_is_logged_whole(
    digits: FittedModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(_: ResidualMemory) -> None:
        raise ZeroDivisionError("why")

    monkeypatch.setattr(ResidualMemory, "warm", broken)
    with caplog.at_level(logging.ERROR):
        answer = asyncio.run(until_over(ResmemApp(settings(digits, tmp_path))))
    assert answer.status_code == 503
    assert "Traceback" in caplog.text
    # The memory was open by then, and is closed all the same.
    assert not list(tmp_path.rglob("*-wal"))


def test_ended_while_it_loads(digits: FittedModel, tmp_path: Path) -> None:
    app = ResmemApp(settings(digits, tmp_path))

    async def short_life() -> None:
        async with app.asgi.router.lifespan_context(app.asgi):
            pass

    asyncio.run(short_life())
    assert app.lifecycle.draining
    assert not list(tmp_path.rglob("*-wal"))


def test_a_version_by_its_number(digits: FittedModel, tmp_path: Path) -> None:
    app = ResmemApp(load(store=digits.store, state_dir=tmp_path, model="digits/1"))
    assert asyncio.run(until_over(app)).status_code == 200


def test_an_older_version_that_was_taught_is_named(
    digits_twice: TwoVersions, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    two = digits_twice
    teach(two.old, tmp_path, two.inputs[:3], two.targets[:3], ids=["a", "b", "c"])
    app = ResmemApp(load(store=two.store, state_dir=tmp_path, model="digits/2"))
    with caplog.at_level(logging.WARNING):
        assert asyncio.run(until_over(app)).status_code == 200
    assert "version 1 was taught 3" in caplog.text
    assert "resmem rebase --model digits/2 --from 1" in caplog.text


@pytest.mark.usefixtures("collector")
@pytest.mark.parametrize("limit", [2**50, 2**10])
def test_a_memory_that_does_not_fit_is_mentioned_at_the_start(
    limit: int,
    digits: FittedModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("resmem_service.app.usable_memory_bytes", lambda: limit)
    app = ResmemApp(settings(digits, tmp_path))

    async def scraped() -> list[str]:
        async with app.asgi.router.lifespan_context(app.asgi):
            while True:
                lines = app.metrics.scrape().decode().splitlines()
                if any(line.startswith("resmem_model_info") for line in lines):
                    return lines
                await asyncio.sleep(0.01)

    lines = asyncio.run(scraped())
    warnings = [line for line in caplog.messages if "files in RAM" in line]
    assert len(warnings) == (limit == 2**10)
    (mapped,) = (float(line.split()[1]) for line in lines if line.startswith("resmem_mapped_bytes"))
    model, memories = digits.bundle.model_path, digits.bundle.memories_path
    least = model.stat().st_size + (memories / "graph.hnsw").stat().st_size
    assert mapped > least
    assert any(line.startswith("resmem_memory_limit_bytes ") for line in lines)
    assert any(line.startswith('resmem_major_page_faults_total{worker="0"} ') for line in lines)
