"""How residuals are stored: whole, in half precision, or as the target and the top classes."""

import re
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray

from resmem_service.memory.search import _kernel

__all__ = ["FLOAT32", "ResidualCodec"]

_WIDE: Final = 65_536
_LARGEST_HALF: Final = 65_504.0


@dataclass(frozen=True)
class ResidualCodec:
    """One way to store a residual.

    `float32` and `float16` store all L numbers. `top-M`, for classification with very many
    classes, stores the target and the M classes that the base found likeliest; what probability is
    left is shared out evenly over the others, so that scores still sum to 1. With a dropped mass of
    `delta` the stored residual differs by at most `2 delta` in the sum of absolute values, beside
    the rounding of half precision (a part in 2,048).
    """

    kind: Literal["float32", "float16", "top"]
    kept: int = 0
    """M of `top-M`."""

    @classmethod
    def named(cls, name: str) -> Self:
        """The codec of a name such as `float16` or `top-32`.

        Raises:
            ValueError: there is none of this name.
        """
        if name in ("float32", "float16"):
            return cls(name)  # type: ignore[arg-type]
        match = re.fullmatch(r"top-([1-9]\d{0,6})", name)
        if match is None:
            raise ValueError(f"{name!r} is not a residual codec: float32, float16 or top-M")
        return cls("top", int(match[1]))

    @property
    def name(self) -> str:
        """What `named` takes."""
        return f"top-{self.kept}" if self.kind == "top" else self.kind

    def native(self, width: int) -> _kernel.Codec:
        """The kernel's codec for residuals of `width` numbers.

        Raises:
            ValueError: `top-M` keeps more classes than there are.
        """
        return _kernel.Codec(self.kind, width, self.kept)

    def stored_shape(self, width: int) -> tuple[type[np.generic], int]:
        """Type and number of the elements that one residual takes in an array file."""
        if self.kind == "float32":
            return np.float32, width
        if self.kind == "float16":
            return np.float16, width
        return np.uint8, self.native(width).stride

    def check(self, residuals: NDArray[np.float32]) -> None:
        """Makes sure that residuals `[n, L]` can be stored.

        Raises:
            ValueError: `float16` cannot hold one of the numbers.
        """
        if self.kind == "float16" and not np.abs(residuals).max(initial=0) <= _LARGEST_HALF:
            raise ValueError("a residual is too large for float16")

    def encode(self, residuals: NDArray[np.float32]) -> NDArray[Any]:
        """Residuals `[n, L]` as stored, row by row in `stored_shape`.

        Raises:
            ValueError: as `check`; `top-M` needs residuals of probabilities, which sum to 0.
        """
        if self.kind == "float32":
            return np.ascontiguousarray(residuals, np.float32)
        if self.kind == "float16":
            self.check(residuals)
            return np.ascontiguousarray(residuals, np.float16)
        return self._encode_top(residuals)

    def decode(self, codes: NDArray[Any], width: int) -> NDArray[np.float32]:
        """Codes, row by row, as residuals `[n, L]`."""
        if self.kind != "top":
            return codes.astype(np.float32)
        record = codes.view(self._record(width))[:, 0]
        rest = record["rest"][:, None]
        residuals = np.repeat(-rest, width, axis=1)
        rows = np.arange(len(codes))[:, None]
        residuals[rows, record["top"]["id"]] -= record["top"]["excess"].astype(np.float32)
        residuals[rows[:, 0], record["target"]] += 1
        return np.asarray(residuals, np.float32)

    def bytes_of(self, codes: NDArray[Any]) -> NDArray[np.uint8]:
        """The same memory as `[n, stride]` bytes, for the kernel."""
        return codes.view(np.uint8)

    def dropped_mass(self, residuals: NDArray[np.float32]) -> NDArray[np.float32]:
        """Per row of `[n, L]` the probability that `top-M` does not keep; 0 for the others."""
        if self.kind != "top":
            return np.zeros(len(residuals), np.float32)
        probabilities, _ = _probabilities(residuals)
        kept = np.partition(probabilities, -self.kept, axis=1)[:, -self.kept :]
        return np.asarray((1 - kept.sum(axis=1)).clip(0), np.float32)

    def _encode_top(self, residuals: NDArray[np.float32]) -> NDArray[np.uint8]:
        width = residuals.shape[1]
        probabilities, targets = _probabilities(residuals)
        top = np.argpartition(probabilities, -self.kept, axis=1)[:, -self.kept :]
        kept = np.take_along_axis(probabilities, top, axis=1)
        rest = (1 - kept.sum(axis=1)).clip(0) / max(1, width - self.kept)
        record = np.zeros(len(residuals), self._record(width))
        record["target"], record["rest"] = targets, rest
        record["top"]["id"], record["top"]["excess"] = top, kept - rest[:, None]
        return record.view(np.uint8).reshape(len(residuals), -1)

    def _record(self, width: int) -> np.dtype[Any]:
        """The layout of one code: native/codec.hpp reads the same."""
        top = np.dtype([("id", "<u4" if width > _WIDE else "<u2"), ("excess", "<f2")])
        return np.dtype([("target", "<u4"), ("rest", "<f4"), ("top", top, (self.kept,))])


FLOAT32: Final = ResidualCodec("float32")


def _probabilities(
    residuals: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Base probabilities and targets behind residuals: only the target's residual is above 0."""
    targets = residuals.argmax(axis=1)
    probabilities = -residuals
    probabilities[np.arange(len(residuals)), targets] += 1
    off = np.abs(residuals.sum(axis=1)).max(initial=0.0)
    if off > 1e-3 or probabilities.min(initial=0.0) < -1e-6:
        raise ValueError("these are no residuals of probabilities: they do not sum to 0")
    return probabilities, targets
