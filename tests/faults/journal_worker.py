"""Works on one journal until its standard input ends: `python -m tests.faults.journal_worker ...`.

    append STATE NAME       commits memories NAME-0, NAME-1, ..., and forgets every fifth of them
    checkpoint STATE        resets the write-ahead log, over and over
    compact STATE           seals, merges and compacts, over and over

Each prints a line when it begins, and what it has done when it ends: the number of commits, of logs
reset, of compactions.
"""

import os
import sys
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from threading import Event, Thread

import apsw
from resmem_service.errors import JournalUnavailable
from resmem_service.memory.journal.sqlite.journal import SqliteJournal
from resmem_service.memory.memory import ResidualMemory
from resmem_service.memory.segments.folders import StateFolders

from tests.memory.examples import SHAPE, SMALL, memories

__all__ = ["FORGOTTEN"]

FORGOTTEN = 5
"""Every how many memories one is forgotten again, right after it was added."""

_ended = Event()


def append(state: Path, name: str) -> int:
    """Every commit is tried until it succeeds; the ids make that harmless."""
    journal = SqliteJournal(StateFolders(state).journal, SHAPE, busy_ms=5000)
    done = 0
    while not _ended.is_set():
        id = f"{name}-{done}"
        row = memories([done % 1000], ids=[id], source=name)
        _insist(partial(journal.append, [row]))
        if done % FORGOTTEN == 0:
            _insist(partial(journal.forget, id))
        done += 1
    journal.close()
    return done


def checkpoint(state: Path) -> int:
    """The two modes that have the next writer begin the log anew, in turn."""
    done = 0
    with closing(apsw.Connection(str(StateFolders(state).journal))) as connection:
        connection.set_busy_timeout(20)
        while not _ended.is_set():
            for mode in ("TRUNCATE", "RESTART"):
                try:
                    busy, *_ = connection.execute(f"PRAGMA wal_checkpoint({mode})").get
                except apsw.BusyError:
                    continue
                done += not busy
    return done


def compact(state: Path) -> int:
    """Beside the sealing that a memory does by itself."""
    memory = ResidualMemory.open(state, fitted=None, shape=SHAPE, options=SMALL)
    done = 0
    while not _ended.is_set():
        try:
            memory.compact()
        except JournalUnavailable:  # another process reads the log, or writes
            continue
        done += 1
    memory.close()
    return done


def _insist(act: Callable[[], object]) -> None:
    while True:
        try:
            act()
        except JournalUnavailable:  # locked for longer than `busy_ms`
            continue
        return


def _wait_for_end() -> None:
    while os.read(0, 1):
        pass
    _ended.set()


if __name__ == "__main__":
    Thread(target=_wait_for_end, daemon=True).start()
    role, folder, *names = sys.argv[1:]
    work: dict[str, Callable[..., int]] = {
        "append": append,
        "checkpoint": checkpoint,
        "compact": compact,
    }
    sys.stdout.write("begun\n")
    sys.stdout.flush()
    sys.stdout.write(f"{work[role](Path(folder), *names)}\n")
