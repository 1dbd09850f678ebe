"""`resmem verify`: all checks of a bundle and its state, in words.

    bundle -> journal's log and file -> its rows -> its tables -> segments -> what else lies there

Beside a running service it looks at one moment of the state. It writes nothing.
"""

from collections.abc import Iterator
from typing import Final

from resmem_service.bundle.store import Bundle
from resmem_service.errors import CorruptFile, JournalUnavailable
from resmem_service.inference.rows import Rows
from resmem_service.maintenance.bundle_check import check_bundle
from resmem_service.maintenance.finding import Finding
from resmem_service.maintenance.journal_check import (
    DAMAGED_JOURNAL,
    UNREADABLE_JOURNAL,
    check_journal_file,
)
from resmem_service.maintenance.segment_audit import Verdict
from resmem_service.maintenance.state_audit import StateAudit, audit_state
from resmem_service.memory.journal.sqlite.snapshot import open_snapshot
from resmem_service.memory.segments.folders import StateFolders
from resmem_service.progress import Progress

__all__ = ["verify", "verify_bundle", "verify_state"]

_SHOWN: Final = 5
_SEGMENT_ADVICE: Final[dict[Verdict, str | None]] = {
    "sound": None,
    "damaged": "its rows are safe in the journal: `resmem repair` builds it anew from them",
    "poor": "its rows are safe in the journal: `resmem repair` or `resmem compact` builds it anew",
    "ahead": "they still vote, but a rebuild would lose them: restore the newest backup with "
    "`resmem restore` and add what is newer again",
}


def verify(bundle: Bundle, folders: StateFolders, progress: Progress) -> Iterator[Finding]:
    """Checks everything there is, one finding a check and one more a fault."""
    yield from verify_bundle(bundle, progress)
    yield from verify_state(bundle, folders, progress)


def verify_bundle(bundle: Bundle, progress: Progress) -> Iterator[Finding]:
    """Checks the files of a bundle."""
    total = sum(entry.bytes for entry in bundle.manifest.files.values())
    with progress.bar("bundle", total, unit="bytes") as advance:
        yield from check_bundle(bundle, advance)


def verify_state(bundle: Bundle, folders: StateFolders, progress: Progress) -> Iterator[Finding]:
    """Checks a state folder, or a backup, which is laid out like one."""
    if not folders.journal.exists():
        yield _without_journal(folders)
        return
    yield from check_journal_file(folders)
    try:
        with open_snapshot(folders.journal) as snapshot:
            shape, total = snapshot.shape, snapshot.memories()
        if shape != bundle.manifest.memory_shape():
            raise CorruptFile(f"{folders.journal} was made for another model: {shape}")
        specs = bundle.manifest.inputs
        with progress.bar("memories", total) as advance:
            audit = audit_state(
                folders,
                lambda blobs: Rows.decode(blobs, specs),
                advance,
                ef=bundle.manifest.graph_settings().ef,
            )
    except CorruptFile as error:
        yield Finding("fault", "journal rows", error.message, DAMAGED_JOURNAL)
        return
    except JournalUnavailable as error:
        yield Finding("fault", "journal rows", error.message, UNREADABLE_JOURNAL)
        return
    yield from _rows(folders, audit)
    yield from _tables(folders, audit)
    yield from _segments(audit)
    yield from _leftovers(folders, audit)


def _without_journal(folders: StateFolders) -> Finding:
    segments = folders.segments
    if segments.is_dir() and any(segments.iterdir()):
        detail = f"{folders.journal} is missing, and {segments} is not"
        return Finding("fault", "journal file", detail, DAMAGED_JOURNAL)
    return Finding("ok", "journal file", f"{folders.root}: nothing was memorized yet")


def _rows(folders: StateFolders, audit: StateAudit) -> Iterator[Finding]:
    subject = "journal rows"
    for fault in audit.row_faults[:_SHOWN]:
        yield Finding(
            "fault",
            subject,
            f"{folders.journal}: memory {fault.sequence} (id {fault.id!r}) {fault.reason}",
            "all other memories are safe: teach it again, or let `resmem repair --forget-damaged` "
            "drop it",
        )
    if len(audit.row_faults) > _SHOWN:
        more = f"{folders.journal}: {len(audit.row_faults) - _SHOWN:,} more such memories"
        yield Finding("fault", subject, more, "see above")
    if audit.unreadable is not None:
        detail = f"readable only up to {audit.memories:,} memories: {audit.unreadable}"
        yield Finding("fault", subject, detail, DAMAGED_JOURNAL)
    elif not audit.row_faults:
        detail = f"{audit.memories:,} memories: readable, finite and of the right shape"
        yield Finding("ok", subject, detail)


def _tables(folders: StateFolders, audit: StateAudit) -> Iterator[Finding]:
    subject = "catalogue"
    for disagreement in audit.disagreements:
        yield Finding("fault", subject, f"{folders.journal}: {disagreement}", DAMAGED_JOURNAL)
    if audit.stranded:
        yield Finding(
            "fault",
            subject,
            f"{folders.journal}: {len(audit.stranded):,} memories are in no segment, "
            f"{audit.stranded[0]} the first: predictions miss them",
            "they are safe in the journal: `resmem repair` builds a segment of them",
        )
    if not audit.disagreements and not audit.stranded:
        sealed = audit.memories - audit.unsealed
        detail = (
            f"{len(audit.catalogue)} segments hold {sealed:,} of the memories, "
            f"{audit.unsealed:,} are newer than any"
        )
        yield Finding("ok", subject, detail)


def _segments(audit: StateAudit) -> Iterator[Finding]:
    for segment in audit.segments:
        subject = f"segment {segment.entry.number:08d}"
        if segment.reason is not None:
            advice = _SEGMENT_ADVICE[segment.verdict]
            yield Finding("fault", subject, segment.reason, advice)
        elif segment.entry.rows:
            detail = (
                f"{segment.entry.rows:,} rows: checksums fit, the journal agrees, and it finds them"
            )
            yield Finding("ok", subject, detail)


def _leftovers(folders: StateFolders, audit: StateAudit) -> Iterator[Finding]:
    named = {folders.of(entry) for entry in audit.catalogue}
    paths = set(folders.segments.iterdir()) if folders.segments.is_dir() else set()
    swept = set(folders.made_here()) if paths else set()
    for path in sorted(paths - named):
        what = "is not a part of the state"
        if path == folders.building:
            what = "is a segment being built now, or left by a killed process"
        future = "the next build removes it" if path in swept else "nothing reads or removes it"
        yield Finding("note", "leftovers", f"{path} {what}: {future}")
