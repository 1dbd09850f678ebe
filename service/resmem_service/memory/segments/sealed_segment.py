"""Sealed segments: immutable rows on disk, mapped and searched in place."""

import json
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resmem_service import durable
from resmem_service.array_file import map_array
from resmem_service.errors import CorruptFile
from resmem_service.memory.faults import is_shortage
from resmem_service.memory.rows import MemoryShape
from resmem_service.memory.search import _kernel
from resmem_service.memory.segments.copies import COPY_ARRAYS
from resmem_service.memory.segments.self_recall import SelfRecall
from resmem_service.memory.segments.sketches import SKETCH_ARRAYS

__all__ = ["ARRAYS", "ENTRIES", "SEGMENT_FORMAT", "SealedSegment", "native_segment"]

SEGMENT_FORMAT = 1
ARRAYS = ("residuals", "targets", "sequences", "weights")
"""Names of the `.npy` files beside `graph.hnsw`, one row a memory each."""

ENTRIES = "entries"
"""Name of the `.npy` file of the elements that walks begin at beside the graph's own entry point,
uint32 `[e]`, rising; a segment that needs none has no such file."""

_FILES = ("graph.hnsw", *(f"{name}.npy" for name in ARRAYS))
_SKETCH_FILES = tuple(f"{name}.npy" for name in SKETCH_ARRAYS)
_COPY_FILES = tuple(f"{name}.npy" for name in COPY_ARRAYS)
_ENTRIES_FILE = f"{ENTRIES}.npy"
_OPTIONAL = (_SKETCH_FILES, _COPY_FILES, (_ENTRIES_FILE,))
"""Files that a segment has together, or not at all."""
_FILE_SETS = [
    {*_FILES}.union(*chosen)
    for count in range(len(_OPTIONAL) + 1)
    for chosen in combinations(_OPTIONAL, count)
]


@dataclass(frozen=True, slots=True)
class _Description:
    """What `segment.json` says of the files beside it."""

    rows: int
    dim: int
    width: int
    residuals: str
    sizes: dict[str, int]
    checksums: dict[str, str]
    recall: float | None
    """None for a segment from before it was measured."""

    @classmethod
    def read(cls, path: Path) -> "_Description":
        if not stat.S_ISREG(path.stat().st_mode):
            # Reading a pipe would wait for ever.
            raise CorruptFile(f"{path} is no regular file")
        try:
            content = json.loads(path.read_bytes())
            if content["format"] != SEGMENT_FORMAT:
                raise CorruptFile(
                    f"{path}: format {content['format']} is not one this version reads"
                )
            files = content["files"]
            if set(files) not in _FILE_SETS:
                raise CorruptFile(f"{path} names other files than a segment has")
            return cls(
                rows=int(content["rows"]),
                dim=int(content["dim"]),
                width=int(content["width"]),
                residuals=str(content["residuals"]),
                sizes={name: int(entry["bytes"]) for name, entry in files.items()},
                checksums={name: str(entry["sha256"]) for name, entry in files.items()},
                recall=None if content.get("recall") is None else float(content["recall"]),
            )
        except (
            ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError,
        ) as error:  # fmt: skip
            raise CorruptFile(f"{path} does not describe a segment: {error!r}") from error


