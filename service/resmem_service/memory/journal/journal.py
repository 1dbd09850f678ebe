"""What a journal is: the system of record for memories added online, whatever engine keeps it.

Memories carry a sequence number that rises with every commit, forgotten ones leave a tombstone with
a number of its own, and a position (both numbers) says how much of it a reader has seen. The
catalogue of sealed segments stands in the same journal, so that one transaction swaps segments.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from resmem_service.memory.rows import SegmentRows, Targets

__all__ = [
    "Appended",
    "Changes",
    "Journal",
    "Living",
    "Memories",
    "MemoryRecord",
    "Position",
    "SegmentEntry",
    "StoredMemory",
    "Written",
]


@dataclass(frozen=True, slots=True)
class Memories:
    """The n rows of one append request: all of them are kept, or none.

    Raises:
        ValueError: the lists and arrays disagree in length, or an id stands twice.
    """

    ids: list[str | None]
    """Client ids; None where the journal is to make one."""
    inputs: list[bytes]
    """The encoded input of each row, opaque here; kept so that a new base model can re-embed it."""
    targets: Targets
    """Class indexes int32 `[n]`, or float32 `[n, L]` for regression."""
    embeddings: NDArray[np.float32]
    """`[n, d]`."""
    residuals: NDArray[np.float32]
    """`[n, L]`."""
    weights: NDArray[np.float64]
    """`[n]`: importance, above 0."""
    source: str | None = None
    created_ms: Sequence[int] | None = None
    """Unix times in milliseconds, where the rows come from elsewhere; None: now."""

    def __post_init__(self) -> None:
        arrays = (self.inputs, self.targets, self.embeddings, self.residuals, self.weights)
        if any(len(array) != len(self.ids) for array in arrays):
            raise ValueError("the rows of a request need as many of each array")
        named = [id for id in self.ids if id is not None]
        if len(set(named)) != len(named):
            raise ValueError("an id stands twice in one request")

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Written:
    """What one append request changed; `unchanged` rows were there already, with this content."""

    ids: list[str]
    created: int
    replaced: int
    unchanged: int


@dataclass(frozen=True, slots=True)
class Appended:
    """The reply to an append request, with the memory's state after it."""

    ids: list[str]
    created: int
    replaced: int
    size: int
    revision: int


@dataclass(frozen=True, slots=True)
class MemoryRecord:
    """One memory as its owner may see it."""

    id: str
    sequence: int
    source: str | None
    target: int | list[float]
    """Class index, or the L numbers of a regression target."""
    weight: float
    created_ms: int | None
    """Unix time in milliseconds; None for a memory of the fitted bundle."""


@dataclass(frozen=True, slots=True)
class StoredMemory:
    """All that the journal has of one memory."""

    record: MemoryRecord
    input: bytes
    embedding: NDArray[np.float32]
    """`[d]`."""
    residual: NDArray[np.float32]
    """`[L]`."""


class Position(NamedTuple):
    """How far a reader has read: the last sequence, the last tombstone, and the horizon.

    Every memory added online up to the horizon was evicted.
    """

    sequence: int = 0
    tombstone: int = 0
    horizon: int = 0

    @property
    def revision(self) -> int:
        """One number that rises with every change."""
        return self.sequence + self.tombstone + self.horizon


class Living(NamedTuple):
    """The memories added online, counted and their sequences summed up: two readings of the same
    memories agree in both."""

    rows: int
    sum: int


@dataclass(frozen=True, slots=True)
class SegmentEntry:
    """A sealed segment in the catalogue: it holds the rows of sequences first to last.

    `rows` counts those in its files, forgotten ones included; 0 for one that has no files.
    """

    number: int
    first: int
    last: int
    rows: int


