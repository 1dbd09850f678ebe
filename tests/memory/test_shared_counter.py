"""The number that processes count up together."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from resmem_service.memory.search._kernel import SharedCounter

ADD = """
import sys
from resmem_service.memory.search._kernel import SharedCounter
counter = SharedCounter(sys.argv[1])
for _ in range(50_000):
    counter.add()
"""


def test_nothing_is_lost_when_processes_count_at_once(tmp_path: Path) -> None:
    path = str(tmp_path / "counter")
    counter = SharedCounter(path)
    others = [subprocess.Popen([sys.executable, "-c", ADD, path]) for _ in range(3)]
    assert [other.wait(60) for other in others] == [0, 0, 0]
    assert counter.value == 150_000
    assert not counter.damaged
    assert SharedCounter(path).value == 150_000


def test_a_file_that_is_cut_is_noticed_and_kills_nobody(tmp_path: Path) -> None:
    path = tmp_path / "counter"
    counter = SharedCounter(str(path))
    counter.add()
    os.truncate(path, 0)
    assert counter.value == 0
    assert counter.damaged
    counter.add()
    assert counter.damaged


def test_a_write_to_a_file_that_is_cut_kills_nobody(tmp_path: Path) -> None:
    path = tmp_path / "counter"
    counter = SharedCounter(str(path))
    os.truncate(path, 0)
    counter.add()
    assert counter.damaged


@pytest.mark.parametrize("name", ["missing/counter", "."])
def test_a_file_that_cannot_be_made(tmp_path: Path, name: str) -> None:
    with pytest.raises(OSError, match=str(tmp_path)):
        SharedCounter(str(tmp_path / name))