class SealedSegment:
    """A mapped segment folder. Opening it reads headers and the table of upper links, no vector.

    Attributes:
        folder: where it lies.
        native: the kernel's view, to pass to `_kernel.correct`.
        targets: int32 `[n]` for classification, float32 `[n, L]` for regression, mapped.
        weights: float32 `[n]`, the importance of each row, mapped.
        nbytes: size of all files.
        recall: share of its own rows that it found when it was built, or last asked for them; None
            for a segment from before that was measured, until it is.
        damage: why nothing of it can be believed any more; None while it can.
        verified: whether its files were compared with their checksums since it was opened.
        loss: what is gone from its folder, while the mapped files go on; None while all is there.
    """

    def __init__(
        self,
        folder: Path,
        native: _kernel.SealedSegment,
        targets: NDArray[Any],
        weights: NDArray[np.float32],
        mappings: Mapping[str, _kernel.Mapping],
        description: _Description,
    ) -> None:
        self.folder = folder
        self.native = native
        self.targets = targets
        self.weights = weights
        self.nbytes = sum(description.sizes.values())
        self.recall = description.recall
        self.damage: str | None = None
        self.loss: str | None = None
        self.verified = False
        self._mappings = mappings
        self._description = description

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
            found = path.stat().st_size
            if found != size:
                raise CorruptFile(f"{path} has {found} bytes instead of {size}")
        rows = description.rows
        dtype, columns = shape.codec.stored_shape(shape.width)
        codes = _map_array(folder / "residuals.npy", dtype, (rows, columns))
        weights = _map_array(folder / "weights.npy", np.float32, (rows,))
        sequences = _map_array(folder / "sequences.npy", np.int64, (rows,))
        graph_path = folder / "graph.hnsw"
        if description.sizes["graph.hnsw"] == 0:
            raise CorruptFile(f"{graph_path} is empty")
        graph = np.memmap(graph_path, np.uint8, mode="r")
        targets = map_array(folder / "targets.npy")
        if targets.shape[:1] != (rows,):
            raise CorruptFile(
                f"{folder / 'targets.npy'} holds an array {list(targets.shape)}, not {rows} rows"
            )
        arrays = {
            "graph.hnsw": graph,
            "residuals.npy": codes,
            "targets.npy": targets,
            "sequences.npy": sequences,
            "weights.npy": weights,
        }
        arrays |= _map_optional(folder, description.sizes)
        # A file that is cut while it is mapped, or a disk that fails, must not end the process.
        mappings = {
            name: _kernel.Mapping(array, str(folder / name), description.sizes[name])
            for name, array in arrays.items()
        }
        try:
            native = native_segment(folder, arrays, shape, list(mappings.values()))
            native.check()
        except _kernel.CorruptGraph as error:
            raise CorruptFile(str(error)) from error
        return cls(folder, native, targets, weights, mappings, description)

    @property
    def rows(self) -> int:
        """Rows in the files, forgotten ones included."""
        return self.native.rows

    @property
    def entries(self) -> NDArray[np.uint32]:
        """Elements of the graph that walks begin at beside its own entry point."""
        path = self.folder / _ENTRIES_FILE
        return map_array(path) if path.exists() else np.zeros(0, np.uint32)

    @property
    def living_rows(self) -> int:
        """Rows that were not forgotten."""
        return self.native.rows - self.native.dead_rows

    def forget(self, sequence: int) -> bool:
        """Skips a memory from now on; True where it was here and lived."""
        row = self.native.find(sequence)
        return row >= 0 and self.native.forget(row)

    def sound(self) -> bool:
        """Whether what was read of it until now can be believed; False for ever once it cannot.

        A file whose time of writing alone has changed is compared with its checksum once, which
        reads it through.
        """
        if self.damage is None:
            try:
                self.native.check()
            except _kernel.CorruptGraph as error:
                if self.native.damaged or not self._only_touched():
                    self.damage = str(error)
        return self.damage is None

    def check(self) -> None:
        """For after reading `targets` or `weights`: whether what was read is worth anything.

        Raises:
            CorruptFile: a file was cut, or could not be read; the message names it.
        """
        if not self.sound():
            raise CorruptFile(str(self.damage))

    def missing_name(self) -> str | None:
        """What in the folder is no longer what is mapped, named; None where all of it is.

        What is mapped can be read on when its name is gone, until the process ends.
        """
        description = self.folder / "segment.json"
        try:
            if _Description.read(description) != self._description:
                return f"{description} was replaced by another file"
        except CorruptFile as error:
            return str(error)
        except OSError as error:
            if not is_shortage(error):
                return f"{description}: {error.strerror}"
        for name, mapping in self._mappings.items():
            path = self.folder / name
            try:
                named = path.stat()
            except OSError as error:
                return f"{path}: {error.strerror}"
            mapped = os.fstat(mapping.descriptor)
            if (named.st_dev, named.st_ino) != (mapped.st_dev, mapped.st_ino):
                return f"{path} was replaced by another file"
        return None

    def measure_recall(self, ef: int) -> float:
        """Asks for a sample of its living rows; sets `recall`, and returns it.

        Raises:
            CorruptFile: a file was cut, or could not be read; the message names it.
        """
        try:
            self.recall = SelfRecall.of_sample(self.native, ef, seed=1).share
        except _kernel.CorruptGraph as error:
            self.damage = str(error)
            raise CorruptFile(self.damage) from error
        return self.recall

    def verify(self) -> None:
        """Reads every mapped file through and compares it with its SHA-256.

        It needs neither the names in the folder nor free descriptors: whoever merges the segment
        away, and whatever runs short meanwhile, a sound segment is not found damaged.

        Raises:
            CorruptFile: one differs or cannot be read; the message names it. The segment counts as
                damaged from now on.
        """
        for name, mapping in self._mappings.items():
            path = self.folder / name
            try:
                if durable.sha256_of_open(mapping.descriptor) != self._description.checksums[name]:
                    self.damage = f"{path} differs from its checksum"
            except OSError as error:
                self.damage = f"{path}: {error.strerror}"
            if self.damage is not None:
                raise CorruptFile(self.damage)
        self.verified = True

    def _only_touched(self) -> bool:
        """Trusts mapped files again that were written to and hold what they should all the same."""
        for name, mapping in self._mappings.items():
            if mapping.intact:
                continue
            written_ns = mapping.written_ns
            try:
                content = durable.sha256_of_open(mapping.descriptor)
            except OSError:
                return False
            if content != self._description.checksums[name]:
                return False
            mapping.trust(written_ns)
        return not self.native.damaged


