"""The protocol's datatypes, and what they are called in numpy."""

from typing import Any, Final

import numpy as np

__all__ = ["BYTES", "DATATYPES", "FP32", "datatype_of"]

FP32: Final = "FP32"
BYTES: Final = "BYTES"

DATATYPES: Final[dict[str, np.dtype[Any]]] = {
    "BOOL": np.dtype(np.bool_),
    **{f"INT{bits}": np.dtype(f"<i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": np.dtype(f"<u{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
}
"""Those that an input may have, as they lie in a binary tensor: little-endian. `BYTES` is not among
them: no input of ours takes strings."""

_NAMES: Final = {dtype.name: name for name, dtype in DATATYPES.items()}


def datatype_of(dtype: str) -> str:
    """The datatype of a numpy dtype that `TensorSpec` allows."""
    return _NAMES[dtype]
