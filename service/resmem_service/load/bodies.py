"""Bodies for `POST /predict`, made of a user's rows, of an example body or of nothing at all."""

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from resmem_service.errors import InvalidInput, LoadFailed
from resmem_service.inference.rows import Rows
from resmem_service.inference.tensor_spec import TensorSpec

__all__ = ["bodies_of", "random_rows", "read_body"]

_MOST: Final = 256
"""Different bodies; they are sent in turn."""
_MOST_BYTES: Final = 64 * 2**20
_RANDOM_ROWS: Final = 4096
_RANDOM_NUMBERS: Final = 2**22


def bodies_of(rows: Rows, per_request: int, options: Mapping[str, Any]) -> list[bytes]:
    """JSON bodies with so many rows each; together they have every row, if 256 bodies hold them.

    `options` are the other keys of each body: `fields`, `neighbours`, `top`.
    """
    count = min(_MOST, -(-len(rows) // per_request))
    bodies: list[bytes] = []
    size = 0
    for number in range(count):
        index = np.arange(number * per_request, (number + 1) * per_request) % len(rows)
        arrays = {name: np.ascontiguousarray(array[index]) for name, array in rows.arrays.items()}
        inputs = arrays if len(arrays) > 1 else next(iter(arrays.values()))
        body = orjson.dumps({"inputs": inputs, **options}, option=orjson.OPT_SERIALIZE_NUMPY)
        size += len(body)
        if bodies and size > _MOST_BYTES:
            break
        bodies.append(body)
    return bodies


def read_body(path: Path, specs: Sequence[TensorSpec]) -> tuple[Rows, dict[str, Any]]:
    """The rows of a file that holds a body of `POST /predict`, and its other keys.

    Raises:
        LoadFailed: there is no such file, it is not such a body, or does not fit the model.
    """
    try:
        body = orjson.loads(path.read_bytes())
        inputs = body.pop("inputs")
    except OSError as error:
        raise LoadFailed(f"{path} cannot be read: {error.strerror}", "data") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise LoadFailed(f"{path} is not a JSON object with `inputs`", "data") from None
    try:
        return Rows.convert(inputs, specs), body
    except InvalidInput as error:
        raise LoadFailed(f"{path}: {error.field}: {error.message}", "data") from None


def random_rows(specs: Sequence[TensorSpec]) -> Rows:
    """Rows of noise: floats from 0 to 1, bytes from 0 to 255, other integers 0 or 1.

    Raises:
        LoadFailed: an input may have any length, and only its user knows a likely one.
    """
    for spec in specs:
        if None in spec.shape:
            raise LoadFailed(f"input {spec.name!r} has an axis of any length: give --data")
    shapes = [tuple(axis or 1 for axis in spec.shape) for spec in specs]
    numbers = sum(prod(shape) for shape in shapes)
    count = max(1, min(_RANDOM_ROWS, _RANDOM_NUMBERS // numbers))
    rng = np.random.default_rng(0)
    named = zip(specs, shapes, strict=True)
    return Rows({spec.name: _noise(rng, (count, *shape), spec.dtype) for spec, shape in named})


def _noise(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    if dtype.startswith("float"):
        return rng.random(shape, np.float32).astype(dtype)
    most = 255 if dtype == "uint8" else 1
    return rng.integers(0, most, shape, endpoint=True).astype(dtype)
