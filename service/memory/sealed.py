"""Sealed segments: immutable rows on disk, mapped and searched in place."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service import durable
from service.errors import CorruptFile
from service.memory import _kernel
from service.memory.segment_rows import MemoryShape

__all__ = ["ARRAYS", "SEGMENT_FORMAT", "SealedSegment"]

SEGMENT_FORMAT = 1
ARRAYS = ("residuals", "targets", "sequences", "weights")
"""Names of the `.npy` files beside `graph.hnsw`, one row a memory each."""


@dataclass(frozen=True, slots=True)
class _Description:
    """What `segment.json` says of the files beside it."""

    rows: int
    dim: int
    width: int
    residuals: str
    sizes: dict[str, int]
    checksums: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> "_Description":
        try:
            content = json.loads(path.read_bytes())
            if content["format"] != SEGMENT_FORMAT:
                raise CorruptFile(
                    f"{path}: format {content['format']} is not one this version reads"
                )
            files = content["files"]
            return cls(
                rows=int(content["rows"]),
                dim=int(content["dim"]),
                width=int(content["width"]),
                residuals=str(content["residuals"]),
                sizes={name: int(entry["bytes"]) for name, entry in files.items()},
                checksums={name: str(entry["sha256"]) for name, entry in files.items()},
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CorruptFile(f"{path} does not describe a segment: {error!r}") from error


class SealedSegment:
    """A mapped segment folder. Opening it reads headers and the table of upper links, no vector.

    Attributes:
        folder: where it lies.
        native: the kernel's view, to pass to `_kernel.correct`.
        weights: float32 `[n]`, the importance of each row.
        nbytes: size of all files.
    """

    def __init__(
        self,
        folder: Path,
        native: _kernel.SealedSegment,
        weights: NDArray[np.float32],
        nbytes: int,
    ) -> None:
        self.folder = folder
        self.native = native
        self.weights = weights
        self.nbytes = nbytes

    @classmethod
    def open(cls, folder: Path, shape: MemoryShape) -> "SealedSegment":
        """Maps the segment in `folder` after checks of sizes, headers and shapes.

        Raises:
            CorruptFile: a file is missing its place, its size or its shape; the message names it.
            FileNotFoundError: the folder has no `segment.json` (or is gone).
        """
        description = _Description.read(folder / "segment.json")
        theirs = (description.dim, description.width, description.residuals)
        ours = (shape.dim, shape.width, shape.codec.name)
        if theirs != ours:
            raise CorruptFile(
                f"{folder / 'segment.json'}: embeddings and residuals of {_sizes(*theirs)}, "
                f"where the model gives {_sizes(*ours)}"
            )
        for name, size in description.sizes.items():
            path = folder / name
            if not path.is_file():
                raise CorruptFile(f"{path} is missing")
            if path.stat().st_size != size:
                raise CorruptFile(f"{path} has {path.stat().st_size} bytes instead of {size}")
        rows = description.rows
        dtype, columns = shape.codec.stored_shape(shape.width)
        codes = _map_array(folder / "residuals.npy", dtype, (rows, columns))
        weights = _map_array(folder / "weights.npy", np.float32, (rows,))
        sequences = _map_array(folder / "sequences.npy", np.int64, (rows,))
        graph_path = folder / "graph.hnsw"
        try:
            native = _kernel.SealedSegment(
                graph=np.memmap(graph_path, np.uint8, mode="r"),
                codes=shape.codec.bytes_of(codes),
                weights=weights,
                sequences=sequences,
                dim=shape.dim,
                codec=shape.codec.native(shape.width),
                name=str(graph_path),
            )
        except _kernel.CorruptGraph as error:
            raise CorruptFile(str(error)) from error
        return cls(folder, native, weights, sum(description.sizes.values()))

    @property
    def rows(self) -> int:
        """Rows in the files, forgotten ones included."""
        return self.native.rows

    @property
    def living_rows(self) -> int:
        """Rows that were not forgotten."""
        return self.native.rows - self.native.dead_rows

    @cached_property
    def targets(self) -> NDArray[Any]:
        """Mapped targets: int32 `[n]` for classification, float32 `[n, L]` for regression."""
        path = self.folder / "targets.npy"
        targets = _load(path)
        if len(targets) != self.rows:
            raise CorruptFile(f"{path} holds {len(targets)} rows instead of {self.rows}")
        return targets

    def forget(self, sequence: int) -> bool:
        """Skips a memory from now on; True where it was here and lived."""
        row = self.native.find(sequence)
        return row >= 0 and self.native.forget(row)

    def warm(self) -> None:
        """Reads every file through once, so that the first queries find them in the page cache."""
        for name in ("graph.hnsw", *(f"{array}.npy" for array in ARRAYS)):
            with (self.folder / name).open("rb", buffering=0) as file:
                while file.read(1 << 20):
                    pass

    def verify(self) -> None:
        """Compares every file with its SHA-256.

        Raises:
            CorruptFile: one differs; the message names it.
        """
        for name, expected in _Description.read(self.folder / "segment.json").checksums.items():
            if durable.sha256_of(self.folder / name) != expected:
                raise CorruptFile(f"{self.folder / name} differs from its checksum")


def _sizes(dim: int, width: int, residuals: str) -> str:
    return f"{dim} and {width} numbers ({residuals})"


def _load(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise CorruptFile(f"{path} is not an array file: {error}") from error
    return array


def _map_array(path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> NDArray[Any]:
    array = _load(path)
    if array.dtype != dtype or array.shape != shape:
        raise CorruptFile(
            f"{path} holds {array.dtype} {list(array.shape)}"
            f" instead of {np.dtype(dtype)} {list(shape)}"
        )
    return array
