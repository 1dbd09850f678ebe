"""`resmem inspect`: what is in a bundle and its state, in numbers.

It reads the journal's tables and the sizes of files, no vector, and works beside a running service.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from resmem_service.bundle.store import Bundle
from resmem_service.memory.journal.sqlite.snapshot import JournalSnapshot, SourceRows, open_snapshot
from resmem_service.memory.journal.sqlite.versions import library_version
from resmem_service.memory.segments.folders import StateFolders

__all__ = [
    "AGES",
    "BundleInspection",
    "DiskUse",
    "Inspection",
    "SegmentInspection",
    "StateInspection",
    "inspect",
]

AGES: Final = {
    "an hour": 3600,
    "a day": 86_400,
    "a week": 604_800,
    "30 days": 2_592_000,
    "a year": 31_536_000,
}
"""Upper bounds of the age groups in seconds; the last group, `older`, has none."""


@dataclass(frozen=True, slots=True)
class BundleInspection:
    """The bundle, and its memories that were forgotten online."""

    name: str
    version: str
    created: str
    task: str
    classes: int | None
    embedding_dim: int
    outputs: int
    residuals: str
    memories: int
    forgotten: int
    nbytes: int
    path: str


@dataclass(frozen=True, slots=True)
class SegmentInspection:
    """A sealed segment."""

    number: int
    first: int
    last: int
    rows: int
    forgotten: int
    """Rows in its files that no longer vote."""
    nbytes: int


@dataclass(frozen=True, slots=True)
class DiskUse:
    """Bytes of each kind of file."""

    journal: int
    journal_log: int
    segments: int
    free: int
    """Of the journal: pages that nothing uses, which `resmem compact` gives back."""


@dataclass(frozen=True, slots=True)
class StateInspection:
    """What was memorized online."""

    path: str
    memories: int
    sealed: int
    growing: int
    revision: int
    tombstones: int
    """Forgotten memories whose rows segments may still hold."""
    horizon: int
    """Everything up to this sequence was evicted; 0: nothing was."""
    sqlite: str
    """Version of the SQLite library that read the journal."""
    ages: dict[str, int]
    sources: list[SourceRows]
    segments: list[SegmentInspection]
    disk: DiskUse


@dataclass(frozen=True, slots=True)
class Inspection:
    """Both; `state` is None where nothing was ever memorized."""

    bundle: BundleInspection
    state: StateInspection | None


def inspect(bundle: Bundle, folders: StateFolders) -> Inspection:
    """Counts what there is.

    Raises:
        CorruptFile, JournalUnavailable: the journal cannot be read.
    """
    forgotten, state = 0, None
    if folders.journal.exists():
        with open_snapshot(folders.journal) as snapshot:
            tombstones = snapshot.tombstones()
            forgotten = sum(sequence < 0 for sequence in tombstones)
            state = _state(folders, snapshot, len(tombstones) - forgotten)
    manifest = bundle.manifest
    return Inspection(
        BundleInspection(
            name=manifest.name,
            version=manifest.version,
            created=manifest.created.isoformat(timespec="seconds"),
            task=manifest.task,
            classes=None if manifest.classes is None else len(manifest.classes),
            embedding_dim=manifest.embedding.dim,
            outputs=manifest.outputs,
            residuals=manifest.residuals,
            memories=manifest.memories,
            forgotten=forgotten,
            nbytes=sum(entry.bytes for entry in manifest.files.values()),
            path=str(bundle.path),
        ),
        state,
    )


def _state(folders: StateFolders, snapshot: JournalSnapshot, tombstones: int) -> StateInspection:
    sealed_to = max((entry.last for entry in snapshot.catalogue), default=0)
    memories = snapshot.memories()
    growing = snapshot.memories(first=sealed_to + 1)
    segments = [
        SegmentInspection(
            number=entry.number,
            first=entry.first,
            last=entry.last,
            rows=entry.rows,
            forgotten=entry.rows - snapshot.memories(entry.first, entry.last),
            nbytes=_bytes_in(folders.of(entry)),
        )
        for entry in snapshot.catalogue
    ]
    pages = snapshot.pages()
    return StateInspection(
        path=str(folders.root),
        memories=memories,
        sealed=memories - growing,
        growing=growing,
        revision=snapshot.position.revision,
        tombstones=tombstones,
        horizon=snapshot.position.horizon,
        sqlite=library_version(),
        ages=_ages(snapshot),
        sources=snapshot.sources(),
        segments=segments,
        disk=DiskUse(
            journal=pages.total * pages.size,
            journal_log=_size_of(folders.journal.with_name(f"{folders.journal.name}-wal")),
            segments=sum(segment.nbytes for segment in segments),
            free=pages.free * pages.size,
        ),
    )


def _ages(snapshot: JournalSnapshot) -> dict[str, int]:
    now_ms = time.time_ns() // 1_000_000
    bounds = [now_ms - seconds * 1000 for seconds in AGES.values()]
    found = [*snapshot.added_since(bounds), snapshot.memories()]
    return {
        name: count - before
        for name, count, before in zip((*AGES, "older"), found, (0, *found), strict=False)
    }


def _bytes_in(folder: Path) -> int:
    return sum(_size_of(path) for path in folder.iterdir()) if folder.is_dir() else 0


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # merged away, or folded into the journal, meanwhile
        return 0
