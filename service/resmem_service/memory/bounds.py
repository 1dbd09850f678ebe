"""What a memory may be, however it comes in: over HTTP, or from a file."""

from typing import Final

import numpy as np

__all__ = ["LARGEST_WEIGHT", "LONGEST_NAME", "SMALLEST_WEIGHT", "is_within"]

LARGEST_WEIGHT: Final = 1e9
"""Importance is above 0 and at most this, whatever bound is set."""
SMALLEST_WEIGHT: Final = 2.0**-126
"""Weights are stored as float32: a smaller one would lose digits there, or become 0."""
LONGEST_NAME: Final = 256
"""Characters of an id or a source, at least 1."""


def is_within(weight: float, bound: float) -> bool:
    """Whether a weight, of at most `LARGEST_WEIGHT`, is at most the bound as both are stored."""
    return bool(np.float32(weight) <= np.float32(bound))
