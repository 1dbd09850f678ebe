"""Compaction: what was forgotten leaves the disk; what does not find its rows is built anew."""

from collections.abc import Callable

from resmem_service.memory.journal.journal import Journal
from resmem_service.memory.segments.policy import renewal
from resmem_service.memory.segments.segment_builder import SegmentBuilder
from resmem_service.memory.segments.segment_set import SegmentSet

__all__ = ["compact"]


def compact(
    segments: SegmentSet,
    journal: Journal,
    builder: SegmentBuilder,
    lock: int,
    refresh: Callable[[], None],
) -> int:
    """Builds every sealed segment that holds forgotten rows anew, and has the journal free theirs.

    So is one that does not find its own rows, as far as `measure_recall` has said so.

    Args:
        segments: what there is; `refresh` moves them along the journal.
        journal: of these segments.
        builder: builds the segments, from the journal.
        lock: descriptor of the held lock, which the build process inherits.
        refresh: called before the first build and after each.

    Returns the number of forgotten rows that were removed from segments.

    Raises:
        JournalUnavailable: the journal cannot be written.
        RuntimeError: a build failed; the old segment stays.
    """
    refresh()
    seen = segments.snapshot
    sealed = max((entry.last for entry in seen.catalogue), default=0)
    removed = 0
    for state in segments.backlog().sealed:
        # What cannot be opened now may hold forgotten rows; once their tombstones are gone, nobody
        # would know of it when it can.
        if state.dead_rows or state.poor or state.entry in seen.unusable:
            builder.carry_out(renewal(state), segments.snapshot.catalogue, lock)
            removed += state.dead_rows
            refresh()
    journal.erase(seen.position._replace(sequence=sealed))
    return removed
