"""Handwritten digits as memories: the pixels are the embedding, the base is a uniform guess."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import numpy as np
from resmem_service.memory.journal.journal import Memories
from resmem_service.memory.options import MemoryOptions
from resmem_service.memory.rows import MemoryShape, SegmentRows
from resmem_service.memory.search.soft_knn import SoftKnn
from resmem_service.memory.segments.build import build_segment
from resmem_service.memory.segments.graph_settings import GraphSettings
from sklearn.datasets import load_digits

PIXELS = load_digits().data.astype(np.float32)
LABELS = load_digits().target.astype(np.int32)
RESIDUALS = (np.eye(10)[LABELS] - 0.1).astype(np.float32)

SHAPE = MemoryShape(dim=64, width=10, task="classification")
RULE = SoftKnn(k=5, sigma=10.0)
SMALL = MemoryOptions(growing_bytes=1, busy_ms=50)
"""Growing segments of 64 rows, the fewest there are."""


def memories(
    rows: Sequence[int] | range,
    *,
    ids: Sequence[str | None] | None = None,
    source: str | None = None,
    weight: float = 1.0,
) -> Memories:
    index = list(rows)
    return Memories(
        ids=list(ids) if ids is not None else [None] * len(index),
        inputs=[PIXELS[row].tobytes() for row in index],
        targets=LABELS[index],
        embeddings=PIXELS[index],
        residuals=RESIDUALS[index],
        weights=np.full(len(index), weight),
        source=source,
    )


def execute(path: Path, statement: str) -> list[tuple[Any, ...]]:
    """Runs SQL on a journal behind the back of whoever has it open; the rows of its answer."""
    with closing(apsw.Connection(str(path))) as connection:
        return connection.execute(statement).fetchall()


def fitted_folder(parent: Path, rows: int = 500) -> Path:
    folder = parent / "memories"
    build_segment(
        folder,
        SegmentRows(
            embeddings=PIXELS[:rows],
            residuals=RESIDUALS[:rows],
            targets=LABELS[:rows],
            sequences=-1 - np.arange(rows),
            weights=np.ones(rows, np.float32),
        ),
        GraphSettings(threads=1),
        SHAPE,
    )
    return folder
