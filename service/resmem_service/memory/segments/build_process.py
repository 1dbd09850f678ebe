"""The process that builds a sealed segment, with its task as the only argument.

It reads the journal and writes one folder; what becomes of the folder is its parent's business.
A process of its own, because hnswlib holds the GIL while it saves and leaves its memory behind.
"""

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Thread
from typing import Self

from resmem_service.errors import CorruptFile
from resmem_service.memory.journal.sqlite.connections import open_reader
from resmem_service.memory.journal.sqlite.rows import read_segment_rows
from resmem_service.memory.rows import MemoryShape, SegmentRows
from resmem_service.memory.search.codec import ResidualCodec
from resmem_service.memory.segments.build import build_segment
from resmem_service.memory.segments.graph_settings import GraphSettings
from resmem_service.memory.segments.sealed_segment import SealedSegment

__all__ = ["BuildResult", "BuildTask", "main"]

_NICENESS = 10


@dataclass(frozen=True, slots=True)
class BuildTask:
    """Which rows of which journal become a segment, and where."""

    journal: str
    first: int
    last: int
    base: str | None
    """Folder of the segment whose graph is carried on; it holds the oldest of the rows."""
    folder: str
    shape: MemoryShape
    graph: GraphSettings

    def dump(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def load(cls, text: str) -> Self:
        """The task in a line of `dump`."""
        content = json.loads(text)
        shape, graph = content.pop("shape"), content.pop("graph")
        codec = ResidualCodec(**shape.pop("codec"))
        return cls(**content, shape=MemoryShape(**shape, codec=codec), graph=GraphSettings(**graph))


@dataclass(frozen=True, slots=True)
class BuildResult:
    """What became of a task."""

    rows: int
    """In the segment; 0 where there is none, and no folder."""
    skipped: dict[int, str]
    """Ids by sequence of the rows of the journal that differ from their checksums."""

    def dump(self) -> str:
        """One line of JSON."""
        return json.dumps({"rows": self.rows, "skipped": list(self.skipped.items())})

    @classmethod
    def load(cls, text: str) -> Self:
        """The result in a line of `dump`."""
        content = json.loads(text)
        return cls(content["rows"], dict(content["skipped"]))


def run(task: BuildTask) -> BuildResult:
    """Builds the folder; no folder where there are no rows."""
    base = _base(task)
    first = task.first if base is None else base.native.sequence(base.rows - 1) + 1
    skipped: dict[int, str] = {}
    connection = open_reader(Path(task.journal))
    try:
        parts = list(read_segment_rows(connection, first, task.last, task.shape, skipped))
    finally:
        connection.close()
    rows = SegmentRows.concatenate(parts) if parts else None
    if rows is None and base is None:
        return BuildResult(0, skipped)
    build_segment(Path(task.folder), rows, task.graph, task.shape, base=base)
    total = (0 if rows is None else len(rows)) + (0 if base is None else base.rows)
    return BuildResult(total, skipped)


def _base(task: BuildTask) -> SealedSegment | None:
    """The segment whose graph is carried on; None for one that is damaged: its rows are read."""
    if task.base is None:
        return None
    try:
        base = SealedSegment.open(Path(task.base), task.shape)
        base.verify()
    except (CorruptFile, OSError) as error:
        sys.stderr.write(f"its rows are taken from the journal: {error}\n")
        return None
    return base


def main() -> None:
    """Runs the task in argv and prints the result."""
    Thread(target=_end_with_parent, daemon=True).start()
    os.nice(_NICENESS)
    sys.stdout.write(f"{run(BuildTask.load(sys.argv[1])).dump()}\n")


def _end_with_parent() -> None:
    # The parent holds the other end: it closes when the parent dies, even of kill -9.
    # Not through sys.stdin, whose lock a waiting thread would hold at interpreter shutdown.
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    main()
