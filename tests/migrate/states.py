"""States taught by a bundle's own base model, and what stands in a journal."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from resmem_service.bundle.store import Bundle
from resmem_service.inference.base_model import BaseModel
from resmem_service.inference.residuals import base_prediction, residuals
from resmem_service.inference.rows import Rows
from resmem_service.memory.journal.journal import Memories
from resmem_service.memory.journal.sqlite.journal import SqliteJournal
from resmem_service.memory.memory import ResidualMemory
from resmem_service.memory.segments.folders import StateFolders

Stored = tuple[str, int, str | None, float, int | None, object, bytes, bytes, bytes]


def opened(bundle: Bundle, states: Path) -> ResidualMemory:
    manifest = bundle.manifest
    return ResidualMemory.open(
        states / manifest.name / manifest.version,
        fitted=bundle.memories_path,
        shape=manifest.memory_shape(),
    )


def scores(bundle: Bundle, memory: ResidualMemory, rows: Rows) -> NDArray[np.float32]:
    """What the service would answer, `[n, L]`."""
    manifest = bundle.manifest
    output = BaseModel(bundle.model_path, inputs=manifest.inputs).run(rows)
    base = base_prediction(output.logits, manifest.task, manifest.parameters.temperature)
    correction = memory.correct(output.embeddings, manifest.parameters.rule())
    return np.asarray(base + correction.residuals, np.float32)


def teach(
    bundle: Bundle,
    states: Path,
    inputs: NDArray[Any],
    targets: NDArray[Any],
    *,
    ids: Sequence[str],
    source: str | None = None,
    weight: float = 1.0,
) -> None:
    """As `/memorize` does."""
    manifest = bundle.manifest
    rows = Rows({manifest.inputs[0].name: inputs})
    output = BaseModel(bundle.model_path, inputs=manifest.inputs).run(rows)
    base = base_prediction(output.logits, manifest.task, manifest.parameters.temperature)
    memory = opened(bundle, states)
    memory.append(
        Memories(
            ids=list(ids),
            inputs=rows.encode(),
            targets=targets,
            embeddings=output.embeddings,
            residuals=residuals(base, targets, manifest.task),
            weights=np.full(len(inputs), weight),
            source=source,
        )
    ).result()
    memory.close()


def stored(bundle: Bundle, states: Path) -> list[Stored]:
    """Every memory of a state, bit for bit."""
    manifest = bundle.manifest
    folders = StateFolders(states / manifest.name / manifest.version)
    with closing(SqliteJournal(folders.journal, manifest.memory_shape())) as journal:
        return [
            (
                memory.record.id,
                memory.record.sequence,
                memory.record.source,
                memory.record.weight,
                memory.record.created_ms,
                memory.record.target,
                memory.input,
                memory.embedding.tobytes(),
                memory.residual.tobytes(),
            )
            for memory in journal.stored(0, 100_000)
        ]
