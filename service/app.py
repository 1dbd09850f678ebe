"""Builds the ASGI app from settings: the bundle, the memory and the predictor behind the API."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter

from fastapi import FastAPI

from service.api.application import build_api
from service.api.auth import KeyRing
from service.api.card import ModelCard
from service.api.gate import Backend, Gate
from service.api.limits import RequestLimits
from service.api.surface import REASONS, series
from service.bundle.manifest import Manifest
from service.bundle.store import Bundle, ModelStore
from service.errors import ResmemError
from service.inference.base_model import BaseModel
from service.inference.batcher import Limits
from service.inference.predictor import Predictor
from service.memory.memory import ResidualMemory
from service.memory.options import MemoryOptions
from service.settings import Settings
from service.telemetry.logs import fields
from service.telemetry.metrics import Metrics

__all__ = ["ResmemApp", "create_app"]

_log = logging.getLogger(__name__)


class ResmemApp:
    """One service: the ASGI app, and what a server must know beside it."""

    def __init__(self, settings: Settings) -> None:
        """Finds the bundle and checks the sizes of its files; nothing is loaded yet.

        Raises:
            BundleError, CorruptFile: there is no bundle that could be served.
        """
        self._settings = settings
        self._bundle = ModelStore(settings.store).resolve(settings.model)
        self._bundle.check()
        self._backend: Backend | None = None
        self.gate = Gate()
        self.metrics = Metrics(series(), REASONS)
        self.asgi = build_api(
            self.gate,
            RequestLimits(
                max_body_bytes=settings.max_body_bytes,
                max_request_rows=settings.max_request_rows,
                max_neighbours=settings.max_neighbours,
            ),
            _key_ring(settings),
            self.metrics,
            self._lifespan,
        )

    @asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        # Beside the server's first requests: `/healthz` answers while a large model loads.
        loading = asyncio.create_task(self._load())
        try:
            yield
        finally:
            self.gate.drain()
            await loading
            await self._close()

    async def _load(self) -> None:
        began = perf_counter()
        manifest = self._bundle.manifest
        try:
            backend = await asyncio.to_thread(self._build)
            self._backend = backend
            memory, predictor = backend.predictor.memory, backend.predictor
            _log.info(
                "serving",
                extra=fields(
                    model=manifest.name,
                    version=manifest.version,
                    provider=backend.card.provider,
                    memories=memory.size,
                ),
            )
            await asyncio.to_thread(_warm_up, backend)
        except Exception as error:
            self.gate.failure = error
            unexpected = None if isinstance(error, ResmemError) else error
            _log.error("the model cannot be served: %s", error, exc_info=unexpected)
            return
        predictor.start()
        self.metrics.serve(
            name=manifest.name,
            version=manifest.version,
            provider=backend.card.provider,
            memory=memory.statistics,
            queued_rows=lambda: predictor.queued_rows,
        )
        self.gate.open(backend)
        _log.info("ready", extra=fields(seconds=round(perf_counter() - began, 3)))

    def _build(self) -> Backend:
        settings, manifest = self._settings, self._bundle.manifest
        model = BaseModel(
            self._bundle.model_path,
            inputs=manifest.inputs,
            provider=settings.provider,
            threads=settings.threads or None,
        )
        memory = ResidualMemory.open(
            settings.state_dir / manifest.name / manifest.version,
            fitted=self._bundle.memories_path,
            shape=manifest.memory_shape(),
            options=MemoryOptions(growing_bytes=settings.growing_bytes),
            observer=self.metrics,
        )
        predictor = Predictor(
            model,
            memory,
            task=manifest.task,
            temperature=manifest.parameters.temperature,
            rule=manifest.parameters.rule(),
            limits=Limits(
                max_batch_rows=settings.max_batch_rows,
                max_queue_rows=settings.max_queue_rows,
                max_delay_ms=settings.max_delay_ms,
                max_inline_ms=settings.max_inline_ms,
            ),
            observer=self.metrics,
        )
        return Backend(_card(self._bundle, model.provider), predictor)

    async def _close(self) -> None:
        if self._backend is None:
            return
        await self._backend.predictor.close()
        await asyncio.to_thread(self._backend.predictor.memory.close)


def create_app(settings: Settings) -> FastAPI:
    """The ASGI app alone, for a server of your own.

    Raises:
        BundleError, CorruptFile: there is no bundle that could be served.
    """
    return ResmemApp(settings).asgi


def _warm_up(backend: Backend) -> None:
    backend.predictor.memory.warm()
    backend.predictor.warm_up()


def _key_ring(settings: Settings) -> KeyRing:
    return KeyRing(
        {
            "predict": [key.get_secret_value() for key in settings.predict_keys],
            "memorize": [key.get_secret_value() for key in settings.memorize_keys],
            "admin": [key.get_secret_value() for key in settings.admin_keys],
        }
    )


def _card(bundle: Bundle, provider: str) -> ModelCard:
    manifest: Manifest = bundle.manifest
    return ModelCard(
        name=manifest.name,
        version=manifest.version,
        task=manifest.task,
        inputs=manifest.inputs,
        classes=manifest.classes,
        outputs=manifest.outputs,
        provider=provider,
        embedding=manifest.embedding.model_dump(mode="json", include={"dim", "metric"}),
        parameters=manifest.parameters.model_dump(mode="json"),
        teaching_weight=manifest.teaching_weight,
        scores=[table.model_dump(mode="json") for table in manifest.scores],
        checksums={name: entry.sha256 for name, entry in manifest.files.items()},
    )
