"""`resmem backup`: one moment of a state in a folder of its own, taken beside a running service.

    snapshot of the journal -> its catalogue -> the files of those segments -> the journal itself

All of it is of the same commit. The journal is read inside one transaction, which in WAL mode makes
no writer wait; segments are immutable, and held open before any is copied, so that a merge that
removes one meanwhile does no harm. The folder gets its name when every file in it is synced.
"""

import errno
import os
import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BufferedReader
from pathlib import Path
from typing import Final

from resmem_service import durable
from resmem_service.bundle.manifest import FileEntry
from resmem_service.bundle.store import Bundle
from resmem_service.errors import BundleError, CorruptFile
from resmem_service.maintenance.backup_manifest import BackupManifest
from resmem_service.maintenance.bundle_identity import bundle_identity
from resmem_service.maintenance.draft_folder import draft_folder
from resmem_service.memory.journal.sqlite.snapshot import JournalSnapshot, open_snapshot
from resmem_service.memory.rows import MemoryShape
from resmem_service.memory.segments.folders import StateFolders
from resmem_service.memory.segments.sealed_segment import SealedSegment
from resmem_service.progress import Advance, Progress

__all__ = ["BackedUp", "back_up"]

_READINGS: Final = 20


@dataclass(frozen=True, slots=True)
class BackedUp:
    """What was written."""

    manifest: BackupManifest
    left_out: list[str]
    """Damaged segments, each with its reason; their rows are in the journal."""

    @property
    def nbytes(self) -> int:
        """Size of all files."""
        return sum(entry.bytes for entry in self.manifest.files.values())


def back_up(
    bundle: Bundle, folders: StateFolders, target: Path, *, link: bool, progress: Progress
) -> BackedUp:
    """Writes a backup into the new folder `target`.

    Args:
        bundle: whose state it is.
        folders: of the state.
        target: must not exist.
        link: hard-link segments where the file system allows it: quick, and no second copy on the
            disk, so that damage to one is damage to both.
        progress: told how far it has come.

    Raises:
        BundleError: `target` exists, cannot be written, or there is no state.
        CorruptFile: the journal is damaged.
        JournalUnavailable: it cannot be read.
    """
    if target.exists():
        raise BundleError(f"{target} is there already: a backup needs a new folder")
    if not folders.journal.exists():
        raise BundleError(f"{folders.journal} is not there: nothing was memorized yet")
    try:
        with draft_folder(target) as draft:
            written = _write(bundle, folders, draft, link=link, progress=progress)
            durable.publish_folder(draft, target)
    except OSError as error:
        raise BundleError(f"cannot write the backup {target}: {error.strerror or error}") from error
    return written


def _write(
    bundle: Bundle, folders: StateFolders, draft: Path, *, link: bool, progress: Progress
) -> BackedUp:
    copy = StateFolders(draft)
    with ExitStack() as stack:
        snapshot, sources = _open(folders, stack)
        copy.segments.mkdir()
        total = sum(os.fstat(file.fileno()).st_size for file in sources.values())
        with progress.bar("segments", total, unit="bytes") as advance:
            for path, file in sources.items():
                destination = draft / path.relative_to(folders.root)
                destination.parent.mkdir(exist_ok=True)
                _place(path, file, destination, link=link)
                advance(destination.stat().st_size)
        left_out = _drop_damaged(copy, snapshot)
        with progress.bar("journal", _journal_bytes(snapshot), unit="bytes") as advance:
            snapshot.copy(copy.journal, advance)
        manifest = BackupManifest(
            model=bundle.manifest.name,
            version=bundle.manifest.version,
            bundle=bundle_identity(bundle.manifest),
            created=datetime.now(UTC),
            memories=snapshot.memories(),
            revision=snapshot.position.revision,
            files={},
        )
    _check_copy(copy, manifest.memories)
    files = _list(draft, progress)
    manifest = manifest.model_copy(update={"files": files})
    manifest.write(draft)
    return BackedUp(manifest, left_out)


def _open(
    folders: StateFolders, stack: ExitStack
) -> tuple[JournalSnapshot, dict[Path, BufferedReader]]:
    """A moment of the journal, and all files of its segments, open; again where one just went."""
    for _ in range(_READINGS):
        attempt = stack.enter_context(ExitStack())
        snapshot = attempt.enter_context(open_snapshot(folders.journal))
        named = [folders.of(entry) for entry in snapshot.catalogue if entry.rows > 0]
        sources: dict[Path, BufferedReader] = {}
        for folder in named:
            for path in sorted(folder.iterdir()) if folder.is_dir() else ():
                try:
                    sources[path] = attempt.enter_context(path.open("rb"))
                except FileNotFoundError:
                    continue
        # Had one been merged away by now, its files may have been opened half.
        with open_snapshot(folders.journal) as now:
            if now.catalogue == snapshot.catalogue:
                return snapshot, sources
        attempt.close()
    raise BundleError(f"{folders.segments} changes faster than it can be read; try again")


def _place(path: Path, file: BufferedReader, destination: Path, *, link: bool) -> None:
    if link:
        try:
            os.link(path, destination)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.ENOENT, errno.EMLINK):
                raise
        else:
            return
    with destination.open("wb") as copied:
        shutil.copyfileobj(file, copied, 1 << 20)


def _drop_damaged(copy: StateFolders, snapshot: JournalSnapshot) -> list[str]:
    """Leaves out what does not fit its checksums: restoring builds it anew from the journal."""
    damaged = []
    for entry in snapshot.catalogue:
        reason = None if entry.rows == 0 else _damage(copy.of(entry), snapshot.shape)
        if reason is not None:
            damaged.append(f"segment {entry.number:08d}: {reason}")
            shutil.rmtree(copy.of(entry), ignore_errors=True)
    return damaged


def _damage(folder: Path, shape: MemoryShape) -> str | None:
    try:
        SealedSegment.open(folder, shape).verify()
    except CorruptFile as error:
        return error.message
    except FileNotFoundError:
        return f"{folder.name} is missing"
    return None


def _journal_bytes(snapshot: JournalSnapshot) -> int:
    pages = snapshot.pages()
    return pages.total * pages.size


def _check_copy(copy: StateFolders, memories: int) -> None:
    with open_snapshot(copy.journal) as snapshot:
        faults = snapshot.faults(1)
        if not faults and (copied := snapshot.memories()) != memories:
            faults = [f"it has {memories} memories, and its copy {copied}"]
        if faults:
            raise CorruptFile(
                f"the journal is damaged, and no backup was made of it: {faults[0]}; "
                "`resmem verify` says more"
            )


def _list(draft: Path, progress: Progress) -> dict[str, FileEntry]:
    paths = sorted(path for path in draft.rglob("*") if path.is_file())
    total = sum(path.stat().st_size for path in paths)
    with progress.bar("checksums", total, unit="bytes") as advance:
        return {path.relative_to(draft).as_posix(): _entry(path, advance) for path in paths}


def _entry(path: Path, advance: Advance) -> FileEntry:
    entry = FileEntry(sha256=durable.sha256_of(path), bytes=path.stat().st_size)
    advance(entry.bytes)
    return entry
