"""Why a value does not fit an input of the model: the sentence that a client reads.

Runs only once a fast check has failed and found the row at fault, so it looks at that row alone.
Rows are counted from 0.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["explain"]

Shape = tuple[int | None, ...]


def explain(value: object, bad: int, dtype: str, shape: Shape) -> str:
    """Say why a value is no array `[n, *shape]` of `dtype`; row `bad` is the first at fault."""
    wanted = _wanted(dtype, shape)
    if isinstance(value, np.ndarray) and value.ndim:
        if value.shape[0] == 0:
            return "expected at least one row, got none"
        return f"{_array_fault(value, bad, dtype, shape)}; each row must be {wanted}"
    if not isinstance(value, list | tuple):
        return f"expected a list of rows, each {wanted}, got {_noun(value)}"
    if not value:
        return "expected at least one row, got none"
    first, _ = _shape_of(value[0])
    return f"row {bad} {_fault(value[bad], first, dtype, shape)}; each row must be {wanted}"


def _array_fault(array: NDArray[Any], bad: int, dtype: str, shape: Shape) -> str:
    if not _agrees(array.shape[1:], shape):
        return f"has shape {list(array.shape)}"
    if array.dtype.kind not in "biuf":
        return f"has dtype {array.dtype}"
    return f"row {bad} {_refused(array[bad].ravel().tolist(), dtype)}"


def _fault(row: object, first: tuple[int, ...], dtype: str, shape: Shape) -> str:
    have, fault = _shape_of(row)
    if fault is not None:
        return fault
    if not _agrees(have, shape):
        return f"has shape {list(have)}" if have else f"is {_noun(row)}"
    if have != first:
        return f"has shape {list(have)} where row 0 has {list(first)}, all must have one shape"
    return _refused(_leaves(row, len(shape)), dtype)


def _shape_of(row: object) -> tuple[tuple[int, ...], str | None]:
    """Shape of nested lists by their first elements, and a fault if they are ragged."""
    if not isinstance(row, list | tuple):
        return (), None
    if not row:
        return (0,), None
    inner, fault = _shape_of(row[0])
    for element in row if fault is None else ():
        other, fault = _shape_of(element)
        if fault is None and other != inner:
            fault = f"is ragged: it has elements of shape {list(inner)} and {list(other)}"
        if fault is not None:
            break
    return (len(row), *inner), fault


def _leaves(row: object, depth: int) -> Iterator[object]:
    if depth == 0:
        yield row
    elif isinstance(row, Sequence):
        for element in row:
            yield from _leaves(element, depth - 1)


def _agrees(have: tuple[int, ...], want: Shape) -> bool:
    return len(have) == len(want) and all(
        h > 0 and (w is None or h == w) for h, w in zip(have, want, strict=True)
    )


def _refused(leaves: Iterable[object], dtype: str) -> str:
    """Why `dtype` cannot take these elements, the first one at fault."""
    for leaf in leaves:
        reason = _reason(leaf, dtype)
        if reason is not None:
            return f"holds {reason}"
    return "has floats beside integers beyond 2**53, which floats do not hold exactly"


def _reason(leaf: object, dtype: str) -> str | None:
    if dtype == "bool":
        return None if isinstance(leaf, bool) else _noun(leaf)
    if isinstance(leaf, bool) or not isinstance(leaf, int | float):
        return _noun(leaf)
    if isinstance(leaf, float) and not math.isfinite(leaf):
        return "NaN" if math.isnan(leaf) else "infinity"
    if dtype.startswith("float"):
        inside = abs(leaf) <= float(np.finfo(dtype).max)
    else:
        if leaf != math.floor(leaf):
            return f"the fraction {leaf!r}"
        limits = np.iinfo(dtype)
        inside = limits.min <= leaf <= limits.max
    return None if inside else f"{_short(leaf)}, out of the range of {dtype}"


def _short(number: object) -> str:
    # Not always repr: a client may send an integer of a million digits.
    return "an integer" if isinstance(number, int) and abs(number) >= 2**64 else repr(number)


def _noun(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case str():
            return "a string"
        case dict():
            return "an object"
        case list() | tuple():
            return "a list"
        case int() | float():
            return "a number"
        case _:
            return f"a value of type {type(value).__name__}"


def _wanted(dtype: str, shape: Shape) -> str:
    if not shape:
        return f"one {dtype}"
    return f"{dtype} of shape [{', '.join('any' if a is None else str(a) for a in shape)}]"
