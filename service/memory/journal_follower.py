"""Follows the journal: what any process commits reaches this one's segments."""

import logging
from threading import Lock
from typing import Final

from service.errors import CorruptFile, JournalUnavailable
from service.memory.journal import Changes, Journal
from service.memory.state_folders import StateFolders
from service.memory.tiers import Tiers

__all__ = ["JournalFollower"]

logger = logging.getLogger(__name__)

_CATALOGUE_READINGS: Final = 8


class JournalFollower:
    """Moves the tiers along the journal; every method may be called from any thread.

    Args:
        journal: where commits come from.
        tiers: where they go; nobody else writes to them.
        folders: of the state, for what to say of damage.
    """

    def __init__(self, journal: Journal, tiers: Tiers, folders: StateFolders) -> None:
        self._journal = journal
        self._tiers = tiers
        self._folders = folders
        self._lock = Lock()
        self._unreadable = False

    def refresh(self) -> bool:
        """Takes over what was committed since the last time; True where something was."""
        changed = False
        try:
            # Looks before it waits for whoever is reading; and then again, to read nothing twice.
            if self._journal.moved():
                with self._lock:
                    if self._journal.moved():
                        self.catch_up()
                        changed = True
            self._unreadable = False
        except JournalUnavailable:
            # A prediction is worth more with the memories known so far than not at all.
            if not self._unreadable:
                logger.exception("the journal cannot be read; using what was read before")
            self._unreadable = True
        return changed

    def catch_up(self, *, since_start: bool = False) -> None:
        """Reads what was committed, all of it where `since_start`; one caller at a time.

        Raises:
            CorruptFile: a segment is missing or damaged, or disagrees with the journal.
            JournalUnavailable: it cannot be read now.
        """
        own = None if since_start else self._journal.latest(self._tiers.snapshot.position)
        if own is not None:
            self._tiers.append(own)
            return
        for _ in range(_CATALOGUE_READINGS):
            since = None if since_start else self._tiers.snapshot.position
            try:
                with self._journal.changes(since) as changes:
                    self._tiers.apply(changes)
                    if since_start:
                        self._compare(changes)
                return
            except (FileNotFoundError, CorruptFile) as error:
                # Another process may have merged a segment away between the reading and the
                # opening, and removes it file by file; then the next catalogue has it no more.
                trouble = error
        if isinstance(trouble, FileNotFoundError):
            raise CorruptFile(f"{trouble.filename} is missing, and the catalogue names it")
        raise trouble

    def _compare(self, changes: Changes) -> None:
        """What votes must be what the journal has: its tombstones and catalogue bear no checksum.

        Raises:
            CorruptFile: it is not; the message names the damaged file, where it can be told.
        """
        if self._tiers.living() == changes.living():
            return
        for segment in self._tiers.snapshot.sealed.values():
            segment.verify()
        raise CorruptFile(
            f"{self._folders.journal} and the segments beside it disagree on which memories there "
            "are; `resmem verify` tells more"
        )
