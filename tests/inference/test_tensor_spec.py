import math
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError
from resmem_service.errors import InvalidInput
from resmem_service.inference.tensor_spec import TensorSpec

DTYPES = ["bool", "int8", "int64", "uint8", "uint64", "float16", "float32", "float64"]
PAIR = TensorSpec("x", "float32", (2,))


def finite(dtype: str) -> st.SearchStrategy[Any]:
    return hnp.from_dtype(np.dtype(dtype), allow_nan=False, allow_infinity=False)


@given(data=st.data(), dtype=st.sampled_from(DTYPES))
def test_what_json_carries_comes_back_as_it_was(data: st.DataObject, dtype: str) -> None:
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=4, max_side=4))
    array: NDArray[Any] = data.draw(hnp.arrays(dtype, shape, elements=finite(dtype)))
    decoded = orjson.loads(orjson.dumps(array.tolist()))
    spec = TensorSpec("x", dtype, shape[1:])
    for value in (decoded, array):
        converted = spec.convert(value, "inputs")
        assert converted.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(converted, array)


def refusal(spec: TensorSpec, value: object) -> str:
    with pytest.raises(InvalidInput) as caught:
        spec.convert(value, "inputs.x")
    assert caught.value.field == "inputs.x"
    assert caught.value.code == "invalid_input"
    return caught.value.message


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], "at least one row"),
        ({}, "got an object"),
        (None, "got null"),
        ("ab", "got a string"),
        (3, "got a number"),
        (True, "got a boolean"),
        ([1.0, 2.0], "row 0 is a number"),
        ([[1.0, 2.0], 3.0], "row 1 is a number"),
        ([[1.0, 2.0], [1.0]], "row 1 has shape [1]"),
        ([[]], "row 0 has shape [0]"),
        ([[1.0, 2.0], [[1.0], [2.0]]], "row 1 has shape [2, 1]"),
        ([[1.0, [2.0]]], "row 0 is ragged"),
        ([[1.0, 2.0], [True, 1.0]], "row 1 holds a boolean"),
        ([[1.0, "2"]], "row 0 holds a string"),
        ([["1", "2"]], "row 0 holds a string"),
        ([[1.0, 2.0], [1.0, None]], "row 1 holds null"),
        ([{"a": 1.0, "b": 2.0}], "row 0 is an object"),
        (["ab"], "row 0 is a string"),
        ([[1.0, math.nan]], "row 0 holds NaN"),
        ([[1.0, 2.0], [-math.inf, 0.0]], "row 1 holds infinity"),
        ([[1.0, 1e39]], "row 0 holds 1e+39, out of the range of float32"),
        ([[1, 10**400]], "row 0 holds an integer, out of the range of float32"),
    ],
)
def test_a_refusal_says_where_and_why(value: object, words: str) -> None:
    message = refusal(PAIR, value)
    assert words in message
    if "at least" not in message:
        assert "float32 of shape [2]" in message


@pytest.mark.parametrize(
    ("dtype", "value", "words"),
    [
        ("int64", [[1, 2.5]], "row 0 holds the fraction 2.5"),
        ("int64", [[1, 2.0**63]], "out of the range of int64"),
        ("int64", [[2.0**60, 1]], "beyond 2**53"),
        ("uint8", [[1, 2], [3, 256]], "row 1 holds 256, out of the range of uint8"),
        ("uint8", [[1, -1]], "row 0 holds -1, out of the range of uint8"),
        ("uint8", [[1.0, 256.0]], "row 0 holds 256.0, out of the range of uint8"),
        ("int64", [[1, True]], "row 0 holds a boolean"),
        ("bool", [[True, 1]], "row 0 holds a number"),
        ("float16", [[1.0, 70000.0]], "out of the range of float16"),
    ],
)
def test_a_dtype_takes_only_what_it_can_hold(dtype: str, value: object, words: str) -> None:
    assert words in refusal(TensorSpec("x", dtype, (2,)), value)


