"""The file of a journal: whether SQLite can read all of it, and takes all of its log."""

from collections.abc import Iterator
from typing import Final

from resmem_service.errors import CorruptFile, JournalUnavailable
from resmem_service.maintenance.finding import Finding
from resmem_service.memory.journal.sqlite.log_check import damage_in
from resmem_service.memory.journal.sqlite.snapshot import open_snapshot
from resmem_service.memory.journal.sqlite.versions import library_version
from resmem_service.memory.segments.folders import StateFolders

__all__ = ["DAMAGED_JOURNAL", "UNREADABLE_JOURNAL", "check_journal_file"]

DAMAGED_JOURNAL: Final = (
    "what is sealed still votes while a server runs; copy the state folder, then restore the "
    "newest backup with `resmem restore`"
)
UNREADABLE_JOURNAL: Final = (
    "nothing says that it is damaged: a disk that is full, read-only or failing may be the reason, "
    "or a permission; look there and verify again; if it stays so, copy the state folder, then "
    "restore the newest backup with `resmem restore`"
)
_DAMAGED_LOG: Final = (
    "what was committed before it is safe, and a server that runs loses nothing: make a backup "
    "from it now (`resmem backup`); where none runs, the newest backup may have more"
)
_SHOWN: Final = 5


def check_journal_file(folders: StateFolders) -> Iterator[Finding]:
    """The log first, which opening the journal may fold away; then SQLite's own check of the file.

    A fault in the file ends with a finding too: nothing is raised for it.
    """
    log = folders.journal.with_name(f"{folders.journal.name}-wal")
    try:
        damage = damage_in(log)
    except OSError as error:
        damage = f"cannot be read: {error.strerror}"
    if damage is None:
        yield Finding("ok", "journal log", "no commit is cut off")
    else:
        yield Finding("fault", "journal log", f"{log}: {damage}", _DAMAGED_LOG)
    try:
        with open_snapshot(folders.journal) as snapshot:
            faults = snapshot.faults(_SHOWN)
            pages = snapshot.pages()
            # SQLite reads a cut last page as if zeros stood there. It writes whole pages only.
            over = folders.journal.stat().st_size % pages.size
    except CorruptFile as error:
        yield Finding("fault", "journal file", error.message, DAMAGED_JOURNAL)
        return
    except JournalUnavailable as error:
        yield Finding("fault", "journal file", error.message, UNREADABLE_JOURNAL)
        return
    if over:
        detail = f"{folders.journal} is cut: it ends within a page"
        yield Finding("fault", "journal file", detail, DAMAGED_JOURNAL)
    elif not faults:
        detail = (
            f"{pages.total:,} pages pass the integrity check of SQLite {library_version()}, which "
            "is free of the WAL-reset bug"
        )
        yield Finding("ok", "journal file", detail)
    else:
        found = "; ".join(" ".join(line.split()) for line in faults)
        yield Finding("fault", "journal file", f"{folders.journal}: {found}", DAMAGED_JOURNAL)
