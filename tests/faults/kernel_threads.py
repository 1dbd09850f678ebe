"""Reads segments in several threads beside one that changes them, then cuts and overwrites files.

    python -m tests.faults.kernel_threads FOLDER SECONDS

A process of its own, since a broken promise ends it by a signal. Under ThreadSanitizer it ends at
the first access that nothing orders.
"""

import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import numpy as np
from numpy.typing import NDArray
from resmem_service.errors import CorruptFile
from resmem_service.memory.rows import MemoryShape, SegmentRows
from resmem_service.memory.search import _kernel
from resmem_service.memory.segments.build import build_segment
from resmem_service.memory.segments.graph_settings import GraphSettings
from resmem_service.memory.segments.sealed_segment import SealedSegment

from tests.faults.damage import copy_of

DIM, WIDTH, ROWS, CAPACITY = 16, 3, 1500, 1000
READERS, BATCH = 3, 64
"""A batch of so many queries is searched without the GIL: see kLockedNumbers in the kernel."""
SHAPE = MemoryShape(DIM, WIDTH, "regression")

_random = np.random.default_rng(0)
VECTORS = _random.normal(size=(ROWS + 40 * CAPACITY, DIM)).astype(np.float32)
VECTORS[::7] = VECTORS[0]  # equal rows: the table of copies is walked too
RESIDUALS = _random.uniform(-1, 1, size=(len(VECTORS), WIDTH)).astype(np.float32)
"""Of the memory with sequence s the row s - 1."""


def codes_of(rows: slice) -> NDArray[np.uint8]:
    return SHAPE.codec.bytes_of(SHAPE.codec.encode(RESIDUALS[rows]))


def built(folder: Path) -> Path:
    """The segment of the first rows."""
    rows = SegmentRows(
        VECTORS[:ROWS], RESIDUALS[:ROWS], RESIDUALS[:ROWS], np.arange(1, ROWS + 1),
        np.ones(ROWS, np.float32),
    )  # fmt: skip
    build_segment(folder, rows, GraphSettings(m=6, threads=1, ef=40), SHAPE)
    return folder


def new_growing() -> _kernel.GrowingSegment:
    return _kernel.GrowingSegment(CAPACITY, DIM, SHAPE.codec.native(WIDTH))


@dataclass
class Shared:
    """What the threads share: readers take `segments` as it is when they begin."""

    segments: list[_kernel.Segment]
    ended: threading.Event = field(default_factory=threading.Event)
    forgotten: set[int] = field(default_factory=set)
    """Sequences that no search that begins now may find; only ever grows."""
    batches: int = 0
    failures: list[BaseException] = field(default_factory=list)

    def run(self, act: Callable[["Shared", int], None], number: int) -> None:
        try:
            act(self, number)
        except BaseException as error:
            self.failures.append(error)
            self.ended.set()


def check(
    queries: NDArray[np.float32],
    found: tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]],
    forgotten: frozenset[int],
) -> None:
    """Each answer is what its neighbours make it, and none of them was forgotten before."""
    residuals, sequences, distances, weights = found
    for query, residual, neighbours, far, weight in zip(
        queries, residuals, sequences, distances, weights, strict=True
    ):
        used = neighbours != 0
        rows = neighbours[used] - 1
        assert len(set(rows.tolist())) == len(rows)
        assert not forgotten & set((rows + 1).tolist())
        exact = np.sqrt(((VECTORS[rows].astype(float) - query) ** 2).sum(axis=1))
        np.testing.assert_allclose(far[used], exact, rtol=1e-9)
        np.testing.assert_allclose(residual, weight[used] @ RESIDUALS[rows], atol=1e-5)


def read(shared: Shared, number: int) -> None:
    """Searches until all ends."""
    rng = np.random.default_rng(number)
    while not shared.ended.is_set():
        queries = rng.normal(size=(BATCH, DIM)).astype(np.float32)
        queries[0] = VECTORS[0]
        forgotten = frozenset(shared.forgotten)
        found = _kernel.correct(shared.segments, queries, WIDTH, 10, 60, 1.0, 0.1)
        check(queries, found, forgotten)
        for segment in shared.segments:
            if isinstance(segment, _kernel.SealedSegment):
                segment.finds(np.arange(0, segment.elements, 16, dtype=np.uint32), 20)
        shared.batches += 1


