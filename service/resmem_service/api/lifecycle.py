"""The lifecycle of a service: starting, ready, draining, stopped; and its requests in flight."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from resmem_service.api.model_metadata import ModelMetadata
from resmem_service.errors import NotReady
from resmem_service.inference.predictor import Predictor
from resmem_service.memory.faults import Fault

__all__ = ["Backend", "Lifecycle", "RequestCount"]

_LOOK_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class Backend:
    """What requests are answered with."""

    metadata: ModelMetadata
    predictor: Predictor


class RequestCount:
    """Counts the requests in flight that came while the same backend was served."""

    __slots__ = ("size",)

    def __init__(self) -> None:
        self.size = 0


class Lifecycle:
    """Says what answers requests: nothing at first, then a backend; nothing again once stopped.

    Its states are starting, serving, draining and stopped, or failed. It belongs to the event loop.
    """

    def __init__(self, others_ready: Callable[[], bool] | None = None) -> None:
        """`others_ready` says whether all other workers that take requests can answer them."""
        self._others_ready = others_ready
        self._backend: Backend | None = None
        self._earlier: list[RequestCount] = []
        self.requests = RequestCount()
        """A request that comes now adds itself here, and takes itself off when it is answered."""
        self.other_requests = RequestCount()
        """The same for requests that no backend answers: a reload must not wait for itself."""
        self._stopped = False
        self.draining = False
        """Whether the service is going to end. Requests are answered, but it is not ready: whoever
        distributes them should go elsewhere."""
        self.closing = False
        """Whether each answer is the last one on its connection."""
        self.failure: Exception | None = None
        """Why the model could not be loaded; the server should end then."""

    def in_flight(self) -> int:
        """The number of requests that have come and are not answered yet."""
        earlier = sum(requests.size for requests in self._earlier)
        return self.other_requests.size + self.requests.size + earlier

    def serve(self, backend: Backend) -> None:
        """Answers requests with this backend from now on; those in flight stay with theirs."""
        self._backend = backend
        self._earlier.append(self.requests)
        self.requests = RequestCount()

    async def wait_for_earlier(self) -> None:
        """Waits for all requests that came before the last `serve`, or for `stop`."""
        earlier = list(self._earlier)
        # An event would have every request look whether it is the last; reloads are rare.
        while not self._stopped and any(requests.size for requests in earlier):  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_S)
        self._earlier = [requests for requests in self._earlier if requests.size]

    def drain(self) -> None:
        """Says that the service is not ready any more; requests are answered as before."""
        self.draining = True

    def close_connections(self) -> None:
        """Has every answer from now on close its connection."""
        self.closing = True

    def stop(self) -> None:
        """Refuses requests from now on, and waits no longer for those in flight."""
        self.draining = self.closing = self._stopped = True

    def check_ready(self) -> Backend:
        """What answers requests here, where it is wise to send some.

        Raises:
            NotReady: as `backend`; or the service is going to end, or another worker, which may get
                the next request, is still loading the model.
        """
        backend = self.backend()
        if self.draining:
            raise NotReady("the server is shutting down")
        if self._others_ready is not None and not self._others_ready():
            raise NotReady("another worker is still loading the model")
        return backend

    async def ready(self) -> list[Fault]:
        """What is damaged or does not work while requests are answered all the same.

        Raises:
            NotReady: as `check_ready`; or predictions fail, since a file of the bundle was damaged.
        """
        faults = await asyncio.to_thread(self.check_ready().predictor.memory.faults)
        for fault in faults:
            if fault.fatal:
                raise NotReady(fault.message)
        return faults

    def backend(self) -> Backend:
        """What to answer a request with.

        Raises:
            NotReady: still starting, or the service has ended.
        """
        if self._stopped:
            raise NotReady("the server is shutting down")
        if self.failure is not None:
            raise NotReady("the model could not be loaded; the server's log says why")
        if self._backend is None:
            raise NotReady("the model is being loaded")
        return self._backend
