"""Builds the ASGI app from settings, and brings one version after the other into service."""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Final, Protocol

from fastapi import FastAPI

from resmem_service.api.application import build_api
from resmem_service.api.auth import KeyRing
from resmem_service.api.lifecycle import Backend, Lifecycle
from resmem_service.api.limits import RequestLimits
from resmem_service.api.origins import Origins
from resmem_service.api.routes import REASONS, series
from resmem_service.assembly import assemble
from resmem_service.bundle.store import Bundle, ModelStore
from resmem_service.coalesced import Coalesced
from resmem_service.errors import NotReady, ReloadFailed, ResmemError
from resmem_service.footprint import Footprint
from resmem_service.memory.memory import MemoryStatistics, ResidualMemory
from resmem_service.reloaded import Reloaded
from resmem_service.resources import usable_memory_bytes
from resmem_service.settings import Settings
from resmem_service.telemetry.logs import fields
from resmem_service.telemetry.metric_storage import MetricStorage
from resmem_service.telemetry.metrics import Metrics

__all__ = ["Fleet", "ResmemApp", "create_app"]

_log = logging.getLogger(__name__)

_MOST_RETIRING: Final = 2
"""Versions that are kept for requests that began on them, beside the one that is served."""
_RETIREMENT_S: Final = 30.0
_YOUNG_OBJECTS: Final = 20_000
"""A few megabytes; Python's own 700 is what a dozen requests make."""


class Fleet(Protocol):
    """All workers of a service, as seen from one of them."""

    @property
    def storage(self) -> MetricStorage:
        """The storage that this worker counts in."""

    @property
    def others_answer(self) -> bool:
        """Whether this worker is one more beside those that answer requests already."""

    def all_ready(self) -> bool:
        """Whether every worker that takes requests can answer them."""

    def on_ready(self) -> None:
        """This worker answers requests from now on."""

    async def reload(self) -> Reloaded:
        """Has every worker load the current version; see `ResmemApp.reload`."""


