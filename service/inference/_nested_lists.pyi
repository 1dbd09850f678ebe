import numpy as np
from numpy.typing import NDArray

def float32_array(value: object, shape: tuple[int | None, ...]) -> NDArray[np.float32] | None:
    """Nested lists `[n, *shape]` of finite ints and floats, n at least 1; None for all else.

    None in the shape is any length, at least 1, the same for all rows.
    """
