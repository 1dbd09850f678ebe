import json
from pathlib import Path

import numpy as np
from resmem_service.memory.journal.sqlite.journal import SqliteJournal
from resmem_service.memory.search import _kernel
from resmem_service.memory.segments.build_process import BuildTask, run
from resmem_service.memory.segments.graph_settings import GraphSettings
from resmem_service.memory.segments.sealed_segment import SealedSegment

from tests.memory.examples import LABELS, PIXELS, SHAPE, memories


def task(folder: Path, name: str, first: int, last: int, base: str | None = None) -> BuildTask:
    return BuildTask(
        journal=str(folder / "journal.sqlite3"),
        first=first,
        last=last,
        base=None if base is None else str(folder / base),
        folder=str(folder / name),
        shape=SHAPE,
        graph=GraphSettings(threads=1),
    )


def test_a_task_survives_the_command_line(tmp_path: Path) -> None:
    whole = task(tmp_path, "one", 1, 2, "base")
    assert BuildTask.load(whole.dump()) == whole
    assert json.loads(whole.dump())["shape"]["dim"] == 64


def test_a_carried_on_graph_answers_like_one_built_at_once(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "journal.sqlite3", SHAPE)
    journal.append([memories(range(900))])
    assert run(task(tmp_path, "base", 1, 600)).rows == 600
    assert run(task(tmp_path, "carried", 1, 900, "base")).rows == 900
    assert run(task(tmp_path, "whole", 1, 900)).rows == 900
    journal.close()
    found = []
    for name in ("carried", "whole"):
        segment = SealedSegment.open(tmp_path / name, SHAPE)
        segment.verify()
        assert np.array_equal(segment.targets, LABELS[:900])
        _, sequences, _, _ = _kernel.correct(
            [segment.native], PIXELS[1000:1100], 10, 10, 200, 1.0, 0.0
        )
        found.append(sequences)
    assert np.mean([np.isin(a, b).mean() for a, b in zip(*found, strict=True)]) > 0.99


def test_rows_forgotten_before_the_build_are_left_out(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "journal.sqlite3", SHAPE)
    journal.append([memories(range(10), source="bad"), memories(range(10, 15))])
    journal.forget_source("bad")
    assert run(task(tmp_path, "one", 1, 15)).rows == 5
    assert run(task(tmp_path, "none", 1, 10)).rows == 0
    assert not (tmp_path / "none").exists()
    journal.close()
