"""One pass over a state: every row of its journal, every sealed segment, and both together.

`resmem verify` puts it in words, `resmem repair` acts on it.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from resmem_service.errors import CorruptFile, JournalUnavailable
from resmem_service.maintenance.row_audit import Decode, RowFault, audit_rows
from resmem_service.maintenance.segment_audit import SegmentAudit, Verdict
from resmem_service.memory.journal.journal import Position, SegmentEntry
from resmem_service.memory.journal.sqlite.snapshot import JournalSnapshot, open_snapshot
from resmem_service.memory.rows import MemoryShape, SegmentRows
from resmem_service.memory.segments.folders import StateFolders

__all__ = ["SegmentState", "StateAudit", "audit_state"]

_READINGS: Final = 20

Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class SegmentState:
    """What the audit says of one entry of the catalogue."""

    entry: SegmentEntry
    verdict: Verdict
    reason: str | None
    """None for a sound one."""


@dataclass(slots=True)
class StateAudit:
    """What one pass found."""

    shape: MemoryShape
    catalogue: list[SegmentEntry]
    position: Position
    memories: int = 0
    row_faults: list[RowFault] = field(default_factory=list)
    segments: list[SegmentState] = field(default_factory=list)
    unsealed: int = 0
    """Memories newer than every segment."""
    stranded: list[int] = field(default_factory=list)
    """Sequences older than the newest segment, and in none: predictions miss them."""
    disagreements: list[str] = field(default_factory=list)
    """What the tables of the journal say against each other."""
    unreadable: str | None = None
    """Why the pass over the rows ended early; None where it did not."""


def audit_state(
    folders: StateFolders, decode: Decode | None, advance: Advance, *, ef: int
) -> StateAudit:
    """Reads everything; beside a running service it looks at one moment of it.

    Args:
        folders: of the state.
        decode: see `audit_rows`.
        advance: told of the rows read since the last call.
        ef: breadth at which segments are searched.

    Raises:
        CorruptFile: the journal is none, or damaged beyond its catalogue.
        JournalUnavailable: it cannot be opened now.
    """
    with ExitStack() as stack:
        for _ in range(_READINGS):
            opened = stack.enter_context(ExitStack())
            snapshot = opened.enter_context(open_snapshot(folders.journal))
            opening = [_open(folders, entry, snapshot.shape) for entry in snapshot.catalogue]
            # Another process may have merged one away before all were open.
            with open_snapshot(folders.journal) as now:
                if now.catalogue == snapshot.catalogue:
                    break
            opened.close()
        audits = [audit for audit in opening if isinstance(audit, SegmentAudit)]
        for audit in audits:
            stack.callback(audit.close)
        result = StateAudit(snapshot.shape, snapshot.catalogue, snapshot.position)
        for audit in audits:
            audit.check_checksums()
        _read_rows(snapshot, audits, decode, advance, result)
        _compare_tables(snapshot, audits, result)
        for audit in audits:
            audit.check_recall(ef)
        result.segments = [
            SegmentState(audit.entry, audit.verdict, audit.reason)
            if isinstance(audit, SegmentAudit)
            else audit
            for audit in opening
        ]
        return result


def _open(
    folders: StateFolders, entry: SegmentEntry, shape: MemoryShape
) -> SegmentAudit | SegmentState:
    if entry.rows == 0:
        return SegmentState(entry, "sound", None)
    try:
        return SegmentAudit(folders.of(entry), entry, shape)
    except FileNotFoundError as error:
        return SegmentState(entry, "damaged", f"{error.filename or error} is missing")


def _read_rows(
    snapshot: JournalSnapshot,
    audits: list[SegmentAudit],
    decode: Decode | None,
    advance: Advance,
    result: StateAudit,
) -> None:
    sealed = max((entry.last for entry in snapshot.catalogue), default=0)
    try:
        for chunk in audit_rows(snapshot, decode):
            result.memories += len(chunk)
            result.row_faults += chunk.faults
            if chunk.sound is not None:
                for audit in audits:
                    audit.compare(chunk.sound)
                result.unsealed += int((chunk.sound.sequences > sealed).sum())
                result.stranded += _stranded(chunk.sound, snapshot.catalogue, sealed)
            advance(len(chunk))
    except (CorruptFile, JournalUnavailable) as error:
        result.unreadable = str(error)


def _stranded(rows: SegmentRows, catalogue: list[SegmentEntry], sealed: int) -> list[int]:
    sequences = rows.sequences[rows.sequences <= sealed]
    held = np.zeros(len(sequences), np.bool_)
    for entry in catalogue:
        held |= (sequences >= entry.first) & (sequences <= entry.last)
    found: list[int] = sequences[~held].tolist()
    return found


def _compare_tables(
    snapshot: JournalSnapshot, audits: list[SegmentAudit], result: StateAudit
) -> None:
    last, _, horizon = snapshot.position
    say = result.disagreements.append
    forgotten: NDArray[np.int64] = np.array(snapshot.tombstones(), np.int64)
    if alive := snapshot.alive_and_forgotten():
        say(f"{alive} memories are there, and forgotten as well")
    first = snapshot.oldest()
    if first is not None and first <= horizon:
        say(f"memory {first} is there, and everything up to {horizon} was evicted")
    for entry, after in zip(snapshot.catalogue, snapshot.catalogue[1:], strict=False):
        if entry.last >= after.first:
            say(f"segments {entry.number:08d} and {after.number:08d} overlap")
    for entry in snapshot.catalogue:
        if entry.last > last:
            say(
                f"segment {entry.number:08d} goes up to memory {entry.last}, "
                f"the journal only to {last}: it has lost its end"
            )
    if result.unreadable is None:
        for audit in audits:
            audit.finish(forgotten, horizon, [fault.sequence for fault in result.row_faults])
