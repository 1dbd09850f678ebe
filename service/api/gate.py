"""The gate: shut until the model is warm, and again once the server drains."""

from dataclasses import dataclass

from service.api.card import ModelCard
from service.errors import NotReady
from service.inference.predictor import Predictor

__all__ = ["Backend", "Gate"]


@dataclass(frozen=True, slots=True)
class Backend:
    """What requests are answered with."""

    card: ModelCard
    predictor: Predictor


class Gate:
    """Starting, then open, then draining; or failed. Belongs to the event loop."""

    def __init__(self) -> None:
        self._backend: Backend | None = None
        self.draining = False
        self.failure: Exception | None = None
        """Why the model could not be loaded; the server should end then."""

    def open(self, backend: Backend) -> None:
        """Lets requests in."""
        self._backend = backend

    def drain(self) -> None:
        """Lets no more requests in; those inside go on."""
        self.draining = True

    def enter(self) -> Backend:
        """What to answer a request with.

        Raises:
            NotReady: still starting, or draining.
        """
        if self.draining:
            raise NotReady("the server is shutting down")
        if self.failure is not None:
            raise NotReady("the model could not be loaded; the server's log says why")
        if self._backend is None:
            raise NotReady("the model is being loaded")
        return self._backend
