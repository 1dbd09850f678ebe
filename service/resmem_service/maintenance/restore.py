"""`resmem restore`: a backup becomes the state, checked before it is put in its place."""

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from resmem_service import durable
from resmem_service.bundle.store import Bundle
from resmem_service.errors import BundleError, CorruptFile
from resmem_service.maintenance.backup_manifest import BackupManifest
from resmem_service.maintenance.draft_folder import draft_folder
from resmem_service.maintenance.repair import Repaired, repair
from resmem_service.memory.journal.sqlite.connections import is_in_use
from resmem_service.memory.segments.folders import StateFolders
from resmem_service.progress import Progress

__all__ = ["Restored", "restore"]


@dataclass(frozen=True, slots=True)
class Restored:
    """What was done."""

    manifest: BackupManifest
    repaired: Repaired
    """Segments that the backup did not have whole were built anew."""
    aside: Path | None
    """Where the state is that was there before; None where there was none."""


def restore(
    source: Path, bundle: Bundle, folders: StateFolders, *, force: bool, progress: Progress
) -> Restored:
    """Makes a backup the state of a bundle; no service may run on it.

    Args:
        source: folder of the backup.
        bundle: whose state it is.
        folders: where the state is to be.
        force: move a state that is there aside, instead of refusing.
        progress: told how far it has come.

    Raises:
        BundleError: it is not a backup of this bundle, a state is there, or is being served.
        CorruptFile: the backup's journal is damaged.
    """
    manifest = BackupManifest.read(source)
    manifest.check_owner(bundle.manifest)
    _check_place(folders, force=force)
    try:
        with draft_folder(folders.root) as draft:
            _copy(manifest, source, draft, progress)
            with progress.bar("memories", manifest.memories) as advance:
                repaired = repair(
                    StateFolders(draft),
                    bundle.manifest.memory_shape(),
                    forget_damaged=False,
                    graph=bundle.manifest.graph_settings(),
                    advance=advance,
                )
            aside = _move_aside(folders, force=force)
            durable.publish_folder(draft, folders.root)
    except OSError as error:
        raise BundleError(f"cannot write {folders.root}: {error.strerror or error}") from error
    return Restored(manifest, repaired, aside)


def _check_place(folders: StateFolders, *, force: bool) -> None:
    if not folders.root.exists() or not any(folders.root.iterdir()):
        return
    if not force:
        raise BundleError(
            f"{folders.root} has a state already: stop the service and give --force, which moves "
            "it aside"
        )
    if folders.journal.exists() and is_in_use(folders.journal):
        raise BundleError(f"{folders.journal} is in use: stop the service first")


def _copy(manifest: BackupManifest, source: Path, draft: Path, progress: Progress) -> None:
    journal = StateFolders(draft).journal.name
    total = sum(entry.bytes for entry in manifest.files.values())
    with progress.bar("backup", total, unit="bytes") as advance:
        for name, entry in manifest.files.items():
            fault = manifest.fault_in(source, name)
            if fault is None:
                (draft / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / name, draft / name)
                fault = manifest.fault_in(draft, name)
            if fault is not None and name == journal:
                raise CorruptFile(f"{fault}: use another backup")
            if fault is not None:
                progress.say(f"{fault}: the segment is built anew from the journal")
            advance(entry.bytes)


def _move_aside(folders: StateFolders, *, force: bool) -> Path | None:
    root = folders.root
    if not root.exists():
        return None
    if not any(root.iterdir()):
        root.rmdir()
        return None
    # Once more: a service may have started since.
    _check_place(folders, force=force)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    aside = root.with_name(f"{root.name}.before-{stamp}")
    root.rename(aside)
    return aside