@dataclass(frozen=True, slots=True)
class Changes:
    """One consistent reading: the catalogue, and what came after the position asked for.

    `rows` is read lazily, in chunks, while the reading's transaction is open.
    """

    catalogue: list[SegmentEntry]
    tombstones: list[int]
    """Sequences forgotten since; below 0 they are fitted rows."""
    rows: Iterator[SegmentRows]
    position: Position
    living: Callable[[], Living]
    """All memories of the reading."""
    forgotten: Callable[[int, int], list[int]]
    """The forgotten ones of the sequences first to last, in the same reading: a catalogue and the
    tombstones of another moment would bring back what a compaction removed in between."""
    between: Callable[[int, int], Iterator[SegmentRows]]
    """The memories of the sequences first to last, in the same reading, in chunks."""
    sequences: Callable[[int, int], NDArray[np.int64]]
    """The sequences first to last that are memories of the reading, rising."""
    skipped: dict[int, str] = field(default_factory=dict)
    """Ids by sequence of the rows that `rows` and `between` left out until now, since they differ
    from their checksums or cannot be what was written."""


class Journal(Protocol):
    """An engine. Calls that write raise JournalUnavailable where nothing was written.

    `wait_ms` is how long such a call waits for another writer, before it raises JournalLocked; None
    is what the engine was made with.
    """

    @property
    def engine(self) -> str:
        """Name and version of the database, such as "SQLite 3.51.3"."""

    def append(self, requests: Sequence[Memories], *, wait_ms: int | None = None) -> list[Written]:
        """Commits all requests in one transaction; durable when it returns."""

    def forget(self, *ids: str, wait_ms: int | None = None) -> list[int]:
        """Commits tombstones for the memories of these ids; returns 0 or 1 for each id.

        One transaction holds them all.
        """

    def forget_source(self, *sources: str, wait_ms: int | None = None) -> list[int]:
        """Commits tombstones for all memories of these sources; returns how many of each.

        One transaction holds them all.
        """

    def find(self, id: str) -> MemoryRecord | None:
        """The memory added online under this id."""

    def records(self, sequences: Sequence[int]) -> dict[int, MemoryRecord]:
        """The memories added online with these sequences, those of them that live."""

    def page(self, source: str | None, after: int, limit: int) -> list[MemoryRecord]:
        """Memories added online after a sequence, oldest first, of one source or of all."""

    def stored(self, after: int, limit: int) -> list[StoredMemory]:
        """Whole memories after a sequence, oldest first."""

    def moved(self) -> bool:
        """True where a commit of any process may have come since the last reading; cheap.

        One whose process was killed before it could say so is noticed within 0.1 s.
        """

    def latest(self, since: Position) -> SegmentRows | None:
        """A reading without reading: the rows of the last `append`, if they follow on `since`.

        None where anything else was committed since the last reading: `changes` has it.
        """

    def changes(self, since: Position | None) -> AbstractContextManager[Changes]:
        """A consistent reading of what came since a position, or of all that is not sealed."""

    def tombstones(self, first: int, last: int) -> list[int]:
        """The forgotten ones of the sequences first to last."""

    def publish(
        self,
        first: int,
        last: int,
        rows: int,
        replaces: Sequence[SegmentEntry],
        place: Callable[[SegmentEntry], None],
    ) -> SegmentEntry:
        """Enters a sealed segment in the catalogue in the place of others, in one transaction.

        `place` moves its folder to where the entry says, before the commit: a catalogue never
        names a folder that is not there. A segment without rows stays only while it is the newest,
        to say how far sealing has come.
        """

    def trouble(self) -> str | None:
        """Why nothing can be written now, as far as that shows without writing; None for nothing.

        A write that failed counts until one succeeds, or for a minute.
        """

    def row_bytes(self) -> int:
        """What a memory takes in the journal, as the newest ones show; 0 without any."""

    def evict(self, *, keep_rows: int | None, before_ms: int | None) -> int:
        """Forgets the oldest memories added online, in small commits; returns how many.

        Args:
            keep_rows: all but the newest so many.
            before_ms: all that were added before this Unix time in milliseconds.
        """

    def erase(self, position: Position) -> None:
        """Frees what forgotten memories still hold on the disk.

        For after the segments up to the position's sequence were built anew: the tombstones that
        were there when the first build began, those up to the position's, go as well. Later ones
        may be of memories that a build has read, and stay.
        """

    def close(self) -> None:
        """Ends all use."""
