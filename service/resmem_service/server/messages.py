"""The messages between a supervisor and its workers, pickled, over a pipe for each worker."""

from dataclasses import dataclass

from resmem_service.reloaded import Reloaded
from resmem_service.settings import Settings

__all__ = [
    "Abandon",
    "Assignment",
    "Commit",
    "Drain",
    "Order",
    "OrderResult",
    "Prepare",
    "Ready",
    "ReloadAsked",
    "ReloadOutcome",
    "ToSupervisor",
    "ToWorker",
]


@dataclass(frozen=True, slots=True)
class Assignment:
    """The first message to a worker: what it is to do."""

    settings: Settings
    """`model` names the version, `threads` is this worker's share."""
    worker: int
    """Its place, from 0 to `settings.workers` - 1."""
    listener: int
    """Descriptor of the bound socket; inherited, as the next one."""
    table: int
    """Descriptor of the shared counts."""
    stacks: int
    """Descriptor of the file for the stacks of its threads."""
    others_answer: bool
    """Whether requests can go elsewhere until this worker is ready."""


@dataclass(frozen=True, slots=True)
class Prepare:
    """Load this version, `name/version`, beside the one that is served."""

    model: str


@dataclass(frozen=True, slots=True)
class Commit:
    """Serve what was prepared."""


@dataclass(frozen=True, slots=True)
class Abandon:
    """Drop what was prepared."""


@dataclass(frozen=True, slots=True)
class Order:
    """A command to a worker, which replies with an `OrderResult` of the same number."""

    number: int
    what: Prepare | Commit | Abandon


@dataclass(frozen=True, slots=True)
class Drain:
    """Tells a worker to answer the requests under way, then to end."""

    why: str
    delay_s: float = 0.0
    """How long to take requests before that, while not ready any more."""


@dataclass(frozen=True, slots=True)
class ReloadOutcome:
    """The reply to a worker's `ReloadAsked` of this number: how the reload went."""

    number: int
    reloaded: Reloaded | None
    reason: str = ""
    """Why there was none."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker answers requests."""


@dataclass(frozen=True, slots=True)
class ReloadAsked:
    """A client has asked this worker to reload the service; the number is the worker's own."""

    number: int


@dataclass(frozen=True, slots=True)
class OrderResult:
    """A worker's reply to the `Order` of this number."""

    number: int
    refusal: str | None = None
    """Why it could not be done."""


ToWorker = Assignment | Order | Drain | ReloadOutcome
ToSupervisor = Ready | ReloadAsked | OrderResult
