"""Why a value does not fit an input of the model: the sentence that a client reads.

Runs only once a fast check has failed and found the row at fault, so it looks at that row alone,
and at no more of it than an input could hold. Rows are counted from 0.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["explain"]

Shape = tuple[int | None, ...]

_DEEPEST: Final = 32
"""Lists inside one another that are measured; no model takes as many axes."""
_TOO_DEEP: Final = f"is nested more than {_DEEPEST} levels deep"
_MOST_LOOKED_AT: Final = 10_000
"""Elements of a row of a wrong shape."""
_LISTS: Final = frozenset({list, tuple})


def explain(value: object, bad: int, dtype: str, shape: Shape) -> str:
    """Say why a value is not an array `[n, *shape]` of `dtype`; row `bad` is the first at fault."""
    wanted = _wanted(dtype, shape)
    if isinstance(value, np.ndarray) and value.ndim:
        if value.shape[0] == 0:
            return "expected at least one row, got none"
        return f"{_array_fault(value, bad, dtype, shape)}; each row must be {wanted}"
    if not isinstance(value, list | tuple):
        return f"expected a list of rows, each {wanted}, got {_noun(value)}"
    if not value:
        return "expected at least one row, got none"
    return f"row {bad} {_fault(value[bad], value[0], dtype, shape)}; each row must be {wanted}"


def _array_fault(array: NDArray[Any], bad: int, dtype: str, shape: Shape) -> str:
    if not _agrees(array.shape[1:], shape):
        return f"has shape {list(array.shape)}"
    if array.dtype.kind not in "biuf":
        return f"has dtype {array.dtype}"
    return f"row {bad} {_refused(array[bad].ravel().tolist(), dtype)}"


def _fault(row: object, first: object, dtype: str, shape: Shape) -> str:
    have = _shape_of(row)
    if have is None:
        return _TOO_DEEP
    agrees = _agrees(have, shape)
    # Of a row that is wrong anyway no more is looked at than a reader would.
    ragged = _ragged(row, have) if agrees or math.prod(have) <= _MOST_LOOKED_AT else None
    if ragged is not None:
        return ragged
    if not agrees:
        return f"has shape {list(have)}" if have else f"is {_noun(row)}"
    expected = _shape_of(first)
    if expected is not None and have != expected:
        return f"has shape {list(have)} where row 0 has {list(expected)}, all must have one shape"
    return _refused(_leaves(row, len(shape)), dtype)


def _shape_of(row: object) -> tuple[int, ...] | None:
    """Shape of nested lists by their first elements; None where they are nested too deeply."""
    shape: list[int] = []
    while isinstance(row, list | tuple):
        if len(shape) == _DEEPEST:
            return None
        shape.append(len(row))
        if not row:
            break
        row = row[0]
    return tuple(shape)


def _ragged(row: Any, have: tuple[int, ...]) -> str | None:
    """Says which element of nested lists differs in shape from the first ones.

    Each element is looked at once, and none below one that differs.
    """
    if len(have) < 2 and set(map(type, row if have else ())).isdisjoint(_LISTS):
        return None
    inner = have[1:]
    for element in row:
        nested = isinstance(element, list | tuple)
        if nested != bool(inner) or (nested and len(element) != inner[0]):
            other = _shape_of(element)
            if other is None:
                return _TOO_DEEP
            return f"is ragged: it has elements of shape {list(inner)} and {list(other)}"
        reason = _ragged(element, inner) if inner else None
        if reason is not None:
            return reason
    return None


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
    # Not always repr: an integer of a million digits takes it an hour.
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
