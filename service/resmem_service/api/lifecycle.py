"""The gate: shut until a model is warm, and again when the service has ended."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from resmem_service.api.model_metadata import ModelCard
from resmem_service.errors import NotReady
from resmem_service.inference.predictor import Predictor
from resmem_service.memory.faults import Fault

__all__ = ["Backend", "Crowd", "Gate"]

_LOOK_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class Backend:
    """What requests are answered with."""

    card: ModelCard
    predictor: Predictor


class Crowd:
    """The requests inside that came while the same backend was served."""

    __slots__ = ("size",)

    def __init__(self) -> None:
        self.size = 0


class Gate:
    """Starting, then open, then leaving, then shut; or failed. Belongs to the event loop."""

    def __init__(self, others_ready: Callable[[], bool] | None = None) -> None:
        """`others_ready` says whether all other workers that take requests can answer them."""
        self._others_ready = others_ready
        self._backend: Backend | None = None
        self._earlier: list[Crowd] = []
        self.crowd = Crowd()
        """Where a request that comes now counts itself, and later out."""
        self.bystanders = Crowd()
        """Where it does if no backend answers it: a reload must not wait for itself."""
        self._shut = False
        self.leaving = False
        """Whether the service is going to end. Requests are answered, but it is not ready: whoever
        distributes them should go elsewhere."""
        self.closing = False
        """Whether each answer is the last one on its connection."""
        self.failure: Exception | None = None
        """Why the model could not be loaded; the server should end then."""

    def in_flight(self) -> int:
        """Requests inside."""
        return self.bystanders.size + self.crowd.size + sum(crowd.size for crowd in self._earlier)

    def open(self, backend: Backend) -> None:
        """Lets requests in, to this backend from now on; those inside stay with theirs."""
        self._backend = backend
        self._earlier.append(self.crowd)
        self.crowd = Crowd()

    async def earlier_left(self) -> None:
        """Waits for all requests that came before the last `open`, or for `shut`."""
        earlier = list(self._earlier)
        # An event would have every request look whether it is the last; reloads are rare.
        while not self._shut and any(crowd.size for crowd in earlier):  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_S)
        self._earlier = [crowd for crowd in self._earlier if crowd.size]

    def leave(self) -> None:
        """Says that the service is not ready any more; requests are answered as before."""
        self.leaving = True

    def close_connections(self) -> None:
        """Has every answer from now on close its connection."""
        self.closing = True

    def shut(self) -> None:
        """Lets no more requests in, and nobody waits any more for those inside."""
        self.leaving = self.closing = self._shut = True

    def check_ready(self) -> Backend:
        """What answers requests here, where it is wise to send some.

        Raises:
            NotReady: as `enter`; or the service is going to end, or another worker, which may get
                the next request, is still loading the model.
        """
        backend = self.enter()
        if self.leaving:
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

    def enter(self) -> Backend:
        """What to answer a request with.

        Raises:
            NotReady: still starting, or the service has ended.
        """
        if self._shut:
            raise NotReady("the server is shutting down")
        if self.failure is not None:
            raise NotReady("the model could not be loaded; the server's log says why")
        if self._backend is None:
            raise NotReady("the model is being loaded")
        return self._backend