def write(shared: Shared, folder: Path, seconds: float) -> None:
    """Appends, forgets one or up to a sequence, and swaps sealed segments in, as a worker does."""
    rng = np.random.default_rng(99)
    deadline = monotonic() + seconds
    first = ROWS  # of the rows that are added
    growing = new_growing()
    at = first
    while monotonic() < deadline and not shared.ended.is_set() and at + CAPACITY < len(VECTORS):
        # Sealed: what was opened last goes, with its mappings, when its last reader has gone.
        sealed = SealedSegment.open(folder, SHAPE)
        sealed.native.forget_until(int(rng.integers(ROWS // 2)))
        for sequence in [s for s in shared.forgotten if s <= ROWS]:
            sealed.forget(sequence)
        growing = growing.copy_after(at - 30)
        shared.segments = [sealed.native, growing]
        while growing.rows < CAPACITY and monotonic() < deadline and not shared.ended.is_set():
            rows = slice(at, at + int(rng.integers(1, 25)))
            at += growing.append(
                VECTORS[rows], codes_of(rows), np.ones(rows.stop - rows.start, np.float32),
                np.arange(rows.start + 1, rows.stop + 1),
            )  # fmt: skip
            sequence = int(rng.integers(1, ROWS + 1))
            sealed.forget(sequence)
            shared.forgotten.add(sequence)
            row = int(rng.integers(growing.rows))
            sequence = growing.sequence(row)
            growing.forget(row)
            shared.forgotten.add(sequence)
            shared.ended.wait(5e-4)  # or all rows are there before anybody has searched
            if rng.random() < 0.05:
                growing.forget_until(growing.sequence(growing.rows // 4))
                growing.living()


def read_damaged(shared: Shared, number: int) -> None:
    """Searches segments whose files are damaged meanwhile, until it is told of each."""
    rng = np.random.default_rng(number)
    while not shared.ended.is_set():
        queries = rng.normal(size=(BATCH, DIM)).astype(np.float32)
        try:
            _kernel.correct(shared.segments, queries, WIDTH, 10, 60, 1.0, 0.1)
        except _kernel.CorruptGraph:
            shared.batches += 1


def damage(shared: Shared, folder: Path, seconds: float) -> None:
    """Cuts or overwrites a file after the other while it is searched."""
    rng = np.random.default_rng(7)
    names = [path.name for path in sorted(folder.iterdir()) if path.name != "segment.json"]
    deadline = monotonic() + seconds
    while monotonic() < deadline and not shared.ended.is_set():
        copy = copy_of(folder, "damaged")
        segment = SealedSegment.open(copy, SHAPE)
        shared.segments = [segment.native]
        before = shared.batches
        path = copy / str(rng.choice(names))
        size = path.stat().st_size
        if rng.random() < 0.5:
            os.truncate(path, int(rng.integers(size)))
        else:
            with path.open("r+b") as file:
                for _ in range(8):
                    file.seek(int(rng.integers(size)))
                    file.write(rng.bytes(int(rng.integers(1, 1 + size - file.tell()))))
                    file.flush()
        while shared.batches < before + READERS and not shared.ended.is_set():
            shared.ended.wait(0.001)
        try:
            segment.check()
        except CorruptFile:
            continue
        raise AssertionError(f"nobody was told that {path.name} was damaged")


def together(
    shared: Shared, reader: Callable[[Shared, int], None], writer: Callable[[Shared, int], None]
) -> None:
    threads = [threading.Thread(target=shared.run, args=(reader, n)) for n in range(READERS)]
    for thread in threads:
        thread.start()
    shared.run(writer, 0)
    while shared.batches <= READERS and not shared.ended.wait(0.01):
        pass  # on a machine that is busy with other things
    shared.ended.set()
    for thread in threads:
        thread.join()
    for failure in shared.failures:
        raise failure
    sys.stdout.write(f"{shared.batches} batches\n")
    sys.stdout.flush()


def main(folder: Path, seconds: float) -> None:
    sound = built(folder / "sound")
    together(Shared([]), read, lambda shared, _: write(shared, sound, seconds))
    first = SealedSegment.open(sound, SHAPE).native
    together(Shared([first]), read_damaged, lambda shared, _: damage(shared, sound, seconds))
    # Other mappings of the files are as good as before.
    queries = VECTORS[:BATCH]
    check(queries, _kernel.correct([first], queries, WIDTH, 10, 60, 1.0, 0.1), frozenset())
    sys.stdout.write("whole\n")


if __name__ == "__main__":
    sys.setswitchinterval(1e-4)
    main(Path(sys.argv[1]), float(sys.argv[2]))
