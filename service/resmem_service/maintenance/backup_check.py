"""A backup held against its manifest, and then looked through like a state."""

from collections.abc import Iterator
from pathlib import Path

from resmem_service.bundle.store import Bundle
from resmem_service.errors import CorruptFile
from resmem_service.maintenance.backup_manifest import BackupManifest
from resmem_service.maintenance.finding import Finding
from resmem_service.maintenance.verification import verify_state
from resmem_service.memory.segments.folders import StateFolders
from resmem_service.progress import Progress

__all__ = ["check_backup"]


def check_backup(folder: Path, bundle: Bundle, progress: Progress) -> Iterator[Finding]:
    """Every checksum of a backup, and every row in it.

    Raises:
        BundleError: it is not a backup, or one of another bundle.
    """
    try:
        manifest = BackupManifest.read(folder)
    except CorruptFile as error:
        yield Finding("fault", "backup", error.message, "its files may be sound: keep them")
        return
    manifest.check_owner(bundle.manifest)
    faults = []
    total = sum(entry.bytes for entry in manifest.files.values())
    with progress.bar("backup", total, unit="bytes") as advance:
        for name, entry in manifest.files.items():
            fault = manifest.fault_in(folder, name)
            if fault is not None:
                faults.append((name, fault))
            advance(entry.bytes)
    journal = StateFolders(folder).journal.name
    for name, fault in faults:
        advice = (
            "use another backup"
            if name == journal
            else "its rows are in the backup's journal: `resmem restore` builds it anew from them"
        )
        yield Finding("fault", "backup", fault, advice)
    if not faults:
        when = manifest.created.isoformat(timespec="seconds")
        yield Finding("ok", "backup", f"{len(manifest.files)} files as of {when}")
    yield from verify_state(bundle, StateFolders(folder), progress)
