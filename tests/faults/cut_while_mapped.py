"""Damages the files of a mapped segment in all ways that there are, and reads on.

    python -m tests.faults.cut_while_mapped FOLDER

A process of its own: where the promise is broken, it dies of SIGBUS.
"""

import mmap
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from resmem_service.errors import CorruptFile
from resmem_service.memory.memory import ResidualMemory
from resmem_service.memory.search.soft_knn import SoftKnn
from resmem_service.memory.segments.sealed_segment import ARRAYS
from resmem_service.memory.segments.sketches import SKETCH_ARRAYS

from tests.faults.damage import copy_of, flip
from tests.memory.examples import PIXELS, SHAPE

RULE = SoftKnn(k=10, sigma=10.0, ef=200)


def damage(folder: Path, name: str, act: Callable[[Path], object]) -> None:
    copy = copy_of(folder, "damaged")
    memory = ResidualMemory.open(None, fitted=copy, shape=SHAPE)
    before = memory.correct(PIXELS[:50], RULE)
    assert memory.records.describe([-1])
    act(copy / name)
    for _ in range(2):
        with pytest.raises(CorruptFile, match=name):
            memory.correct(PIXELS[:50], RULE)
        with pytest.raises(CorruptFile, match=name):
            memory.records.describe([-1])
    # Another mapping of the same file is as good as before.
    whole = ResidualMemory.open(None, fitted=folder, shape=SHAPE)
    assert (whole.correct(PIXELS[:50], RULE).residuals == before.residuals).all()


def touch(folder: Path, name: str, act: Callable[[Path], object]) -> None:
    """What holds the same bytes as before is read on, though the time of writing has changed."""
    copy = copy_of(folder, "touched")
    memory = ResidualMemory.open(None, fitted=copy, shape=SHAPE)
    before = memory.correct(PIXELS[:50], RULE)
    act(copy / name)
    for _ in range(2):
        assert (memory.correct(PIXELS[:50], RULE).residuals == before.residuals).all()
        assert memory.records.describe([-1])
        assert memory.faults() == []
    flip(copy / name, at=(copy / name).stat().st_size // 2)
    with pytest.raises(CorruptFile, match=name):
        memory.correct(PIXELS[:50], RULE)
    assert [fault.fatal for fault in memory.faults()] == [True]


def cut(path: Path, kept: int) -> None:
    os.truncate(path, kept)


def main(folder: Path) -> None:
    for name in ("graph.hnsw", *(f"{array}.npy" for array in (*ARRAYS, *SKETCH_ARRAYS))):
        size = (folder / name).stat().st_size
        for kept in (0, 1, 100, 4096, size // 2, size - 4096, size - 1):
            if 0 <= kept < size:
                damage(folder, name, partial(cut, kept=kept))
        damage(folder, name, partial(cut, kept=size + 1))
        damage(folder, name, partial(flip, at=size // 2))
        touch(folder, name, lambda path: os.utime(path))
        touch(folder, name, lambda path: os.utime(path, (0, 0)))
        # As `cp` does it: cut, and written again.
        touch(folder, name, lambda path: path.write_bytes(path.read_bytes()))
    sys.stdout.write("all refused\n")
    sys.stdout.flush()


def read_what_nobody_guards(path: Path) -> None:
    """Ends the process, as it should: only our own mappings are guarded."""
    with path.open("r+b") as file:
        mapped = mmap.mmap(file.fileno(), 0)
        file.truncate(0)
        sys.stdout.write(f"read {mapped[0]}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    read_what_nobody_guards(Path(sys.argv[1]) / "graph.hnsw")
