"""What one input of a model takes, and a decoded value made into an array of it."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from resmem_service.errors import InvalidInput
from resmem_service.inference._nested_lists import first_misfit, float32_array
from resmem_service.inference.mismatch import explain

__all__ = ["TensorSpec"]

_DTYPES: Final = frozenset(
    ["bool", "float16", "float32", "float64"]
    + [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
)
_FLOATS: Final = {name: np.dtype(name) for name in ("float16", "float32", "float64")}
_NUMBERS: Final = frozenset({float, int})
_LARGEST_EXACT: Final = 2.0**53
"""Up to here a float64 holds every integer."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, element type and shape of one input, without the batch axis.

    Raises:
        ValueError: a dtype that no request can carry, or an axis below 1.
    """

    name: str
    dtype: str
    """A numpy name: `bool`, `int8` to `int64`, `uint8` to `uint64`, `float16` to `float64`."""
    shape: tuple[int | None, ...]
    """`None` is a dynamic axis: any length, but the same for all rows of a request."""

    def __post_init__(self) -> None:
        if self.dtype not in _DTYPES:
            raise ValueError(f"input {self.name!r} has the unsupported dtype {self.dtype!r}")
        if any(axis is not None and axis < 1 for axis in self.shape):
            raise ValueError(f"input {self.name!r} has an axis below 1: {self.shape}")

    def convert(self, value: object, field: str) -> NDArray[Any]:
        """Make a decoded value an array `[n, *shape]` of this dtype, n at least 1.

        `value` is nested lists as a JSON decoder leaves them, or an array (binary protocols, data
        sets). Numbers are taken if this dtype can hold them: integers where floats are due, whole
        floats where integers are due.

        Raises:
            InvalidInput: wrong shape or type, ragged, no rows, NaN or infinity, out of the dtype's
                range, a fraction where integers are due. Names `field`, and the first bad row.
        """
        array = self._converted(value)
        if array is None:
            reason = explain(value, self._first_bad(value), self.dtype, self.shape)
            raise InvalidInput(reason, field)
        return array

    def _converted(self, value: object) -> NDArray[Any] | None:
        if self.dtype == "float32" and (quick := float32_array(value, self.shape)) is not None:
            return quick
        array = self._of_array(value) if isinstance(value, np.ndarray) else self._of_lists(value)
        return array if array is not None and self._fits(array) else None

    def _first_bad(self, value: Any) -> int:
        """Number of the first row at fault, by bisection: as fast as the conversion itself."""
        if not isinstance(value, list | tuple | np.ndarray):
            return 0
        if isinstance(value, np.ndarray) and not value.ndim:
            return 0
        misfit = -1 if isinstance(value, np.ndarray) else first_misfit(value, self.shape)
        first = None if misfit == 0 else self._converted(value[:1])
        if first is None:
            return 0
        alike = replace(self, shape=first.shape[1:])
        low, high = 1, len(value) if misfit < 0 else misfit + 1
        while high - low > 1:
            middle = (low + high) // 2
            if alike._converted(value[low:middle]) is None:
                high = middle
            else:
                low = middle
        return low

    def _fits(self, array: NDArray[Any]) -> bool:
        have = array.shape[1:]
        if have != self.shape and not (
            array.ndim == len(self.shape) + 1
            and all(want in (None, axis) for axis, want in zip(have, self.shape, strict=True))
        ):
            return False
        return array.size > 0 and (self.dtype not in _FLOATS or bool(np.isfinite(array).all()))

    def _of_lists(self, value: object) -> NDArray[Any] | None:
        if first_misfit(value, self.shape) >= 0:  # numpy would first look at every element
            return None
        kinds = self._kinds(value)
        floats = _FLOATS.get(self.dtype)
        try:
            if self.dtype == "bool":
                return np.array(value, dtype=np.bool_) if kinds == {bool} else None
            if not kinds or not kinds <= _NUMBERS:
                return None
            if floats is not None:
                with np.errstate(over="ignore"):
                    return np.array(value, dtype=floats)
            if float not in kinds:
                return np.array(value, dtype=self.dtype)
            return self._whole(np.array(value, dtype=np.float64))
        except (ValueError, TypeError, OverflowError):
            return None

    def _kinds(self, value: object) -> set[type]:
        """The types of the leaves: numpy alone would take booleans and strings for numbers."""
        if not isinstance(value, list | tuple):
            return set()
        leaves: Iterable[Any] = value
        for _ in self.shape:
            leaves = chain.from_iterable(leaves)
        try:
            return set(map(type, leaves))
        except TypeError:  # a number where a list is due
            return set()

    def _of_array(self, array: NDArray[Any]) -> NDArray[Any] | None:
        have, want = array.dtype, np.dtype(self.dtype)
        if have == want:
            return array
        if want.kind == "b" or have.kind not in "iuf":
            return None
        if want.kind == "f":
            with np.errstate(over="ignore"):
                return array.astype(want)
        if have.kind == "f":
            return self._whole(array.astype(np.float64, copy=False))  # float16 has no 2**53
        limits = np.iinfo(want)
        if array.size and (int(array.min()) < limits.min or int(array.max()) > limits.max):
            return None
        return array.astype(want)

    def _whole(self, array: NDArray[np.float64]) -> NDArray[Any] | None:
        """Floats as integers, where every one of them is whole and held exactly."""
        limits = np.iinfo(self.dtype)
        low, high = max(limits.min, -_LARGEST_EXACT), min(limits.max, _LARGEST_EXACT)
        good = (array >= low) & (array <= high) & (array == np.floor(array))
        return array.astype(self.dtype) if bool(good.all()) else None
