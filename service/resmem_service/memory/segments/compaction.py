"""Compaction: what was forgotten leaves the disk; what does not find its rows is built anew."""

from collections.abc import Callable

from resmem_service.memory.journal.journal import Journal
from resmem_service.memory.segments.policy import renewal
from resmem_service.memory.segments.segment_builder import SegmentBuilder
from resmem_service.memory.segments.segment_set import Tiers

__all__ = ["compact"]


def compact(
    tiers: Tiers,
    journal: Journal,
    builder: SegmentBuilder,
    lease: int,
    refresh: Callable[[], None],
) -> int:
    """Builds every sealed segment that holds forgotten rows anew, and has the journal free theirs.

    So is one that does not find its own rows, as far as `measure_recall` has said so.

    Args:
        tiers: what there is; `refresh` moves them along the journal.
        journal: of these tiers.
        builder: builds the segments, from the journal.
        lease: descriptor of the held lease, which the build process inherits.
        refresh: called before the first build and after each.

    Returns the number of forgotten rows that were removed from segments.

    Raises:
        JournalUnavailable: the journal cannot be written.
        RuntimeError: a build failed; the old segment stays.
    """
    refresh()
    seen = tiers.snapshot
    sealed = max((entry.last for entry in seen.catalogue), default=0)
    removed = 0
    for state in tiers.backlog().sealed:
        # What cannot be opened now may hold forgotten rows; once their tombstones are gone, nobody
        # would know of it when it can.
        if state.dead_rows or state.poor or state.entry in seen.unusable:
            builder.carry_out(renewal(state), tiers.snapshot.catalogue, lease)
            removed += state.dead_rows
            refresh()
    journal.erase(seen.position._replace(sequence=sealed))
    return removed
