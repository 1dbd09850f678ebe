"""`resmem import` killed half-way: the same command goes on, and ends as if nothing had been."""

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from resmem_service.cli import main
from resmem_service.errors import JournalUnavailable
from resmem_service.memory.journal.sqlite.eviction import count_memories
from resmem_service.memory.segments.folders import StateFolders

from tests.conftest import FittedModel
from tests.end_to_end.server import Server

ROWS = 3000
BLOCK = 50
KILLS = 3


@pytest.fixture(scope="module")
def lines(digits: FittedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Memories with ids and without, of several sources; of some ids there are two versions."""
    file = tmp_path_factory.mktemp("lines") / "in.jsonl"
    noise = np.random.default_rng(0)
    with file.open("w") as out:
        for number in range(ROWS):
            place = number % len(digits.inputs)
            row = digits.inputs[place] + noise.normal(0, 0.01, 64)
            line = {"inputs": row.tolist(), "target": int(digits.targets[place])}
            line["source"] = f"source-{number // BLOCK % 7}"
            if number % 3:
                line["id"] = f"row-{number % (ROWS - 200)}"
            out.write(json.dumps(line) + "\n")
    return file


def options(digits: FittedModel, states: Path) -> list[str]:
    return ["--store", str(digits.store), "--state-dir", str(states)]


def exported(digits: FittedModel, states: Path, to: Path) -> dict[str, dict[str, object]]:
    """By id, and without the times, which differ."""
    assert main(["export", *options(digits, states), "--vectors", "--to", str(to)]) == 0
    memories = map(json.loads, to.read_text().splitlines())
    return {memory.pop("id"): {**memory, "created_ms": 0} for memory in memories}


def kill_at(rows: int, digits: FittedModel, states: Path, lines: Path) -> None:
    """Imports until there are so many memories."""
    command = [
        sys.executable,
        "-m",
        "resmem_service",
        "import",
        *options(digits, states),
        str(lines),
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while imported(states) < rows:
            assert process.poll() is None, "it has ended before it could be killed"
        process.kill()


def imported(states: Path) -> int:
    try:
        return count_memories(StateFolders(states / "digits/1").journal)
    except JournalUnavailable:  # it is being made
        return 0


def test_gone_on_with(digits: FittedModel, tmp_path: Path, lines: Path) -> None:
    assert main(["import", *options(digits, tmp_path / "whole"), str(lines)]) == 0
    whole = exported(digits, tmp_path / "whole", tmp_path / "whole.jsonl")
    states = tmp_path / "states"
    for rows in sorted(random.sample(range(1, len(whole) - 1024), KILLS)):
        kill_at(rows, digits, states, lines)
    assert 0 < imported(states) < len(whole)
    assert main(["import", *options(digits, states), str(lines)]) == 0
    assert exported(digits, states, tmp_path / "again.jsonl") == whole
    assert main(["verify", *options(digits, states)]) == 0
    with Server(digits.store, states) as server:
        assert server.client.get("/model").json()["memory"]["size"] == 900 + len(whole)
