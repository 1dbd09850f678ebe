"""Memory that large requests took goes back to the system once they are answered.

The C library keeps large blocks in its heap from the moment on that one was given back, up to
32 MB each, and what lies behind them then keeps them from going: after 1,000 requests that were
refused, of up to a megabyte, a server held 20 to 40 MB more than before, with nothing in it.
"""

import ctypes
import os
from contextlib import suppress
from typing import Final

__all__ = ["give_memory_back"]

_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
"""The names of the options in glibc's `malloc.h`."""
_LARGE_BYTES: Final = 2**20
"""Blocks of this size are mapped each on its own: a few microseconds, where filling one takes a
hundred."""
_SPARE_BYTES: Final = 4 * 2**20


def give_memory_back() -> None:
    """Sets both thresholds for this process, unless its environment does; only glibc has them."""
    if "MALLOC_MMAP_THRESHOLD_" in os.environ or "MALLOC_TRIM_THRESHOLD_" in os.environ:
        return
    with suppress(AttributeError, OSError):
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)
        library.mallopt(_TRIM_THRESHOLD, _SPARE_BYTES)
