"""Input tensors: what a request says of them, and their elements as one array.

The elements stand in the JSON, flat or nested, or behind it in the binary part.
"""

from dataclasses import dataclass
from math import prod
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from resmem_service.api.inference_protocol.datatypes import DATATYPES
from resmem_service.api.inference_protocol.json_values import check_keys, parameters_of
from resmem_service.errors import InvalidInput
from resmem_service.excerpt import LONGEST_NAMED, excerpt, shortened
from resmem_service.inference.tensor_spec import TensorSpec

__all__ = ["InputTensor"]

_KEYS: Final = frozenset({"name", "shape", "datatype", "parameters", "data"})
_MOST_AXES: Final = 32
"""Every numpy takes as many."""


@dataclass(frozen=True, slots=True)
class InputTensor:
    """One input tensor of a request, its elements not looked at yet."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    """The batch axis first; none is below 1."""
    data: list[Any] | None
    """The elements as a JSON decoder leaves them; None: in the binary part."""

    @classmethod
    def read(cls, value: object) -> tuple[Self, int]:
        """One entry of `inputs`, and the bytes that it has in the binary part.

        Raises:
            InvalidInput: it is not a tensor, or its sizes disagree.
        """
        if not isinstance(value, dict):
            raise InvalidInput(f"has {excerpt(value)}; each input must be an object", "inputs")
        name = value.get("name")
        if not isinstance(name, str):
            raise InvalidInput(
                f"one is called {excerpt(name)}; each must have a name, a string", "inputs"
            )
        field = f"inputs.{shortened(name, LONGEST_NAMED)}"
        check_keys(value, _KEYS, field)
        dtype = _dtype(value.get("datatype"), field)
        shape = _shape(value.get("shape"), field)
        size = parameters_of(value, field).get("binary_data_size")
        data = value.get("data")
        if size is None:
            if not isinstance(data, list):
                raise InvalidInput(
                    "has no data: give a list, or `binary_data_size` among its parameters", field
                )
            return cls(name, dtype, shape, data), 0
        if data is not None:
            raise InvalidInput("has data both here and in the binary part", field)
        expected = prod(shape) * dtype.itemsize
        if type(size) is not int or size != expected:
            raise InvalidInput(
                f"has a binary_data_size of {excerpt(size)}; {value['datatype']} of shape "
                f"{list(shape)} takes {expected} bytes",
                field,
            )
        return cls(name, dtype, shape, None), size

    def of_binary(self, body: bytes, start: int) -> NDArray[Any]:
        """The elements in the binary part, which is not copied if they lie well for the machine.

        Raises:
            InvalidInput: BOOL with a byte that is neither 0 nor 1.
        """
        count = prod(self.shape)
        array = np.frombuffer(body, self.dtype, count, start).reshape(self.shape)
        if not array.flags.aligned:  # every look at it would cost more than this copy
            array = array.copy()
        if self.dtype.kind == "b" and array.view(np.uint8).max() > 1:
            raise InvalidInput("is BOOL but has bytes beside 0 and 1", self._field)
        return array

    def of_json(self) -> NDArray[Any]:
        """The elements in the JSON.

        Raises:
            InvalidInput: they do not fit the datatype or the shape; names the first bad row.
        """
        field, data, count = self._field, self.data or [], prod(self.shape)
        nested = bool(data) and isinstance(data[0], list)
        if not nested and len(data) != count:
            raise InvalidInput(
                f"has {len(data)} elements of data; shape {list(self.shape)} takes {count}", field
            )
        if nested and len(data) != self.shape[0]:
            raise InvalidInput(
                f"has {len(data)} rows of data; shape {list(self.shape)} says {self.shape[0]}",
                field,
            )
        if nested:
            return self._spec(*self.shape[1:]).convert(data, field)
        try:
            return self._spec().convert(data, field).reshape(self.shape)
        except InvalidInput:  # it counts elements; a reader looks for rows
            width = prod(self.shape[1:])
            rows = [data[start : start + width] for start in range(0, count, width)]
            return self._spec(width).convert(rows, field)

    @property
    def _field(self) -> str:
        return f"inputs.{shortened(self.name, LONGEST_NAMED)}"

    def _spec(self, *shape: int) -> TensorSpec:
        return TensorSpec(self.name, self.dtype.name, shape)


def _dtype(value: object, field: str) -> np.dtype[Any]:
    dtype = DATATYPES.get(value) if isinstance(value, str) else None
    if dtype is None:
        raise InvalidInput(
            f"has the datatype {excerpt(value)}; an input has one of: {', '.join(DATATYPES)}", field
        )
    return dtype


def _shape(value: object, field: str) -> tuple[int, ...]:
    if not isinstance(value, list) or not 0 < len(value) <= _MOST_AXES:
        raise InvalidInput(
            f"has the shape {excerpt(value)}; it must have a shape that is a list of at most "
            f"{_MOST_AXES} axes with that of the batch first",
            field,
        )
    for axis in value:
        if type(axis) is not int or axis < 1:
            raise InvalidInput(
                f"has the shape {excerpt(value)}; each axis must be a whole number from 1", field
            )
    return tuple(value)
