"""Which segment to build next, and from what.

Sealing: when growing segments are full, the new segment takes their rows together with every newest
sealed segment that is at most `FANOUT` times as large as what it takes already. So sizes rise
geometrically from the newest segment to the oldest, and few remain. Where the oldest of those it
takes is the larger part, its graph is carried on: only the other rows are inserted, which is where
the cost of a build lies.

Mending: a segment of which more than `DEAD_SHARE` was forgotten is built anew without those rows,
and first of all one whose files are damaged or gone. One whose mending failed is postponed by the
caller: it must not keep the rest from being sealed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from resmem_service.memory.journal.journal import SegmentEntry
from resmem_service.memory.segments.self_recall import POOR_RECALL

__all__ = [
    "DEAD_SHARE",
    "FANOUT",
    "Backlog",
    "SealedState",
    "SegmentPlan",
    "next_segment",
    "renewal",
]

FANOUT: Final = 2
DEAD_SHARE: Final = 0.3


@dataclass(frozen=True, slots=True)
class SealedState:
    """A sealed segment and how many of its rows are forgotten."""

    entry: SegmentEntry
    dead_rows: int = 0
    damaged: bool = False
    """Its files are damaged or gone: its rows take RAM, or are lost to the next start."""

    recall: float | None = None
    """Share of its own rows that it finds, where that was measured."""

    @property
    def poor(self) -> bool:
        """True where it does not find its own rows."""
        return self.recall is not None and self.recall < POOR_RECALL

    @property
    def needs_mending(self) -> bool:
        """True where it is damaged, or searching around the dead costs more than it should."""
        return self.damaged or self.dead_rows > DEAD_SHARE * self.entry.rows


@dataclass(frozen=True, slots=True)
class Backlog:
    """What there is to build segments from."""

    sealed: Sequence[SealedState]
    """Oldest first."""
    full_rows: int
    """Rows of full growing segments."""
    last: int
    """The newest of their sequences; 0 without any."""


@dataclass(frozen=True, slots=True)
class SegmentPlan:
    """A segment to build: the living rows of sequences first to last."""

    first: int
    last: int
    replaces: Sequence[SegmentEntry]
    base: SegmentEntry | None
    """The oldest of those that it replaces, where its graph is carried on."""

    @property
    def mends(self) -> bool:
        """Whether it is one segment once more."""
        return [(entry.first, entry.last) for entry in self.replaces] == [(self.first, self.last)]


def next_segment(
    backlog: Backlog, *, max_rows: int, postponed: Callable[[SegmentEntry], bool] = lambda _: False
) -> SegmentPlan | None:
    """The next segment to build, None for nothing to do.

    Args:
        backlog: what there is.
        max_rows: merging stops at this size of a segment.
        postponed: says of a segment whether it is neither to be mended nor to be merged now.
    """
    mending = [
        state for state in backlog.sealed if state.needs_mending and not postponed(state.entry)
    ]
    mending.sort(key=lambda state: not state.damaged)
    if backlog.full_rows > 0 and not (mending and mending[0].damaged):
        return _seal(backlog, max_rows, postponed)
    return renewal(mending[0]) if mending else None


def renewal(state: SealedState) -> SegmentPlan:
    """The same segment without the rows that were forgotten."""
    return SegmentPlan(state.entry.first, state.entry.last, [state.entry], None)


def _seal(
    backlog: Backlog, max_rows: int, postponed: Callable[[SegmentEntry], bool]
) -> SegmentPlan:
    rows, taken = backlog.full_rows, 0
    for state in reversed(backlog.sealed):
        if state.entry.rows > FANOUT * rows or state.entry.rows + rows > max_rows:
            break
        if postponed(state.entry):
            break
        rows += state.entry.rows
        taken += 1
    merged = list(backlog.sealed[len(backlog.sealed) - taken :])
    sealed = max((state.entry.last for state in backlog.sealed), default=0)
    return SegmentPlan(
        first=merged[0].entry.first if merged else sealed + 1,
        last=backlog.last,
        replaces=[state.entry for state in merged],
        base=_base(merged, rows),
    )


def _base(merged: Sequence[SealedState], rows: int) -> SegmentEntry | None:
    if not merged or merged[0].needs_mending or 2 * merged[0].entry.rows < rows:
        return None
    return merged[0].entry