def native_segment(
    folder: Path,
    arrays: Mapping[str, NDArray[Any]],
    shape: MemoryShape,
    mappings: Sequence[_kernel.Mapping] = (),
) -> _kernel.SealedSegment:
    """The kernel's view of the arrays of a segment, by the names of their files.

    Raises:
        CorruptGraph: they are not those of one segment; the message names the graph in `folder`.
    """
    sketches, copies = (
        [arrays[name] for name in names] if names[0] in arrays else None
        for names in (_SKETCH_FILES, _COPY_FILES)
    )
    return _kernel.SealedSegment(
        graph=arrays["graph.hnsw"],
        codes=shape.codec.bytes_of(arrays["residuals.npy"]),
        weights=arrays["weights.npy"],
        sequences=arrays["sequences.npy"],
        dim=shape.dim,
        codec=shape.codec.native(shape.width),
        name=str(folder / "graph.hnsw"),
        sketches=None if sketches is None else _kernel.Sketches(*sketches),
        copies=None if copies is None else _kernel.Copies(*copies),
        entries=arrays.get(_ENTRIES_FILE),
        mappings=mappings,
    )


def _map_optional(folder: Path, sizes: Mapping[str, int]) -> dict[str, NDArray[Any]]:
    """What a segment has of sketches, copies and entries.

    Their lengths are the kernel's to check, which knows the graph.
    """
    kinds: dict[str, tuple[type[np.generic], int]] = {
        **dict(zip(_SKETCH_FILES, ((np.uint32, 2), (np.int8, 2), (np.float32, 2)), strict=True)),
        **dict(zip(_COPY_FILES, ((np.uint32, 2), (np.uint32, 1)), strict=True)),
        _ENTRIES_FILE: (np.uint32, 1),
    }
    arrays = {name: map_array(folder / name) for name in kinds if name in sizes}
    for name, array in arrays.items():
        dtype, axes = kinds[name]
        if array.dtype != dtype or array.ndim != axes:
            raise CorruptFile(f"{folder / name} holds {array.dtype} {list(array.shape)}")
        _check_layout(folder / name, array)
    return arrays


def _sizes(dim: int, width: int, residuals: str) -> str:
    return f"{dim} and {width} numbers ({residuals})"


def _map_array(path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> NDArray[Any]:
    array = map_array(path)
    if array.dtype != dtype or array.shape != shape:
        raise CorruptFile(
            f"{path} holds {array.dtype} {list(array.shape)}"
            f" instead of {np.dtype(dtype)} {list(shape)}"
        )
    _check_layout(path, array)
    return array


def _check_layout(path: Path, array: NDArray[Any]) -> None:
    """Whether the kernel can read an array where it lies.

    Raises:
        CorruptFile: it is stored column by column, or begins at no multiple of its element's size.
    """
    if not (array.flags.c_contiguous and array.flags.aligned):
        raise CorruptFile(f"{path} does not hold its numbers row by row at aligned addresses")