class ResmemApp:
    """One service, or one worker of it: the ASGI app, and what a server must know beside it."""

    def __init__(self, settings: Settings, fleet: Fleet | None = None) -> None:
        """Finds the bundle and checks the sizes of its files; nothing is loaded yet.

        Without a `fleet` it serves alone.

        Raises:
            BundleError, CorruptFile: there is no bundle that could be served.
        """
        self._settings = settings
        self._fleet = fleet
        self._store = ModelStore(settings.store)
        self._bundle = self._store.resolve(settings.model)
        self._bundle.check()
        self._backend: Backend | None = None
        self._staged: tuple[Bundle, Backend] | None = None
        self._loading: asyncio.Task[None] | None = None
        self._reloads = Coalesced(self._reload, what="reloads", rests=True)
        self._staging = asyncio.Lock()
        self._retiring: set[asyncio.Task[None]] = set()
        self.lifecycle = Lifecycle(None if fleet is None else fleet.all_ready)
        self.metrics = Metrics(
            series(),
            REASONS,
            in_flight=self.lifecycle.in_flight,
            storage=None if fleet is None else fleet.storage,
        )
        self.asgi = build_api(
            self.lifecycle,
            RequestLimits(
                max_body_bytes=settings.max_body_bytes,
                max_request_rows=settings.max_request_rows,
                max_neighbours=settings.max_neighbours,
            ),
            _key_ring(settings),
            self.metrics,
            origins=Origins(
                settings.cors_origins,
                keyed=bool(settings.predict_keys or settings.memorize_keys or settings.admin_keys),
            ),
            reload=self.reload if fleet is None else fleet.reload,
            lifespan=self._lifespan,
        )

    @property
    def loading(self) -> bool:
        """Whether the first model is still being loaded."""
        return self._loading is not None and not self._loading.done()

    def is_getting_on(self) -> bool:
        """Whether batches end, or nothing is served yet; see `Batcher.is_getting_on`."""
        return self._backend is None or self._backend.predictor.is_getting_on()

    @property
    def settings(self) -> Settings:
        """As given."""
        return self._settings

    async def reload(self) -> Reloaded:
        """Brings the version that the store marks current into service, beside requests.

        One at a time: all who call while one is under way share the next, see `Coalesced`.

        Raises:
            ReloadFailed: it will not do, with the reason; the version that was served still is.
            QueueFull: too many wait for one already.
        """
        return await self._reloads.run()

    async def prepare(self, model: str) -> None:
        """Loads a version, `name/version`, and warms it up, beside the one that is served.

        Raises:
            ReloadFailed: it will not do; nothing of it stays.
        """
        if self._loading is not None:
            await asyncio.shield(self._loading)
        async with self._staging:
            await self._drop_staged()
            await self._earlier_retired()
            try:
                self._staged = await asyncio.to_thread(self._load_version, model)
            except Exception as error:
                known = isinstance(error, ResmemError)
                if not known:
                    _log.error("%s does not load", model, exc_info=error)
                reason = str(error) if known else f"{type(error).__name__}: {error}"
                raise ReloadFailed(reason) from error

    def commit(self) -> None:
        """Swaps in what was prepared; requests inside end on the version they began with.

        Raises:
            ReloadFailed: nothing was prepared.
        """
        staged, old, previous = self._staged, self._backend, self._bundle.reference
        if staged is None or old is None:
            raise ReloadFailed("no other version is loaded")
        self._staged = None
        self._bundle = staged[0]
        self._serve(staged[1])
        retiring = asyncio.create_task(self._retire(old))
        self._retiring.add(retiring)
        retiring.add_done_callback(self._retiring.discard)
        _log.info("reloaded", extra=fields(model=self._bundle.reference, previous=previous))

    async def abandon(self) -> None:
        """Drops what was prepared, if anything was."""
        async with self._staging:
            await self._drop_staged()

    @asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        # Beside the server's first requests: `/healthz` answers while a large model loads.
        self._loading = asyncio.create_task(self._load())
        if self._fleet is not None and self._fleet.others_answer:
            # They share the socket: a request that came here now would be turned away.
            await self._loading
        try:
            yield
        finally:
            self.lifecycle.stop()
            await self._loading
            await self.abandon()
            await asyncio.gather(*self._retiring)
            if self._backend is not None:
                await _close(self._backend)

    async def _reload(self) -> Reloaded:
        previous = self._bundle.reference
        model = self._settings.model or self._bundle.manifest.name
        try:
            # A start trusts sizes, for speed; nobody waits for this: every byte is read.
            bundle = await asyncio.to_thread(self._store.verified, model)
            await self.prepare(bundle.reference)
            self.commit()
        except (ResmemError, OSError) as error:
            _log.error("the reload failed, %s still serves: %s", previous, error)
            raise ReloadFailed(f"{previous} still serves: {error}") from error
        return Reloaded(self._bundle.reference, previous, pinned="/" in model)

    async def _earlier_retired(self) -> None:
        """Waits until few earlier versions are left in memory.

        Raises:
            ReloadFailed: requests that began on them take very long.
        """
        deadline = asyncio.get_running_loop().time() + _RETIREMENT_S
        while len(self._retiring) >= _MOST_RETIRING:
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                raise ReloadFailed(
                    f"requests that began on {len(self._retiring)} earlier versions are under way "
                    "still, which keep them loaded; reload again later"
                )
            await asyncio.wait(self._retiring, timeout=left, return_when=asyncio.FIRST_COMPLETED)

    async def _drop_staged(self) -> None:
        staged, self._staged = self._staged, None
        if staged is not None:
            await _close(staged[1])

    async def _load(self) -> None:
        began = perf_counter()
        _freeze_heap()
        try:
            backend = await asyncio.to_thread(assemble, self._bundle, self._settings, self.metrics)
        except Exception as error:
            self.lifecycle.failure = error
            unexpected = None if isinstance(error, ResmemError | OSError) else error
            _log.error("the model cannot be served: %s", error, exc_info=unexpected)
            return
        self._serve(backend)
        _log.info("ready", extra=fields(seconds=round(perf_counter() - began, 3)))
        if self._fleet is not None:
            self._fleet.on_ready()

    def _load_version(self, model: str) -> tuple[Bundle, Backend]:
        if self.lifecycle.failure is not None or self.lifecycle.draining:
            raise NotReady("the server is shutting down")
        bundle = self._store.resolve(model)
        bundle.check()
        return bundle, assemble(bundle, self._settings, self.metrics)

    def _serve(self, backend: Backend) -> None:
        predictor, metadata = backend.predictor, backend.metadata
        self._backend = backend
        _log.info(
            "serving",
            extra=fields(
                model=metadata.name,
                version=metadata.version,
                provider=metadata.provider,
                memories=predictor.memory.size,
            ),
        )
        model_bytes = self._bundle.model_path.stat().st_size
        if self._fleet is None or self._fleet.storage.worker == 0:  # once for all workers
            Footprint(
                mapped=predictor.memory.statistics().nbytes,
                model=model_bytes,
                workers=self._settings.workers,
                limit=usable_memory_bytes(),
            ).warn()
        predictor.start()
        self.metrics.serve(
            name=metadata.name,
            version=metadata.version,
            provider=metadata.provider,
            memory=lambda: _statistics(predictor.memory),
            queued_rows=lambda: predictor.queued_rows,
            model_bytes=model_bytes,
        )
        self.lifecycle.serve(backend)

    async def _retire(self, old: Backend) -> None:
        """Closes a backend once nobody uses it, or when the service ends."""
        await self.lifecycle.wait_for_earlier()
        await _close(old)
        retired = f"{old.metadata.name}/{old.metadata.version}"
        del old
        gc.collect()  # its parts refer to each other
        _log.info("retired", extra=fields(model=retired))


def create_app(settings: Settings) -> FastAPI:
    """The ASGI app alone, for a server of your own.

    Raises:
        BundleError, CorruptFile: there is no bundle that could be served.
    """
    return ResmemApp(settings).asgi


def _freeze_heap() -> None:
    """Excludes what lives as long as the service from garbage collection: 25 to 100 ms a run.

    And most of those over what they make themselves, nearly all of which goes without its help:
    5 % of a small request's CPU time. Called before the first version is loaded: what a version
    consists of is not frozen, so that it can be collected in 1 to 4 ms when it retires.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS)


def _statistics(memory: ResidualMemory) -> MemoryStatistics:
    memory.refresh()  # another worker may have changed it
    return memory.statistics()


async def _close(backend: Backend) -> None:
    await backend.predictor.close()
    await asyncio.to_thread(backend.predictor.memory.close)


def _key_ring(settings: Settings) -> KeyRing:
    return KeyRing(
        {
            "predict": [key.get_secret_value() for key in settings.predict_keys],
            "memorize": [key.get_secret_value() for key in settings.memorize_keys],
            "admin": [key.get_secret_value() for key in settings.admin_keys],
        }
    )
