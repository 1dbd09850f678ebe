"""The memory that bodies in flight may take, over all workers of a service."""

from typing import Final

from resmem_service.telemetry.metric_storage import Gauge, MetricStorage

__all__ = ["BodyBudget", "default_budget_bytes"]

_UNSHARED_BYTES: Final = 2**20
"""As much may be in flight in a worker before it asks what is in flight in the others."""
_TOLD_BYTES: Final = 2**16
"""Less than that the other workers learn with the next publication of the gauges."""
_ALONE_PART: Final = 16
"""A request passes whatever its size while all others have at most this part of the budget."""
_MEMORY_PART: Final = 4


def default_budget_bytes(memory_bytes: int, max_body_bytes: int) -> int:
    """A quarter of the memory that the service may use; two of the largest bodies fit always."""
    return max(memory_bytes // _MEMORY_PART, 2 * max_body_bytes)


class BodyBudget:
    """Counts what this worker holds; belongs to its event loop.

    What the other workers hold stands in the cells that they share. Nothing is locked, so two
    workers that take at the same moment may pass the limit by what they take.
    """

    __slots__ = ("_free", "_storage", "limit", "used")

    def __init__(self, limit: int, storage: MetricStorage) -> None:
        """`limit` is that of all workers together, in bytes."""
        self.limit = limit
        self.used = 0
        """Bytes held by this worker."""
        self._storage = storage
        self._free = min(_UNSHARED_BYTES, limit // 2)

    def take(self, amount: int, held: int = 0) -> bool:
        """Takes bytes for a request that has `held` already; False, and nothing, if all are taken.

        A request that is nearly alone gets what it asks for, so that any body that is not too
        large can be served.
        """
        if not self.fits(amount, held):
            return False
        self.hold(amount)
        return True

    def fits(self, amount: int, held: int = 0) -> bool:
        """Whether `take` would succeed."""
        if self.used + amount <= self._free:
            return True
        total = self.total()
        return total + amount <= self.limit or total - held <= self.limit // _ALONE_PART

    def hold(self, amount: int) -> None:
        """Counts bytes that are held already, whether or not they fit."""
        self.used += amount
        if abs(amount) >= _TOLD_BYTES:
            self._storage.values[Gauge.BODY_BYTES] = float(self.used)

    def give_back(self, amount: int) -> None:
        """Frees bytes."""
        self.hold(-amount)

    def total(self) -> int:
        """Bytes held by all workers."""
        others = (
            sum(self._storage.by_worker(Gauge.BODY_BYTES)) - self._storage.values[Gauge.BODY_BYTES]
        )
        return self.used + int(others)
