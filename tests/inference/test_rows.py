from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from resmem_service.errors import CorruptFile, InvalidInput
from resmem_service.inference.rows import Rows
from resmem_service.inference.tensor_spec import TensorSpec

ONE = [TensorSpec("x", "float32", (2,))]
TWO = [TensorSpec("x", "float32", (2,)), TensorSpec("day", "int64", ())]


def finite(dtype: str) -> st.SearchStrategy[Any]:
    return hnp.from_dtype(np.dtype(dtype), allow_nan=False, allow_infinity=False)


@st.composite
def specs_and_rows(draw: st.DrawFn) -> tuple[list[TensorSpec], Rows]:
    count = draw(st.integers(1, 5))
    specs, arrays = [], {}
    for at in range(draw(st.integers(1, 3))):
        dtype = draw(st.sampled_from(["float32", "float64", "int64", "uint8", "bool"]))
        shape = draw(st.lists(st.integers(1, 3), max_size=3).map(tuple))
        specs.append(TensorSpec(f"input {at}", dtype, shape))
        arrays[f"input {at}"] = draw(hnp.arrays(dtype, (count, *shape), elements=finite(dtype)))
    return specs, Rows(arrays)


def assert_same(left: Rows, right: Rows) -> None:
    assert list(left.arrays) == list(right.arrays)
    for name, array in left.arrays.items():
        assert array.dtype == right.arrays[name].dtype
        np.testing.assert_array_equal(array, right.arrays[name])


@given(given_=specs_and_rows())
def test_encoded_rows_come_back(given_: tuple[list[TensorSpec], Rows]) -> None:
    specs, rows = given_
    blobs = rows.encode()
    assert len(blobs) == len(rows)
    assert_same(Rows.decode(blobs, specs), rows)
    assert_same(Rows.decode(blobs[-1:], specs), rows.slice(len(rows) - 1, len(rows)))


@given(given_=specs_and_rows(), cut=st.integers(0, 5))
def test_slices_concatenate_to_the_whole(given_: tuple[list[TensorSpec], Rows], cut: int) -> None:
    _, rows = given_
    parts = [rows.slice(0, cut), rows.slice(cut, len(rows))]
    assert parts[0].signature == parts[1].signature == rows.signature
    assert_same(Rows.concatenate(parts), rows)
    assert Rows.concatenate([rows]) is rows


def test_the_encoding_is_what_its_docstring_says() -> None:
    rows = Rows({"x": np.array([[1.0, 2.0]], np.float32), "day": np.array([7])})
    assert rows.encode() == [
        b"\x01\x02"
        b"\x07float32\x01\x02\x00\x00\x00"
        b"\x05int64\x00"
        b"\x00\x00\x80\x3f\x00\x00\x00\x40"
        b"\x07\x00\x00\x00\x00\x00\x00\x00"
    ]


def test_big_endian_rows_are_stored_little_endian() -> None:
    rows = Rows({"day": np.array([7], ">i8")})
    assert rows.encode() == Rows({"day": np.array([7], "<i8")}).encode()


def test_the_encoding_does_not_hang_on_memory_order() -> None:
    array = np.asfortranarray(np.arange(12, dtype=np.float32).reshape(2, 2, 3))
    specs = [TensorSpec("x", "float32", (2, 3))]
    assert_same(Rows.decode(Rows({"x": array}).encode(), specs), Rows({"x": array}))


@given(data=st.data())
def test_a_damaged_blob_is_refused_never_misread_in_length(data: st.DataObject) -> None:
    (blob,) = Rows({"x": np.array([[1.0, 2.0]], np.float32)}).encode()
    stop = data.draw(st.integers(0, len(blob) - 1))
    with pytest.raises(CorruptFile):
        Rows.decode([blob[:stop]], ONE)
    with pytest.raises(CorruptFile):
        Rows.decode([blob + b"\x00"], ONE)
    with pytest.raises(CorruptFile):
        Rows.decode([b"\x02" + blob[1:]], ONE)


def test_stored_rows_that_the_model_cannot_take_are_refused() -> None:
    stored = Rows({"x": np.ones((2, 3), np.float32)}).encode()
    with pytest.raises(InvalidInput):
        Rows.decode(stored, ONE)
    with pytest.raises(InvalidInput, match="have 1 inputs, the model 2"):
        Rows.decode(stored, TWO)
    dynamic = [TensorSpec("x", "float32", (None,))]
    longer = Rows({"x": np.ones((1, 4), np.float32)}).encode()
    with pytest.raises(InvalidInput, match="differ in shape"):
        Rows.decode(stored + longer, dynamic)
    same_size = Rows({"x": np.ones((1, 3), np.int32)}).encode()
    with pytest.raises((InvalidInput, CorruptFile)):
        Rows.decode(stored + same_size, dynamic)


def test_one_input_comes_bare_or_by_name() -> None:
    bare = Rows.convert([[1, 2], [3, 4]], ONE)
    named = Rows.convert({"x": [[1, 2], [3, 4]]}, ONE)
    assert len(bare) == 2
    assert bare.signature == ((2,),)
    assert_same(bare, named)


def test_several_inputs_come_by_name_and_stand_in_the_models_order() -> None:
    rows = Rows.convert({"day": [5], "x": [[1, 2]]}, TWO)
    assert list(rows.arrays) == ["x", "day"]
    assert rows.signature == ((2,), ())


@pytest.mark.parametrize(
    ("value", "specs", "field", "words"),
    [
        ([[1]], ONE, "inputs", "row 0 has shape [1]"),
        ([[1, 2]], TWO, "inputs", "an object with the model's inputs: x, day"),
        ({"x": [[1, 2]]}, TWO, "inputs.day", "missing"),
        ({"x": [[1, 2]], "day": [1], "y": 1}, TWO, "inputs.y", "no input 'y'; it has: x, day"),
        ({"x": [[1, 2]], "day": ["a"]}, TWO, "inputs.day", "row 0 holds a string"),
        ({"x": [[1, 2]], "day": [1, 2]}, TWO, "inputs.day", "has 2 rows where input 'x' has 1"),
    ],
)
def test_refusals_name_the_input(
    value: Any, specs: list[TensorSpec], field: str, words: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        Rows.convert(value, specs)
    assert caught.value.field == field
    assert words in caught.value.message


def test_no_arrays_are_no_rows() -> None:
    assert len(Rows({})) == 0