@pytest.mark.parametrize(
    ("dtype", "array", "words"),
    [
        ("float32", np.zeros((0, 2), np.float32), "at least one row"),
        ("float32", np.zeros((3, 3), np.float32), "has shape [3, 3]"),
        ("float32", np.float32(1), "got a value of type float32"),
        ("float32", np.array(1.0), "a value of type ndarray"),
        ("float32", np.array([[1.0, np.nan]], np.float32), "row 0 holds NaN"),
        ("float32", np.array([[0.0, 0.0], [1e300, 0.0]]), "row 1 holds 1e+300"),
        ("float32", np.array([[True, False]]), "row 0 holds a boolean"),
        ("float32", np.array([["1", "2"]]), "has dtype <U1"),
        ("float32", np.array([[1, None]]), "has dtype object"),
        ("uint8", np.array([[1, 300]]), "row 0 holds 300"),
        ("uint8", np.array([[1.0, 2.5]]), "row 0 holds the fraction 2.5"),
        ("bool", np.array([[1, 0]]), "row 0 holds a number"),
    ],
)
def test_arrays_meet_the_same_checks(dtype: str, array: object, words: str) -> None:
    assert words in refusal(TensorSpec("x", dtype, (2,)), array)


def test_whole_numbers_pass_between_integers_and_floats() -> None:
    bytes_ = TensorSpec("x", "uint8", (2,))
    for value in ([[1.0, 255]], np.array([[1.0, 255.0]]), np.array([[1, 255]])):
        converted = bytes_.convert(value, "inputs")
        assert converted.dtype == np.uint8
        assert converted.tolist() == [[1, 255]]
    assert PAIR.convert(np.array([[1, 2]]), "inputs").dtype == np.float32
    assert PAIR.convert(((1, 2), (3, 4)), "inputs").tolist() == [[1, 2], [3, 4]]


def test_integers_that_float64_cannot_hold_stay_exact() -> None:
    big = 2**53 + 1
    assert TensorSpec("x", "int64", ()).convert([big, -big], "inputs").tolist() == [big, -big]


def test_dynamic_axes_take_any_one_length_above_0() -> None:
    tokens = TensorSpec("x", "int64", (None, 2))
    assert tokens.convert([[[1, 2], [3, 4]]], "inputs").shape == (1, 2, 2)
    assert "row 1 has shape [2, 2] where row 0 has [1, 2]" in refusal(
        tokens, [[[1, 2]], [[1, 2], [3, 4]]]
    )
    assert "row 0 has shape [0]" in refusal(tokens, [[]])
    assert "[any, 2]" in refusal(tokens, [[[1]]])


@given(rows=st.integers(1, 40), bad=st.sets(st.integers(0, 39), min_size=1))
def test_the_first_bad_row_is_the_one_named(rows: int, bad: set[int]) -> None:
    value = [[True if row in bad else 1.0, 0] for row in range(rows)]
    if min(bad) < rows:
        assert f"row {min(bad)} holds a boolean" in refusal(PAIR, value)
        array = np.array([[np.nan if row in bad else 1.0, 0] for row in range(rows)])
        assert f"row {min(bad)} holds NaN" in refusal(PAIR, array)


def test_an_array_of_the_right_dtype_is_not_copied() -> None:
    array = np.ones((3, 2), np.float32)
    assert PAIR.convert(array, "inputs") is array


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=2),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=1), inner),
        max_leaves=8,
    ),
    dtype=st.sampled_from(DTYPES),
    shape=st.sampled_from([(), (2,), (None,), (1, None)]),
)
def test_any_value_is_converted_or_refused(
    value: object, dtype: str, shape: tuple[int | None, ...]
) -> None:
    try:
        array = TensorSpec("x", dtype, shape).convert(value, "inputs")
    except InvalidInput:
        pass
    else:
        assert array.dtype == np.dtype(dtype)
        assert array.size
        assert np.isfinite(array).all()


@pytest.mark.parametrize(("dtype", "shape"), [("object", (1,)), ("str", ()), ("int64", (0,))])
def test_a_spec_that_no_request_can_meet_is_refused(dtype: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="input 'x'"):
        TensorSpec("x", dtype, shape)


def test_a_spec_is_a_pydantic_field() -> None:
    class Manifest(BaseModel):
        inputs: list[TensorSpec]

    manifest = Manifest(inputs=[TensorSpec("x", "float32", (None, 3))])
    assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest
    with pytest.raises(ValidationError):
        Manifest.model_validate({"inputs": [{"name": "x", "dtype": "object", "shape": []}]})
