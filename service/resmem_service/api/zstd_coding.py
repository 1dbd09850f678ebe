"""The content coding `zstd` (RFC 8878); cannot be imported where its library is missing.

That library is part of Python from 3.14 on, and for older ones the same code as `backports.zstd`.
"""

import sys
from typing import TYPE_CHECKING, Final

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from typing_extensions import Buffer
else:
    Buffer = object

__all__ = ["Expansion", "compress"]

_FAST: Final = 1
_OPTIONS: Final[dict[int, int]] = {zstd.DecompressionParameter.window_log_max: 23}
"""A window of 8 MB at most, as RFC 9659 has it: a frame may ask for gigabytes."""


def compress(body: bytes) -> bytes:
    """One frame."""
    return zstd.compress(body, _FAST)


class Expansion:
    """A decompressor of one frame, as the standard library has them for other codings."""

    __slots__ = ("_stream",)

    def __init__(self) -> None:
        self._stream = zstd.ZstdDecompressor(options=_OPTIONS)

    @property
    def eof(self) -> bool:
        """Whether the frame is complete."""
        return self._stream.eof

    @property
    def needs_input(self) -> bool:
        """Whether nothing more comes out of what was given."""
        return self._stream.needs_input

    @property
    def unused_data(self) -> bytes:
        """What follows the frame."""
        return self._stream.unused_data

    def decompress(self, data: Buffer, max_length: int) -> bytes:
        """Up to so many bytes of what comes out.

        Raises:
            ValueError: it is damaged.
        """
        try:
            return self._stream.decompress(data, max_length)
        except zstd.ZstdError as error:
            raise ValueError(str(error)) from None
