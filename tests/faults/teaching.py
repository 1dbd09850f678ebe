"""What the clients of the kill test memorize, and the record of what they were told.

A client owns its ids and sources and does one thing at a time. It says what it is about to do, does
it, and says that it was acknowledged: so after a kill every id is in a state that is known, but for
the one request of each client that was under way, of which all must have happened or nothing.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, Literal, Self
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from service.memory import fitted
from service.memory.journal import Memories
from service.memory.segment_rows import MemoryShape

SHAPE: Final = MemoryShape(dim=64, width=10, task="classification")
State = tuple[int, str]
"""Version and source of a memory."""
FITTED_ROWS: Final = 900
FITTED: Final[State] = (1, fitted.SOURCE)
"""A memory of the bundle that nobody has forgotten or replaced."""

Kind = Literal["begin", "done", "refused", "ready", "sealed", "compacted"]


@dataclass(frozen=True)
class Digits:
    """Handwritten digits to memorize, from a file: scikit-learn takes a second to import."""

    pixels: NDArray[np.float32]
    labels: NDArray[np.int32]

    def save(self, path: Path) -> None:
        np.savez(path, pixels=self.pixels, labels=self.labels)

    @classmethod
    def load(cls, path: Path) -> Self:
        with np.load(path) as arrays:
            return cls(arrays["pixels"], arrays["labels"])

    def embedding(self, id: str, version: int) -> NDArray[np.float32]:
        """A digit, shaken: no two memories lie at the same place."""
        noise = np.random.default_rng(crc32(f"{id}/{version}".encode())).normal(0, 0.5, 64)
        return np.asarray(self.pixels[self._row(id)] + noise, np.float32)

    def memories(self, versions: dict[str, int], source: str) -> Memories:
        """A request; its weights tell the versions."""
        labels = self.labels[[self._row(id) for id in versions]]
        return Memories(
            ids=list(versions),
            inputs=[f"{id}/{version}".encode() for id, version in versions.items()],
            targets=labels,
            embeddings=np.stack([self.embedding(*item) for item in versions.items()]),
            residuals=(np.eye(10)[labels] - 0.1).astype(np.float32),
            weights=np.array([float(version) for version in versions.values()]),
            source=source,
        )

    def _row(self, id: str) -> int:
        return crc32(id.encode()) % len(self.pixels)


@dataclass(frozen=True)
class Line:
    """One line of what a worker says."""

    kind: Kind
    client: str = ""
    append: dict[str, int] = field(default_factory=dict)
    """Versions by id."""
    source: str = ""
    forget: str = ""
    forget_source: str = ""

    def dump(self) -> bytes:
        return json.dumps({key: value for key, value in asdict(self).items() if value}).encode()

    @classmethod
    def load(cls, line: bytes) -> Self:
        return cls(**json.loads(line))


class History:
    """What every id must be, as far as the clients were told."""

    def __init__(self) -> None:
        self.states: dict[str, State] = dict.fromkeys(map(fitted.id_of, range(FITTED_ROWS)), FITTED)
        self.acknowledged = 0
        self._under_way: dict[str, dict[str, State | None]] = {}

    def take(self, line: Line) -> None:
        if line.kind == "begin":
            assert line.client not in self._under_way
            self._under_way[line.client] = self._changes(line)
        elif line.kind == "refused":
            del self._under_way[line.client]
        elif line.kind == "done":
            self._apply(self._under_way.pop(line.client))
            self.acknowledged += 1

    def settle(self, found: dict[str, State]) -> None:
        """Takes over what was found of the requests under way; the rest must be as it was told."""
        for client, wanted in self._under_way.items():
            changes = {id: new for id, new in wanted.items() if self.states.get(id) != new}
            happened = [found.get(id) == new for id, new in changes.items()]
            assert all(happened) or not any(happened), f"half a request of {client}: {changes}"
            if all(happened):
                self._apply(changes)
        self._under_way.clear()
        lost = {id: (s, found.get(id)) for id, s in self.states.items() if found.get(id) != s}
        assert not lost, f"acknowledged, and not so: {lost}"
        extra = {id: state for id, state in found.items() if id not in self.states}
        assert not extra, f"forgotten or never taught, and there: {extra}"

    def _changes(self, line: Line) -> dict[str, State | None]:
        if line.append:
            return {id: (version, line.source) for id, version in line.append.items()}
        if line.forget:
            return {line.forget: None}
        return {id: None for id, (_, source) in self.states.items() if source == line.forget_source}

    def _apply(self, changes: dict[str, State | None]) -> None:
        for id, state in changes.items():
            if state is None:
                self.states.pop(id, None)
            else:
                self.states[id] = state
