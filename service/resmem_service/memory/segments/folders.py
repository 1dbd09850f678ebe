"""Where the files of one state lie."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from resmem_service.memory.journal.journal import SegmentEntry

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
    def lock(self) -> Path:
        """Locked by the one process that builds and removes segments."""
        return self.root / "segments.lock"

    @property
    def segments(self) -> Path:
        """The parent of all sealed segments."""
        return self.root / "segments"

    @property
    def building(self) -> Path:
        """The segment that is being built: one at a time, under the lock."""
        return self.segments / ".building"

    def made_here(self) -> Iterator[Path]:
        """What sealing made in `segments`; what else lies there is not ours to touch."""
        for path in self.segments.iterdir():
            if path == self.building or (path.name.isdecimal() and path.is_dir()):
                yield path

    def of(self, entry: SegmentEntry) -> Path:
        """The folder of a segment in the catalogue."""
        return self.segments / f"{entry.number:08d}"
