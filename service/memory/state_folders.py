"""Where the files of one state lie."""

from dataclasses import dataclass
from pathlib import Path

from service.memory.journal import SegmentEntry

__all__ = ["StateFolders"]


@dataclass(frozen=True, slots=True)
class StateFolders:
    """A state folder and the places in it."""

    root: Path

    @property
    def journal(self) -> Path:
        """The journal's database."""
        return self.root / "journal.sqlite3"

    @property
    def log(self) -> Path:
        """The journal's write-ahead log, there while it is open or after a kill."""
        return self.root / "journal.sqlite3-wal"

    @property
    def lease(self) -> Path:
        """Locked by the one process that builds and removes segments."""
        return self.root / "segments.lock"

    @property
    def segments(self) -> Path:
        """The parent of all sealed segments."""
        return self.root / "segments"

    @property
    def building(self) -> Path:
        """The segment that is being built: one at a time, under the lease."""
        return self.segments / ".building"

    def of(self, entry: SegmentEntry) -> Path:
        """The folder of a segment in the catalogue."""
        return self.segments / f"{entry.number:08d}"
