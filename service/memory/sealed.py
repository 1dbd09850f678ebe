"""Sealed segments: immutable rows on disk, mapped and searched in place."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service import durable
from service.errors import CorruptFile
from service.memory import _kernel
from service.memory.segment_rows import MemoryShape
from service.memory.sketches import SKETCH_ARRAYS

__all__ = ["ARRAYS", "SEGMENT_FORMAT", "SealedSegment"]

SEGMENT_FORMAT = 1
ARRAYS = ("residuals", "targets", "sequences", "weights")
"""Names of the `.npy` files beside `graph.hnsw`, one row a memory each."""

_FILES = ("graph.hnsw", *(f"{name}.npy" for name in ARRAYS))
_SKETCH_FILES = tuple(f"{name}.npy" for name in SKETCH_ARRAYS)


@dataclass(frozen=True, slots=True)
class _Description:
    """What `segment.json` says of the files beside it."""

    rows: int
    dim: int
    width: int
    residuals: str
    sizes: dict[str, int]
    checksums: dict[str, str]

    @property
    def sketched(self) -> bool:
        """Whether the segment has sketches: not where they would be too coarse, or from of old."""
        return _SKETCH_FILES[0] in self.sizes

    @classmethod
    def read(cls, path: Path) -> "_Description":
        try:
            content = json.loads(path.read_bytes())
            if content["format"] != SEGMENT_FORMAT:
                raise CorruptFile(
                    f"{path}: format {content['format']} is not one this version reads"
                )
            files = content["files"]
            if set(files) not in ({*_FILES}, {*_FILES, *_SKETCH_FILES}):
                raise CorruptFile(f"{path} names other files than a segment has")
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
        targets: int32 `[n]` for classification, float32 `[n, L]` for regression, mapped.
        weights: float32 `[n]`, the importance of each row, mapped.
        nbytes: size of all files.
    """

    def __init__(
        self,
        folder: Path,
        native: _kernel.SealedSegment,
        targets: NDArray[Any],
        weights: NDArray[np.float32],
        nbytes: int,
    ) -> None:
        self.folder = folder
        self.native = native
        self.targets = targets
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
        graph = np.memmap(graph_path, np.uint8, mode="r")
        targets = _load(folder / "targets.npy")
        if len(targets) != rows:
            raise CorruptFile(f"{folder / 'targets.npy'} holds {len(targets)} rows, not {rows}")
        arrays = {
            "graph.hnsw": graph,
            "residuals.npy": codes,
            "targets.npy": targets,
            "sequences.npy": sequences,
            "weights.npy": weights,
        }
        if description.sketched:
            arrays.update(_map_sketches(folder))
        # A file that is cut while it is mapped, or a disk that fails, must not end the process.
        mappings = [
            _kernel.Mapping(array, str(folder / name), description.sizes[name])
            for name, array in arrays.items()
        ]
        try:
            native = _kernel.SealedSegment(
                graph=graph,
                codes=shape.codec.bytes_of(codes),
                weights=weights,
                sequences=sequences,
                dim=shape.dim,
                codec=shape.codec.native(shape.width),
                name=str(graph_path),
                sketches=_kernel.Sketches(*(arrays[name] for name in _SKETCH_FILES))
                if description.sketched
                else None,
                mappings=mappings,
            )
            native.check()
        except _kernel.CorruptGraph as error:
            raise CorruptFile(str(error)) from error
        return cls(folder, native, targets, weights, sum(description.sizes.values()))

    @property
    def rows(self) -> int:
        """Rows in the files, forgotten ones included."""
        return self.native.rows

    @property
    def living_rows(self) -> int:
        """Rows that were not forgotten."""
        return self.native.rows - self.native.dead_rows

    def forget(self, sequence: int) -> bool:
        """Skips a memory from now on; True where it was here and lived."""
        row = self.native.find(sequence)
        return row >= 0 and self.native.forget(row)

    def check(self) -> None:
        """For after reading `targets` or `weights`: whether what was read is worth anything.

        Raises:
            CorruptFile: a file was cut, or could not be read; the message names it.
        """
        try:
            self.native.check()
        except _kernel.CorruptGraph as error:
            raise CorruptFile(str(error)) from error

    def verify(self) -> None:
        """Reads every file through and compares it with its SHA-256.

        Raises:
            CorruptFile: one differs; the message names it.
        """
        for name, expected in _Description.read(self.folder / "segment.json").checksums.items():
            if durable.sha256_of(self.folder / name) != expected:
                raise CorruptFile(f"{self.folder / name} differs from its checksum")


def _map_sketches(folder: Path) -> dict[str, NDArray[Any]]:
    """Their widths are the kernel's to check, which knows the graph."""
    arrays = {name: _load(folder / name) for name in _SKETCH_FILES}
    for name, dtype in zip(_SKETCH_FILES, (np.uint32, np.int8, np.float32), strict=True):
        array = arrays[name]
        if array.dtype != dtype or array.ndim != 2 or not array.flags.c_contiguous:
            raise CorruptFile(f"{folder / name} holds {array.dtype} {list(array.shape)}")
    return arrays


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
