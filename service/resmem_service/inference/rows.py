"""Rows: examples on their way to the model, one array per input."""

import struct
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from resmem_service.errors import CorruptFile, InvalidInput
from resmem_service.excerpt import LONGEST_NAMED, excerpt, shortened
from resmem_service.inference.tensor_spec import TensorSpec

__all__ = ["Lesson", "Rows", "Signature"]

Signature = tuple[tuple[int, ...], ...]
"""The shapes of the inputs without the batch axis; rows of different ones never run together."""

_VERSION: Final = 1


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """n rows: for each input of the model, in the model's order, an array `[n, ...]`."""

    arrays: Mapping[str, NDArray[Any]]

    @classmethod
    def convert(cls, value: object, specs: Sequence[TensorSpec]) -> Self:
        """Make a decoded value rows of the model's inputs.

        `value` maps the names of the inputs to values for `TensorSpec.convert`; a model with one
        input takes its value bare as well.

        Raises:
            InvalidInput: naming `inputs` (one input) or `inputs.<name>`: a value that does not fit
                its input, an input that is missing or unknown, inputs of different length.
        """
        if not isinstance(value, Mapping):
            if len(specs) == 1:
                return cls({specs[0].name: specs[0].convert(value, "inputs")})
            names = ", ".join(spec.name for spec in specs)
            raise InvalidInput(f"expected an object with the model's inputs: {names}", "inputs")
        _check_names(value, specs)
        arrays = {spec.name: spec.convert(value[spec.name], _field(spec, specs)) for spec in specs}
        lengths = {name: len(array) for name, array in arrays.items()}
        expected = lengths[specs[0].name]
        for name, length in lengths.items():
            if length != expected:
                raise InvalidInput(
                    f"has {length} rows where input {specs[0].name!r} has {expected}",
                    f"inputs.{name}",
                )
        return cls(arrays)

    @classmethod
    def concatenate(cls, rows: Sequence[Self]) -> Self:
        """Join rows of one signature, at least one; a single one is returned as it is."""
        if len(rows) == 1:
            return rows[0]
        names = rows[0].arrays
        return cls({name: np.concatenate([part.arrays[name] for part in rows]) for name in names})

    def __len__(self) -> int:
        for array in self.arrays.values():
            return len(array)
        return 0

    def slice(self, start: int, stop: int) -> Self:
        """Return the rows from `start` up to, not including, `stop`; a view."""
        return type(self)({name: array[start:stop] for name, array in self.arrays.items()})

    def every(self, step: int) -> Self:
        """Return the first row and each that comes `step` rows after the last; a view."""
        return type(self)({name: array[::step] for name, array in self.arrays.items()})

    @property
    def signature(self) -> Signature:
        """What decides which rows may run in one batch."""
        return tuple(array.shape[1:] for array in self.arrays.values())

    def encode(self) -> list[bytes]:
        """One blob per row for the journal, from which `decode` makes the row again.

        Little-endian: u8 version, u8 number of inputs; for each input u8 length of the dtype's
        name, the name, u8 number of axes, u32 per axis; then the elements of each input, row-major.
        Inputs are in the model's order and carry no names.
        """
        arrays = [_little_endian(array) for array in self.arrays.values()]
        header = _header(tuple((array.dtype, array.shape[1:]) for array in arrays))
        columns = [_blobs(array) for array in arrays]
        return [header + b"".join(blobs) for blobs in zip(*columns, strict=True)]

    @classmethod
    def decode(cls, blobs: Sequence[bytes], specs: Sequence[TensorSpec]) -> Self:
        """Rows from the blobs of `encode`, at least one, all of one shape.

        Raises:
            CorruptFile: a blob is not what `encode` writes.
            InvalidInput: the rows do not fit `specs`, or differ in shape.
        """
        version, layout, start = _parse(blobs[0])
        header = blobs[0][:start]
        size = start + sum(dtype.itemsize * _count(shape) for dtype, shape in layout)
        if version != _VERSION or any(len(blob) != size for blob in blobs):
            if version == _VERSION and len(blobs[0]) == size:
                raise InvalidInput("the stored rows differ in shape", "inputs")
            raise CorruptFile("a stored input has a wrong version or length")
        if any(not blob.startswith(header) for blob in blobs):
            raise InvalidInput("the stored rows differ in shape", "inputs")
        if len(layout) != len(specs):
            raise InvalidInput(
                f"the stored rows have {len(layout)} inputs, the model {len(specs)}", "inputs"
            )
        arrays: dict[str, NDArray[Any]] = {}
        for spec, (dtype, shape) in zip(specs, layout, strict=True):
            stop = start + dtype.itemsize * _count(shape)
            raw = b"".join([blob[start:stop] for blob in blobs])
            array = np.frombuffer(raw, dtype=dtype).reshape(len(blobs), *shape)
            arrays[spec.name] = spec.convert(array, _field(spec, specs))
            start = stop
        return cls(arrays)


class Lesson(Rows):
    """Rows of which only the base's answer is wanted: many to be learned at once."""

    __slots__ = ()

    @property
    def signature(self) -> Signature:
        """Never that of rows to be corrected: the two do not run in one batch."""
        return (*super().signature, (-1,))


def _field(spec: TensorSpec, specs: Sequence[TensorSpec]) -> str:
    return "inputs" if len(specs) == 1 else f"inputs.{spec.name}"


def _check_names(value: Mapping[Any, Any], specs: Sequence[TensorSpec]) -> None:
    known = [spec.name for spec in specs]
    for name in value:
        if name not in known:
            raise InvalidInput(
                f"the model has no input {excerpt(name)}; it has: {', '.join(known)}",
                f"inputs.{shortened(str(name), LONGEST_NAMED)}",
            )
    for name in known:
        if name not in value:
            raise InvalidInput(f"the input {name!r} is missing", f"inputs.{name}")


def _little_endian(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.isnative and sys.byteorder == "little":
        return array
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def _blobs(array: NDArray[Any]) -> list[bytes]:
    """The bytes of each row, at least one."""
    raw, size = array.tobytes(), array.nbytes // len(array)
    return [raw[start : start + size] for start in range(0, len(raw), size)]


@lru_cache(maxsize=64)
def _header(layout: tuple[tuple[np.dtype[Any], tuple[int, ...]], ...]) -> bytes:
    parts = [struct.pack("<BB", _VERSION, len(layout))]
    for dtype, shape in layout:
        name = dtype.name.encode()
        parts.append(struct.pack(f"<B{len(name)}sB", len(name), name, len(shape)))
        parts.append(struct.pack(f"<{len(shape)}I", *shape))
    return b"".join(parts)


def _parse(blob: bytes) -> tuple[int, list[tuple[np.dtype[Any], tuple[int, ...]]], int]:
    """Version, layout and length of a header."""
    try:
        version, inputs = struct.unpack_from("<BB", blob)
        at, layout = 2, []
        for _ in range(inputs):
            length = blob[at]
            dtype = np.dtype(blob[at + 1 : at + 1 + length].decode("ascii")).newbyteorder("<")
            axes = blob[at + 1 + length]
            at += 2 + length
            shape = struct.unpack_from(f"<{axes}I", blob, at)
            at += 4 * axes
            layout.append((dtype, shape))
    except (struct.error, IndexError, TypeError, ValueError) as error:
        raise CorruptFile("a stored input has no readable header") from error
    return version, layout, at


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for axis in shape:
        count *= axis
    return count
