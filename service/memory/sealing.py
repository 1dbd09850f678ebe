"""Background sealing: full growing segments become sealed ones, and small sealed ones are merged.

The policy: when growing segments are full, the new segment takes their rows together with every
newest sealed segment that is at most `FANOUT` times as large as what it takes already. So sizes
rise geometrically from the newest segment to the oldest, and few segments remain.
"""

import fcntl
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Final

from service import durable
from service.memory.graph_settings import GraphSettings
from service.memory.journal import Journal, SegmentEntry
from service.memory.observer import MemoryObserver
from service.memory.seal_process import SealTask
from service.memory.segment_rows import MemoryShape

__all__ = ["FANOUT", "Backlog", "SealFolders", "Sealer", "plan"]

logger = logging.getLogger(__name__)

FANOUT: Final = 2
_RETRY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Backlog:
    """The rows of full growing segments, and the catalogue that they come after."""

    catalogue: Sequence[SegmentEntry]
    rows: int
    last: int
    """The newest of their sequences."""


@dataclass(frozen=True, slots=True)
class SealFolders:
    """Where the files of one state lie."""

    root: Path

    @property
    def journal(self) -> Path:
        """The journal's database."""
        return self.root / "journal.sqlite3"

    @property
    def lease(self) -> Path:
        """Locked by the one process that seals."""
        return self.root / "sealing.lock"

    @property
    def segments(self) -> Path:
        """The parent of all sealed segments."""
        return self.root / "segments"

    @property
    def building(self) -> Path:
        """The segment that is being built; there is one at a time, its builder holds the lease."""
        return self.segments / ".building"

    def of(self, entry: SegmentEntry) -> Path:
        """The folder of a segment in the catalogue."""
        return self.segments / f"{entry.number:08d}"


def plan(backlog: Backlog) -> list[SegmentEntry]:
    """The newest sealed segments that the next one takes in, oldest first."""
    rows, taken = backlog.rows, 0
    for entry in reversed(backlog.catalogue):
        if entry.rows > FANOUT * rows:
            break
        rows += entry.rows
        taken += 1
    return list(backlog.catalogue[len(backlog.catalogue) - taken :])


class Sealer:
    """A thread that seals when told to; the building itself runs in a process of its own.

    Several processes may serve one state: the one that holds the lock on the lease file seals. The
    lock is inherited by the building process and dies with its holders, kill -9 included.

    Args:
        folders: of the state.
        shape: of its memories.
        graph: how to build.
        journal: its catalogue receives what was built.
        backlog: what there is to seal now, None for nothing.
        published: called after each change of the catalogue.
        observer: told of each segment.
    """

    def __init__(
        self,
        folders: SealFolders,
        shape: MemoryShape,
        graph: GraphSettings,
        journal: Journal,
        *,
        backlog: Callable[[], Backlog | None],
        published: Callable[[], None],
        observer: MemoryObserver,
    ) -> None:
        self._folders = folders
        self._shape = shape
        self._graph = graph
        self._journal = journal
        self._backlog = backlog
        self._published = published
        self._observer = observer
        self._wanted, self._closed = Event(), Event()
        self._process: subprocess.Popen[str] | None = None
        self._thread = Thread(target=self._run, name="resmem-sealer", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Says that there may be something to seal; returns at once."""
        self._wanted.set()

    def close(self) -> None:
        """Stops, in the middle of a build if need be: the next start builds again."""
        self._closed.set()
        self._wanted.set()
        process = self._process
        if process is not None:
            process.kill()
        self._thread.join()

    def _run(self) -> None:
        while True:
            self._wanted.wait()
            if self._closed.is_set():
                return
            self._wanted.clear()
            try:
                while not self._closed.is_set() and self._backlog() is not None:
                    if not self._seal_once():
                        self._closed.wait(_RETRY_S)
            except Exception:
                if not self._closed.is_set():
                    logger.exception("sealing failed; the rows stay in the growing segment")
                    self._closed.wait(_RETRY_S)
                    self._wanted.set()

    def _seal_once(self) -> bool:
        """Seals what there is; False where another process holds the lease."""
        with self._lease() as lease:
            if lease is None:
                return False
            # Read under the lease: another process may have sealed these rows just before.
            self._published()
            backlog = self._backlog()
            if backlog is not None:
                self._seal(backlog, lease)
            return True

    def _seal(self, backlog: Backlog, lease: int) -> None:
        started = time.perf_counter()
        merged = plan(backlog)
        sealed = max((entry.last for entry in backlog.catalogue), default=0)
        first = merged[0].first if merged else sealed + 1
        self._sweep(backlog.catalogue)
        rows = self._build(first, backlog.last, lease)
        self._journal.publish(first, backlog.last, rows, merged, self._place)
        self._published()
        for entry in merged:
            shutil.rmtree(self._folders.of(entry), ignore_errors=True)
        seconds = time.perf_counter() - started
        self._observer.on_sealed(seconds, rows)
        logger.info("sealed %d rows in %.2f s, %d segments merged", rows, seconds, len(merged))

    def _build(self, first: int, last: int, lease: int) -> int:
        task = SealTask(
            journal=str(self._folders.journal),
            first=first,
            last=last,
            folder=str(self._folders.building),
            shape=self._shape,
            graph=self._graph,
        )
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", "service.memory.seal_process", task.dump()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[lease],
            text=True,
        )
        with self._process as process:
            if self._closed.is_set():
                process.kill()
            assert process.stdout is not None
            assert process.stderr is not None
            output, trouble = process.stdout.read(), process.stderr.read()
            process.wait()
        self._process = None
        if process.returncode != 0:
            raise RuntimeError(f"building a segment failed ({process.returncode}): {trouble}")
        return int(output)

    def _place(self, entry: SegmentEntry) -> None:
        if entry.rows == 0:
            return
        final = self._folders.of(entry)
        # Left by a process that died between the renaming and its commit.
        shutil.rmtree(final, ignore_errors=True)
        durable.publish_folder(self._folders.building, final)

    def _sweep(self, catalogue: Sequence[SegmentEntry]) -> None:
        """Removes what dead processes left: folders that the catalogue does not name."""
        self._folders.segments.mkdir(exist_ok=True)
        named = {self._folders.of(entry) for entry in catalogue}
        for folder in self._folders.segments.iterdir():
            if folder not in named:
                shutil.rmtree(folder)

    @contextmanager
    def _lease(self) -> Iterator[int | None]:
        descriptor = os.open(self._folders.lease, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
            else:
                yield descriptor
        finally:
            os.close(descriptor)
