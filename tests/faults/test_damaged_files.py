"""Damage on the disk is found before it is served, and the message names the file.

A bundle or a journal is refused, for there is nothing in its place; a sealed segment is left for
the rows of the journal, which answer the same.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from resmem_service.errors import CorruptFile, JournalUnavailable
from resmem_service.memory.memory import ResidualMemory
from resmem_service.memory.options import MemoryOptions
from resmem_service.memory.search.soft_knn import Correction, SoftKnn
from resmem_service.memory.segments.sealed_segment import ARRAYS
from resmem_service.memory.segments.sketches import SKETCH_ARRAYS

from tests.faults.damage import flip
from tests.memory.examples import PIXELS, SHAPE, SMALL, fitted_folder, memories
from tests.memory.segments.test_sealer import wait_until

QUERIES = PIXELS[::10]
RULE = SoftKnn(k=10, sigma=10.0, ef=400)
FILES = ["graph.hnsw", *(f"{array}.npy" for array in (*ARRAYS, *SKETCH_ARRAYS))]
FLIPS = 12
SIZE = 500 - 1 + 180 - 2
"""Memories that vote."""
JOURNAL_FLIPS = int(os.environ.get("RESMEM_FLIPS", "40"))


@contextmanager
def opened(state: Path) -> Iterator[ResidualMemory]:
    """As a server opens it: read through before the first correction."""
    options = MemoryOptions(growing_bytes=1, maintain=False)
    fitted = state.with_name("memories")
    memory = ResidualMemory.open(state, fitted=fitted, shape=SHAPE, options=options)
    try:
        memory.warm()
        yield memory
    finally:
        memory.close()


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle's memories and a state of all kinds: sealed, growing, forgotten."""
    folder = tmp_path_factory.mktemp("whole")
    fitted = fitted_folder(folder)
    memory = ResidualMemory.open(folder / "state", fitted=fitted, shape=SHAPE, options=SMALL)
    ids = [f"taught-{row}" for row in range(500, 680)]
    memory.append(memories(range(500, 680), ids=ids, source="people")).result(10)
    wait_until(lambda: memory.statistics().growing_rows < 64)
    for id in ("taught-510", "taught-679", "fit-3"):
        assert memory.forget(id)
    memory.close()
    return folder / "state"


@pytest.fixture
def damaged(state: Path, tmp_path: Path) -> Path:
    """A copy of it, to damage."""
    return Path(shutil.copytree(state.parent, tmp_path / "copy")) / "state"


@pytest.fixture(scope="module")
def expected(state: Path) -> Correction:
    with opened(state) as memory:
        return memory.correct(QUERIES, RULE)


def segment_of(state: Path, part: str) -> Path:
    return state.with_name("memories") if part == "memories" else next(state.glob("segments/*"))


def check_damage(
    damaged: Path, part: str, name: str, expected: Correction, caplog: pytest.LogCaptureFixture
) -> None:
    """A bundle's is refused; in the place of a sealed segment the journal answers, exactly."""
    if part == "memories":
        with pytest.raises(CorruptFile, match=name), opened(damaged):
            pass
        return
    caplog.clear()
    with opened(damaged) as memory:
        check(memory, expected)
        assert [fault.reason for fault in memory.faults()] == ["segment_unusable"]
    assert caplog.text.count(f"/{name}") == 1


@pytest.mark.parametrize("part", ["memories", "segments"])
@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_in_a_segment(
    damaged: Path, expected: Correction, part: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = segment_of(damaged, part) / name
    chance, size = random.Random(name), path.stat().st_size
    for at in (0, size - 1, *(chance.randrange(size) for _ in range(FLIPS))):
        flip(path, at, bit=at % 8)
        check_damage(damaged, part, name, expected, caplog)
        flip(path, at, bit=at % 8)
    with opened(damaged) as memory:
        assert memory.faults() == []


@pytest.mark.parametrize("part", ["memories", "segments"])
def test_a_flipped_bit_in_a_description(damaged: Path, expected: Correction, part: str) -> None:
    """All that it says is said a second time by the files; what nobody asks for does no harm."""
    path = segment_of(damaged, part) / "segment.json"
    for at in range(0, path.stat().st_size, 11):
        flip(path, at, bit=at % 7)
        try:
            with opened(damaged) as memory:
                check(memory, expected)
        except CorruptFile as error:
            complaint = str(error)
            assert str(path.parent) in complaint
        flip(path, at, bit=at % 7)


@pytest.mark.parametrize("part", ["memories", "segments"])
@pytest.mark.parametrize("name", [*FILES, "segment.json"])
def test_a_cut_file_of_a_segment(
    damaged: Path, expected: Correction, part: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = segment_of(damaged, part) / name
    whole = path.read_bytes()
    for kept in (0, 1, 95, 128, len(whole) // 2, len(whole) - 2):
        path.write_bytes(whole[:kept])
        check_damage(damaged, part, name, expected, caplog)


@pytest.mark.timeout(120 + 2 * JOURNAL_FLIPS)
def test_flipped_bits_in_the_journal(damaged: Path, expected: Correction) -> None:
    """Found, or of no consequence for any prediction, wherever they are.

    Beyond them `resmem verify` looks at what no prediction reads. `RESMEM_FLIPS=1000` for more.
    """
    path = damaged / "journal.sqlite3"
    chance, size = random.Random(7), path.stat().st_size
    places = [*range(0, 120, 8)]
    places += [start + at for start in range(0, size, 4096) for at in (1, 4090)]
    places += [chance.randrange(size) for _ in range(JOURNAL_FLIPS)]
    found = 0
    for at in places:
        flip(path, at, bit=at % 8)
        try:
            with opened(damaged) as memory:
                if skipped := memory.statistics().unreadable_rows:
                    # The others answer: what is left out is said, and is one row or a page of them.
                    assert memory.size == SIZE - skipped
                    found += 1
                else:
                    check(memory, expected)
        except (CorruptFile, JournalUnavailable) as error:
            complaint = str(error)
            assert "journal.sqlite3" in complaint or "segments" in complaint
            found += 1
        flip(path, at, bit=at % 8)
    assert found > len(places) // 10


def check(memory: ResidualMemory, expected: Correction) -> None:
    found = memory.correct(QUERIES, RULE)
    np.testing.assert_array_equal(found.sequences, expected.sequences)
    np.testing.assert_array_equal(found.residuals, expected.residuals)


def test_files_damaged_while_they_are_mapped(tmp_path: Path) -> None:
    """Refused, cut or written to, and the process lives; what else raises SIGBUS still ends it."""
    folder = fitted_folder(tmp_path)
    ended = subprocess.run(
        [sys.executable, "-m", "tests.faults.cut_while_mapped", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stdout == "all refused\n", ended.stderr
    assert ended.returncode == -signal.SIGBUS
