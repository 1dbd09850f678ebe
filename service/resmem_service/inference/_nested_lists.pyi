import numpy as np
from numpy.typing import NDArray

def float32_array(value: object, shape: tuple[int | None, ...]) -> NDArray[np.float32] | None:
    """Nested lists `[n, *shape]` of finite ints and floats, n at least 1; None for all else.

    None in the shape is any length, at least 1, the same for all rows.
    """

def first_misfit(value: object, shape: tuple[int | None, ...]) -> int:
    """The first row of lists or tuples that is nested otherwise than `shape` says; -1: none is.

    None in the shape is any length, at least 1, the same for all rows. Elements are not looked at.
    0 for what has no rows.
    """
