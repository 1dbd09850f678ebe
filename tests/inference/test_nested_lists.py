import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from resmem_service.errors import InvalidInput
from resmem_service.inference._nested_lists import first_misfit, float32_array
from resmem_service.inference.tensor_spec import TensorSpec

NUMBERS = st.one_of(
    st.floats(width=64), st.integers(-(10**400), 10**400), st.integers(-5, 5), st.floats(-9, 9)
)
LEAVES = st.one_of(NUMBERS, st.booleans(), st.none(), st.text(max_size=2))
SHAPES: list[tuple[int | None, ...]] = [(), (2,), (None,), (2, 3), (None, None), (None, 2)]


def by_numpy(value: Any, shape: tuple[int | None, ...]) -> Any:
    """The same in the words of numpy; None where it is no such array."""

    def leaves(value: Any, depth: int) -> list[Any]:
        if depth == 0:
            return [value]
        if type(value) is not list:
            raise TypeError
        return [leaf for part in value for leaf in leaves(part, depth - 1)]

    try:
        if not {type(leaf) for leaf in leaves(value, len(shape) + 1)} <= {int, float}:
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            array = np.array(value, dtype=np.float32)
    except (TypeError, ValueError, OverflowError):
        return None
    agree = len(array.shape) == len(shape) + 1 and all(
        want in (None, have) for want, have in zip(shape, array.shape[1:], strict=True)
    )
    return array if agree and array.size and np.isfinite(array).all() else None


@st.composite
def arrays(draw: st.DrawFn) -> Any:
    shape = draw(st.lists(st.integers(0, 3), min_size=1, max_size=3))

    def build(axes: list[int]) -> Any:
        if not axes:
            return draw(LEAVES if draw(st.integers(0, 30)) == 0 else NUMBERS)
        return [build(axes[1:]) for _ in range(axes[0])]

    return build(shape)


@given(value=st.one_of(arrays(), st.recursive(LEAVES, st.lists, max_leaves=6)))
@example(value=[[1, 2.5], [True, 3]])
@example(value=[[1, 2], [3]])
@example(value=[[3.5e38, 1.0]])
@example(value=[[10**400, 1]])
@example(value=[[2**24 + 1, 0.1]])
def test_it_takes_what_numpy_takes_and_rounds_as_numpy_does(value: Any) -> None:
    for shape in SHAPES:
        expected, got = by_numpy(value, shape), float32_array(value, shape)
        if expected is None:
            assert got is None
        else:
            assert got is not None
            assert got.dtype == np.float32
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("value", [(1, 2), [(1, 2)], np.ones((1, 2)), "12", None, {}, [[1, {}]]])
def test_what_is_no_list_of_lists_is_left_to_others(value: object) -> None:
    assert float32_array(value, (2,)) is None


def test_one_long_row_beside_many_short_ones_allocates_nothing() -> None:
    value = [[0.0] * 1_000_000] + [[0.0]] * 1_000_000  # 4 TB, were all of them as long
    assert float32_array(value, (None,)) is None
    with pytest.raises(InvalidInput, match="row 1 "):
        TensorSpec("x", "float32", (None,)).convert(value, "inputs")


def test_elements_keep_their_places() -> None:
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    got = float32_array(array.tolist(), (3, None))
    np.testing.assert_array_equal(got, array)


@given(value=st.one_of(arrays(), st.recursive(LEAVES, st.lists, max_leaves=6)))
def test_the_first_row_that_does_not_fit(value: Any) -> None:
    """The same as trying every number of rows, in the words of numpy."""

    def fits(rows: Any, shape: tuple[int | None, ...]) -> bool:
        lengths = list(shape)

        def look(part: Any, axis: int) -> bool:
            if axis == len(lengths):
                return True
            if not isinstance(part, list) or not part:
                return False
            lengths[axis] = lengths[axis] or len(part)
            return lengths[axis] == len(part) and all(look(each, axis + 1) for each in part)

        return all(look(row, 0) for row in rows)

    for shape in SHAPES:
        found = first_misfit(value, shape)
        if not isinstance(value, list) or not value:
            assert found == 0
        elif found == -1:
            assert fits(value, shape)
        else:
            assert fits(value[:found], shape)
            assert not fits(value[: found + 1], shape)


def test_tuples_are_lists_there() -> None:
    assert first_misfit(((1, 2), [3, 4], (5,)), (2,)) == 2


def test_no_depth_of_lists_is_followed_further_than_the_shape() -> None:
    value: Any = []
    for _ in range(100_000):
        value = [value]
    assert first_misfit(value, (1,) * 32) == -1
    assert first_misfit(value, (1,) * 31 + (2,)) == 0
