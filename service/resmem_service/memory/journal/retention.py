"""How much of what was memorized online is kept, for data that drifts."""

import time
from dataclasses import dataclass

from resmem_service.memory.journal.journal import Journal
from resmem_service.memory.rows import MemoryShape

__all__ = ["Retention", "enforce"]

# Links, label, sequence and weight in a sealed segment, at the default of 16 links a row.
_SEALED_OVERHEAD_BYTES = 160


@dataclass(frozen=True, slots=True)
class Retention:
    """Bounds on the memories added online; those of the bundle are not counted and stay.

    The oldest are forgotten first, within about a second of passing a bound. None: no bound.

    Raises:
        ValueError: a bound that is not above 0.
    """

    capacity_rows: int | None = None
    capacity_bytes: int | None = None
    """Of journal and segments together, as the size of the newest memories tells."""
    max_age_s: float | None = None

    def __post_init__(self) -> None:
        bounds = (self.capacity_rows, self.capacity_bytes, self.max_age_s)
        if any(bound is not None and bound <= 0 for bound in bounds):
            raise ValueError("a bound on the memory must be above 0")

    def __bool__(self) -> bool:
        return self != Retention()


def enforce(retention: Retention, journal: Journal, shape: MemoryShape) -> int:
    """Forgets what is over the bounds; returns how many memories that were.

    Raises:
        JournalUnavailable: some or none were forgotten; try again.
    """
    rows = [] if retention.capacity_rows is None else [retention.capacity_rows]
    if retention.capacity_bytes is not None and (row_bytes := journal.row_bytes()):
        residual = shape.codec.native(shape.width).stride
        sealed = 4 * (shape.dim + shape.width) + residual + _SEALED_OVERHEAD_BYTES
        rows.append(max(1, retention.capacity_bytes // (row_bytes + sealed)))
    before_ms = None
    if retention.max_age_s is not None:
        before_ms = int((time.time() - retention.max_age_s) * 1000)
    return journal.evict(keep_rows=min(rows, default=None), before_ms=before_ms)
