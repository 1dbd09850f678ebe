"""What sealing and merging cost: rows inserted into graphs, CPU and bytes written, per row taught.

    python -m benchmarks.speed.sealing

Rows of d = 64 numbers and L = 10 residuals are memorized 256 at a time, in growing segments of the
default size, each of which is sealed as soon as it is full. The embeddings are scikit-learn's
digits, shaken. Nothing here depends on how fast the machine is but the CPU time.
"""

import argparse
import json
import resource
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from resmem_service.memory.journal.journal import Memories
from resmem_service.memory.journal.sqlite.journal import SqliteJournal
from resmem_service.memory.observer import SilentMemoryObserver
from resmem_service.memory.options import MemoryOptions
from resmem_service.memory.rows import MemoryShape
from resmem_service.memory.segments.folders import StateFolders
from resmem_service.memory.segments.lock import try_lock
from resmem_service.memory.segments.policy import next_segment
from resmem_service.memory.segments.segment_builder import SegmentBuilder
from resmem_service.memory.segments.segment_set import SegmentSet

from benchmarks.speed.digits import digits

_OUT = Path("benchmarks/out/sealing")
_SHAPE = MemoryShape(dim=64, width=10, task="classification")
_OPTIONS = MemoryOptions()
_BATCH_ROWS = 256


@dataclass(slots=True)
class Built:
    """Summed up over all segments that were built."""

    segments: int = 0
    rows: int = 0
    inserted: int = 0
    """Rows that hnswlib had to find neighbours for; the others came with a graph carried on."""
    nbytes: int = 0


def batch(pixels: NDArray[np.float32], labels: NDArray[np.int64], seed: int) -> Memories:
    """Digits, shaken."""
    rng = np.random.default_rng(seed)
    index = rng.integers(0, len(pixels), _BATCH_ROWS)
    embeddings = pixels[index] + rng.normal(0, 0.05, (_BATCH_ROWS, 64))
    targets = labels[index].astype(np.int32)
    return Memories(
        ids=[None] * _BATCH_ROWS,
        inputs=[row.tobytes() for row in pixels[index]],
        targets=targets,
        embeddings=embeddings.astype(np.float32),
        residuals=(np.eye(10)[targets] - 0.1).astype(np.float32),
        weights=np.ones(_BATCH_ROWS),
    )


def seal(
    journal: SqliteJournal, segments: SegmentSet, builder: SegmentBuilder, built: Built
) -> None:
    """What a server's sealer does, in the foreground."""
    folders = StateFolders(_OUT)
    while (
        plan := next_segment(segments.backlog(), max_rows=_OPTIONS.max_segment_rows)
    ) is not None:
        with try_lock(folders.lock) as lock:
            assert lock is not None, "nobody else is here"
            entry = builder.carry_out(plan, segments.snapshot.catalogue, lock)
        follow(journal, segments)
        built.segments += 1
        built.rows += entry.rows
        built.inserted += entry.rows - (0 if plan.base is None else plan.base.rows)
        built.nbytes += sum(path.stat().st_size for path in folders.of(entry).iterdir())


def follow(journal: SqliteJournal, segments: SegmentSet) -> None:
    """Takes over what was committed."""
    with journal.changes(segments.snapshot.position) as changes:
        segments.apply(changes)


def main(arguments: Sequence[str] | None = None) -> None:
    """Memorizes and seals, prints what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    options = parser.parse_args(arguments)
    shutil.rmtree(_OUT, ignore_errors=True)
    _OUT.mkdir(parents=True)
    folders, built = StateFolders(_OUT), Built()
    pixels, labels = digits()
    journal = SqliteJournal(folders.journal, _SHAPE)
    segments = SegmentSet(folders, _SHAPE, None, _OPTIONS.growing_bytes)
    builder = SegmentBuilder(folders, _SHAPE, _OPTIONS.graph, journal, SilentMemoryObserver())
    for seed in range(options.rows // _BATCH_ROWS):
        journal.append([batch(pixels, labels, seed)])
        follow(journal, segments)
        seal(journal, segments, builder, built)
    rows = segments.snapshot.catalogue[-1].last
    cpu = resource.getrusage(resource.RUSAGE_CHILDREN)
    results = {
        "rows": rows,
        "segments_built": built.segments,
        "segments_left": len(segments.snapshot.catalogue),
        "rows_written_per_row": built.rows / rows,
        "rows_inserted_per_row": built.inserted / rows,
        "segment_bytes_written_per_row": built.nbytes / rows,
        "segment_bytes_per_row": sum(s.nbytes for s in segments.snapshot.sealed.values()) / rows,
        "journal_bytes_per_row": journal.row_bytes(),
        "build_cpu_us_per_row": (cpu.ru_utime + cpu.ru_stime) / rows * 1e6,
    }
    journal.close()
    for name, value in results.items():
        print(f"{name:32}{value:>12,.2f}")
    (_OUT.parent / "sealing.json").write_text(json.dumps(results, indent=2) + "\n")
    shutil.rmtree(_OUT)


if __name__ == "__main__":
    main()
