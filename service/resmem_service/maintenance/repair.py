"""`resmem repair`: the journal has every row, so that any sealed segment can be built anew."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from resmem_service.errors import CorruptFile, JournalUnavailable
from resmem_service.maintenance.state_audit import StateAudit, audit_state
from resmem_service.memory.journal.journal import SegmentEntry
from resmem_service.memory.journal.sqlite.journal import SqliteJournal
from resmem_service.memory.journal.sqlite.snapshot import open_snapshot
from resmem_service.memory.observer import SilentMemoryObserver
from resmem_service.memory.rows import MemoryShape
from resmem_service.memory.segments.folders import StateFolders
from resmem_service.memory.segments.graph_settings import GraphSettings
from resmem_service.memory.segments.lock import wait_for_lock
from resmem_service.memory.segments.policy import SegmentPlan
from resmem_service.memory.segments.segment_builder import SegmentBuilder

__all__ = ["Repaired", "repair"]

_BUSY_MS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Repaired:
    """What was done, and what could not be."""

    rebuilt: list[SegmentEntry]
    """Segments built from the journal, as the catalogue has them now."""
    dropped: list[str]
    """Ids of damaged memories that were forgotten."""
    left: list[str]
    """Faults that are still there."""


def repair(
    folders: StateFolders,
    shape: MemoryShape,
    *,
    forget_damaged: bool,
    wait_s: float = 60.0,
    graph: GraphSettings = GraphSettings(threads=1),  # noqa: B008 - immutable
    advance: Callable[[int], None] = lambda _: None,
) -> Repaired:
    """Builds every segment anew that is damaged or does not find its own rows, beside a service.

    A crash at any instant leaves the state as it was or repaired.

    Args:
        folders: of the state.
        shape: of its memories.
        forget_damaged: forget memories whose rows differ from their checksum, which nothing else
            can mend; without it a segment that needs one of them is left as it is.
        wait_s: how long to wait for another process that builds segments.
        graph: how to build.
        advance: told of the memories read since the last call.

    Raises:
        CorruptFile: the journal itself is damaged; a backup must be restored.
        JournalUnavailable: it cannot be written, or another process held the lock.
    """
    with open_snapshot(folders.journal):
        pass  # opening to write would make a journal where there is none
    journal = SqliteJournal(folders.journal, shape, busy_ms=_BUSY_MS)
    try:
        with wait_for_lock(folders.lock, seconds=wait_s) as lock:
            if lock is None:
                raise JournalUnavailable(f"{folders.lock}: another process builds segments")
            audit = audit_state(folders, None, advance, ef=graph.ef)
            if audit.unreadable is not None:
                raise CorruptFile(f"{audit.unreadable}; restore the newest backup")
            dropped = audit.row_faults if forget_damaged else []
            if dropped:
                journal.drop([fault.sequence for fault in dropped])
                audit.row_faults = []
            builder = SegmentBuilder(folders, shape, graph, journal, SilentMemoryObserver())
            return Repaired(
                rebuilt=_rebuild(builder, folders, audit, lock),
                dropped=[fault.id for fault in dropped],
                left=_left(audit),
            )
    finally:
        journal.close()


def _rebuild(
    builder: SegmentBuilder, folders: StateFolders, audit: StateAudit, lock: int
) -> list[SegmentEntry]:
    rebuilt = []
    for plan in _plans(audit):
        if _needs_unsound(audit, plan.first, plan.last):
            continue
        # Read anew each time; nobody else changes it under the lock.
        with open_snapshot(folders.journal) as snapshot:
            catalogue = snapshot.catalogue
        try:
            rebuilt.append(builder.carry_out(plan, catalogue, lock))
        except (RuntimeError, OSError) as error:
            raise JournalUnavailable(str(error)) from error
    return rebuilt


def _plans(audit: StateAudit) -> list[SegmentPlan]:
    plans = [
        SegmentPlan(segment.entry.first, segment.entry.last, [segment.entry], None)
        for segment in audit.segments
        if segment.verdict in ("damaged", "poor")
    ]
    start = 1
    for entry in audit.catalogue:
        if any(start <= sequence < entry.first for sequence in audit.stranded):
            plans.append(SegmentPlan(start, entry.first - 1, [], None))
        start = entry.last + 1
    return plans


def _needs_unsound(audit: StateAudit, first: int, last: int) -> bool:
    return any(first <= fault.sequence <= last for fault in audit.row_faults)


def _left(audit: StateAudit) -> list[str]:
    left = [
        *audit.disagreements,
        *(
            f"memory {fault.sequence} (id {fault.id!r}) {fault.reason}"
            for fault in audit.row_faults
        ),
    ]
    for segment in audit.segments:
        if segment.verdict == "ahead" and segment.reason is not None:
            left.append(segment.reason)
        elif segment.verdict in ("damaged", "poor") and _needs_unsound(
            audit, segment.entry.first, segment.entry.last
        ):
            left.append(f"{segment.reason}; to build it anew, forget its damaged memories first")
    return left
