"""States of the digits bundle: handwritten digits, taught online, partly sealed, partly not."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from resmem_service.bundle.store import Bundle
from resmem_service.inference.base_model import BaseModel
from resmem_service.inference.residuals import base_prediction, residuals
from resmem_service.inference.rows import Rows
from resmem_service.memory.journal.journal import Memories, SegmentEntry
from resmem_service.memory.journal.sqlite.journal import SqliteJournal
from resmem_service.memory.observer import SilentMemoryObserver
from resmem_service.memory.segments.folders import StateFolders
from resmem_service.memory.segments.graph_settings import GraphSettings
from resmem_service.memory.segments.lock import try_lock
from resmem_service.memory.segments.policy import SegmentPlan
from resmem_service.memory.segments.segment_builder import SegmentBuilder

from tests.conftest import FittedModel

SEGMENTS = ((1, 60), (61, 110))
"""Sequences of the segments of `teach`."""
ROWS = 150


@dataclass(frozen=True)
class Taught:
    """A bundle, and a state of it: 148 memories, two segments, one memory forgotten in each."""

    model: FittedModel
    folders: StateFolders

    @property
    def bundle(self) -> Bundle:
        return self.model.bundle

    def options(self) -> list[str]:
        """What a command line needs to find it."""
        states = self.folders.root.parent.parent
        return ["--store", str(self.model.store), "--state-dir", str(states)]

    def segment(self, number: int) -> Path:
        return self.folders.segments / f"{number:08d}"

    def journal(self) -> SqliteJournal:
        shape = self.bundle.manifest.memory_shape()
        return SqliteJournal(self.folders.journal, shape, fitted_rows=900)


def digit_memories(
    model: FittedModel, rows: Sequence[int] | range, *, source: str | None = None
) -> Memories:
    """Rows that the bundle has never seen; `digit-N` is the id of row N."""
    index = list(rows)
    manifest = model.bundle.manifest
    inputs = Rows({manifest.inputs[0].name: model.inputs[index]})
    output = BaseModel(model.bundle.model_path, inputs=manifest.inputs, provider="cpu").run(inputs)
    targets = model.targets[index].astype(np.int32)
    base = base_prediction(output.logits, manifest.task, manifest.parameters.temperature)
    return Memories(
        ids=[f"digit-{row}" for row in index],
        inputs=inputs.encode(),
        targets=targets,
        embeddings=output.embeddings,
        residuals=residuals(base, targets, manifest.task),
        weights=np.full(len(index), 1.5),
        source=source,
        created_ms=[1_700_000_000_000 + row for row in index],
    )


def teach(model: FittedModel, states: Path) -> Taught:
    """A new state, `states/digits/1`, closed."""
    folders = StateFolders(states / "digits" / "1")
    folders.root.mkdir(parents=True)
    taught = Taught(model, folders)
    journal = taught.journal()
    journal.append(
        [
            digit_memories(model, range(100), source="desk"),
            digit_memories(model, range(100, ROWS)),
        ]
    )
    with try_lock(folders.lock) as lock:
        assert lock is not None
        builder = SegmentBuilder(
            folders,
            model.bundle.manifest.memory_shape(),
            GraphSettings(threads=1),
            journal,
            SilentMemoryObserver(),
        )
        catalogue: list[SegmentEntry] = []
        for first, last in SEGMENTS:
            catalogue.append(builder.carry_out(SegmentPlan(first, last, [], None), catalogue, lock))
    for id in ("digit-5", "digit-70", "fit-3"):
        assert journal.forget(id) == [1]
    journal.close()
    return taught


def flip(path: Path, at: int | float) -> None:
    """Turns one bit over, at a place or at a share of the file."""
    content = bytearray(path.read_bytes())
    place = int(at * len(content)) if isinstance(at, float) else at
    content[place] ^= 0x10
    path.write_bytes(content)


def listing(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, to see that nothing was written to it."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(("-shm", "-wal"))
    }
