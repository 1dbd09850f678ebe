"""Handwritten digits as the clients of the kill tests memorize them: no two rows are alike."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from resmem_service.memory.journal.journal import Memories
from resmem_service.memory.rows import MemoryShape

from tests.faults.history import Lesson, State, is_nameless

SHAPE: Final = MemoryShape(dim=64, width=10, task="classification")
FITTED_ROWS: Final = 900
"""Memories of the bundle, in both kill tests."""


@dataclass(frozen=True)
class Digits:
    """Digits, from a file where a process is to start soon: scikit-learn takes a second to import.

    What a memory holds follows from its id and state, so that everybody can tell what it must be.
    """

    pixels: NDArray[np.float32]
    labels: NDArray[np.int32]

    def save(self, path: Path) -> None:
        np.savez(path, pixels=self.pixels, labels=self.labels)

    @classmethod
    def load(cls, path: Path) -> Self:
        with np.load(path) as arrays:
            return cls(arrays["pixels"], arrays["labels"])

    def row(self, id: str, state: State) -> NDArray[np.float32]:
        """A digit, shaken: no two memories lie at the same place."""
        seed = crc32(f"{_name(id, state)}/{state[0]}".encode())
        noise = np.random.default_rng(seed).normal(0, 0.5, 64)
        return np.asarray(self.pixels[self._place(id, state)] + noise, np.float32)

    def label(self, id: str, state: State) -> int:
        return int(self.labels[self._place(id, state)])

    def input(self, id: str, state: State) -> list[float]:
        """The row as the model of the tests takes it."""
        return [float(pixel) for pixel in self.row(id, state) / 16]

    def memories(self, lesson: Lesson) -> Memories:
        """A lesson as the memory takes it: the pixels are the embedding; weights tell versions."""
        rows = list(lesson.rows())
        labels = np.array([self.label(*row) for row in rows], np.int32)
        embeddings = np.stack([self.row(*row) for row in rows])
        return Memories(
            ids=[id or None for id, _ in rows],
            inputs=[embedding.tobytes() for embedding in embeddings],
            targets=labels,
            embeddings=embeddings,
            residuals=(np.eye(10)[labels] - 0.1).astype(np.float32),
            weights=np.array([float(version) for _, (version, _) in rows]),
            source=lesson.source,
        )

    def body(self, lesson: Lesson) -> dict[str, Any]:
        """A lesson as `POST /memorize` takes it."""
        rows = list(lesson.rows())
        body = {
            "inputs": [self.input(*row) for row in rows],
            "targets": [self.label(*row) for row in rows],
            "weights": [version for _, (version, _) in rows],
            "source": lesson.source,
        }
        return body if lesson.nameless else {**body, "ids": [id for id, _ in rows]}

    def _place(self, id: str, state: State) -> int:
        return crc32(_name(id, state).encode()) % len(self.pixels)


def _name(id: str, state: State) -> str:
    """Whoever gets its id from the server is known by its source and version."""
    version, source = state
    return f"{source}#{version}" if is_nameless(source) else id
