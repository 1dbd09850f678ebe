"""What an operator may choose of a memory."""

from dataclasses import dataclass

from resmem_service.memory.journal.retention import Retention
from resmem_service.memory.segments.graph_settings import GraphSettings

__all__ = ["MemoryOptions"]


@dataclass(frozen=True, slots=True)
class MemoryOptions:
    """Bounds and build parameters of a memory."""

    growing_bytes: int = 4 << 20
    """Size of a growing segment; exact search is cheap while one fits the processor's cache."""
    max_pending_rows: int = 65_536
    """Rows that wait for the disk before an append is refused with QueueFull."""
    max_growing_bytes: int = 256 << 20
    """Rows that wait to be sealed; beyond it appends are refused with QueueFull."""
    max_segment_rows: int = 4_000_000
    """Merging stops at this size, which bounds the memory of a build."""
    retention: Retention = Retention()  # noqa: RUF009 - immutable
    """What is kept of the memories added online."""
    maintain: bool = True
    """Whether to seal, merge and evict in the background."""
    busy_ms: int = 2000
    """How long a write waits for another process that has the journal locked."""
    graph: GraphSettings = GraphSettings(threads=1)  # noqa: RUF009 - immutable
    """How sealed segments are built; one thread, since the service has better use for the rest."""
