"""Carries out a plan: builds the segment in a process of its own and swaps it in."""

import logging
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from resmem_service import durable
from resmem_service.child_command import module_command
from resmem_service.memory.journal.journal import Journal, SegmentEntry
from resmem_service.memory.observer import MemoryObserver
from resmem_service.memory.rows import MemoryShape
from resmem_service.memory.segments.build_process import BuildResult, BuildTask
from resmem_service.memory.segments.child_output import wait_for_end
from resmem_service.memory.segments.folders import StateFolders
from resmem_service.memory.segments.graph_settings import GraphSettings
from resmem_service.memory.segments.policy import SegmentPlan

__all__ = ["SegmentBuilder"]

_log = logging.getLogger(__name__)

_LEAST_BUILD_S: Final = 600.0
_ROW_S: Final = 0.05
"""A build may take this for each row and the time above: a hundred times what the slowest needs.
One that hangs would otherwise hold the lock, and nothing would be sealed any more."""


class SegmentBuilder:
    """Builds segments of one state; its caller holds the lock.

    Args:
        folders: of the state.
        shape: of its memories.
        graph: how to build.
        journal: its catalogue receives what was built.
        observer: told of each segment.
        note_unreadable: told of the rows that a build left out, since they differ from their
            checksums: ids by sequence.
    """

    def __init__(
        self,
        folders: StateFolders,
        shape: MemoryShape,
        graph: GraphSettings,
        journal: Journal,
        observer: MemoryObserver,
        note_unreadable: Callable[[Mapping[int, str]], None] = lambda _: None,
    ) -> None:
        self._folders = folders
        self._shape = shape
        self._graph = graph
        self._journal = journal
        self._observer = observer
        self._note_unreadable = note_unreadable
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def carry_out(
        self, plan: SegmentPlan, catalogue: Sequence[SegmentEntry], lock: int
    ) -> SegmentEntry:
        """Builds and publishes the segment of a plan.

        Args:
            plan: what to build.
            catalogue: all segments now; other folders were left by processes that were killed.
            lock: the descriptor of the lock; the building process holds it too.

        Raises:
            RuntimeError: the building process failed, or was stopped.
            JournalUnavailable: the catalogue could not be written; nothing has changed.
        """
        started = time.perf_counter()
        self._sweep(catalogue)
        built = self._build(plan, lock)
        rows = built.rows
        self._note_unreadable(built.skipped)
        entry = self._journal.publish(plan.first, plan.last, rows, plan.replaces, self._place)
        # Only the names go: a process that has them mapped keeps reading.
        for replaced in plan.replaces:
            shutil.rmtree(self._folders.of(replaced), ignore_errors=True)
        seconds = time.perf_counter() - started
        self._observer.on_sealed(seconds, rows)
        _log.info(
            "built a segment of %d rows in %.2f s in the place of %d", rows, seconds,
            len(plan.replaces),
        )  # fmt: skip
        return entry

    def stop(self) -> None:
        """Ends a build that runs, and lets no other begin."""
        self._stopped = True
        process = self._process
        if process is not None:
            process.kill()

    def _build(self, plan: SegmentPlan, lock: int) -> BuildResult:
        task = BuildTask(
            journal=str(self._folders.journal),
            first=plan.first,
            last=plan.last,
            base=None if plan.base is None else str(self._folders.of(plan.base)),
            folder=str(self._folders.building),
            shape=self._shape,
            graph=self._graph,
        )
        seconds = _LEAST_BUILD_S + _ROW_S * (plan.last - plan.first + 1)
        with subprocess.Popen(  # noqa: S603 - our own module
            module_command("resmem_service.memory.segments.build_process", task.dump()),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[lock],
        ) as process:
            self._process = process
            if self._stopped:
                process.kill()
            ending = wait_for_end(process, seconds)
        self._process = None
        if ending.timed_out:
            raise RuntimeError(f"building a segment took longer than {seconds:.0f} s; it was ended")
        if ending.status != 0:
            reason = ending.errors.strip().rpartition("\n")[2] or f"exit status {ending.status}"
            error = RuntimeError(f"building a segment failed: {reason}")
            error.add_note(ending.errors)
            raise error
        return BuildResult.load(ending.output.splitlines()[-1])

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
        for folder in self._folders.made_here():
            if folder not in named:
                # One that cannot be removed is in nobody's way but the disk's.
                shutil.rmtree(folder, ignore_errors=True)
