"""The base prediction and its residuals: stage 1 of ResMem as arithmetic, in one place.

Source: Yang et al., "ResMem: Learn What You Can and Memorize the Rest", NeurIPS 2023
(arXiv 2302.01576), sections 3 and 4. `fit` and the server both come here.
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from resmem_service.errors import InvalidInput

__all__ = ["Task", "base_prediction", "residuals"]

Task = Literal["classification", "regression"]


def base_prediction(
    logits: NDArray[np.float32], task: Task, temperature: float
) -> NDArray[np.float32]:
    """`base(x)` `[n, L]`: `softmax(z(x) / T)` for classification, `z(x)` for regression.

    `logits` are `z(x)` `[n, L]`, finite. The largest logit of a row is subtracted first, so that
    neither a large logit nor a small temperature overflows.

    Raises:
        ValueError: the temperature is not above 0.
    """
    if task == "regression":
        return logits
    if not np.float32(temperature) > 0:
        raise ValueError("temperature must be above 0, in float32")
    with np.errstate(over="ignore"):  # far below the largest: minus infinity, which exp makes 0
        powers: NDArray[np.float32] = logits - logits.max(axis=1, keepdims=True)
        if temperature != 1.0:
            powers /= np.float32(temperature)
    np.exp(powers, out=powers)
    powers /= powers.sum(axis=1, keepdims=True)
    return powers


def residuals(base: NDArray[np.float32], targets: NDArray[Any], task: Task) -> NDArray[np.float32]:
    """`r_i` `[n, L]`: `onehot(y_i) - base(x_i)`, or `y_i - base(x_i)` for regression.

    `base` is `[n, L]`; `targets` are class indices `[n]`, or numbers `[n, L]` for regression.

    Raises:
        InvalidInput: field `targets`: a class index out of range, a shape that does not fit, a
            residual that is not finite. Names the first bad row.
    """
    rows, width = base.shape
    if task == "regression":
        if targets.shape != base.shape:
            raise InvalidInput(
                f"expected targets of shape {[rows, width]}, got {list(targets.shape)}", "targets"
            )
        with np.errstate(over="ignore", invalid="ignore"):
            difference: NDArray[np.float32] = np.subtract(targets, base, dtype=np.float32)
        _refuse_first(np.logical_not(np.isfinite(difference).all(axis=1)), "has no finite residual")
        return difference
    if targets.shape != (rows,) or targets.dtype.kind not in "iu":
        raise InvalidInput(f"expected {rows} class indices", "targets")
    _refuse_first((targets < 0) | (targets >= width), f"is not a class index below {width}")
    result = np.negative(base)
    result[np.arange(rows), targets] += np.float32(1.0)
    return result


def _refuse_first(bad: NDArray[np.bool_], complaint: str) -> None:
    if bad.any():
        raise InvalidInput(f"the target of row {int(bad.argmax())} {complaint}", "targets")
