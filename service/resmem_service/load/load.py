"""What to send, and at which times."""

from collections.abc import Sequence
from dataclasses import dataclass

from resmem_service.load.target import Target

__all__ = ["Load"]


@dataclass(frozen=True, slots=True)
class Load:
    """Requests in turn over some connections, each of which carries one at a time.

    Raises:
        ValueError: nothing to send, no connection, a time or a rate that is not positive.
    """

    target: Target
    requests: Sequence[bytes]
    """As `Target.post` makes them."""
    connections: int
    seconds: float
    """How long is measured."""
    warmup_s: float = 0.0
    """How long the same load runs before that."""
    rate: float | None = None
    """Requests per second in all, due at even distances whether or not earlier ones are answered
    (open loop). None: a connection sends again when it is answered (closed loop)."""
    timeout_s: float = 30.0
    """When a request that was sent counts as lost."""
    pid: int | None = None
    """The server's process, whose CPU time and that of all below it is measured."""

    def __post_init__(self) -> None:
        if not self.requests or self.connections < 1:
            raise ValueError("a load needs at least one request and one connection")
        if not (self.seconds > 0 and self.timeout_s > 0 and self.warmup_s >= 0):
            raise ValueError("the duration of a load must be above 0")
        if self.rate is not None and not self.rate > 0:
            raise ValueError("the rate of a load must be above 0")
