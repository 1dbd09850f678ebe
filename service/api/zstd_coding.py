"""The content coding `zstd` (RFC 8878); cannot be imported where its library is missing.

That library is part of Python from 3.14 on, and for older ones the same code as `backports.zstd`.
"""

import sys
from typing import Final

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["compress", "expand"]

_FAST: Final = 1
_OPTIONS: Final[dict[int, int]] = {zstd.DecompressionParameter.window_log_max: 23}
"""A window of 8 MB at most, as RFC 9659 has it: a frame may ask for gigabytes."""


def compress(body: bytes) -> bytes:
    """One frame."""
    return zstd.compress(body, _FAST)


def expand(body: bytes, bound: int) -> bytes:
    """The first `bound` bytes of a frame, or all if there are fewer.

    Raises:
        ValueError: it is damaged, cut short or followed by something else.
    """
    stream = zstd.ZstdDecompressor(options=_OPTIONS)
    try:
        content = stream.decompress(body, bound)
    except zstd.ZstdError as error:
        raise ValueError(str(error)) from error
    if len(content) < bound and not stream.eof:
        raise ValueError("it is cut short")
    if stream.eof and stream.unused_data:
        raise ValueError("something follows its end")
    return content
