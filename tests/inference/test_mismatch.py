from collections.abc import Iterator

import numpy as np
import pytest
from resmem_service.inference.mismatch import explain


@pytest.mark.parametrize(
    ("value", "bad", "sentence"),
    [
        ([[1, 2], [1]], 1, "row 1 has shape [1]; each row must be float32 of shape [2]"),
        ([[0.5, True]], 0, "row 0 holds a boolean; each row must be float32 of shape [2]"),
        ([3], 0, "row 0 is a number; each row must be float32 of shape [2]"),
        (np.zeros((2, 3)), 0, "has shape [2, 3]; each row must be float32 of shape [2]"),
        ("x", 0, "expected a list of rows, each float32 of shape [2], got a string"),
    ],
)
def test_whole_sentences(value: object, bad: int, sentence: str) -> None:
    assert explain(value, bad, "float32", (2,)) == sentence


def test_a_scalar_input_reads_as_one() -> None:
    assert explain([[1]], 0, "int64", ()) == "row 0 has shape [1]; each row must be one int64"


def test_rows_of_different_length_on_a_dynamic_axis() -> None:
    assert explain([[1], [1, 2]], 1, "int64", (None,)) == (
        "row 1 has shape [2] where row 0 has [1], all must have one shape; "
        "each row must be int64 of shape [any]"
    )


def nested(depth: int) -> object:
    value: object = 0
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("depth", [24, 32, 33, 1000, 100_000])
def test_depth_costs_no_more_than_a_reader_needs(depth: int) -> None:
    """Each level once: two measures of every level would never end."""
    sentence = explain([nested(depth)], 0, "float32", (2,))
    if depth <= 32:
        assert sentence.startswith("row 0 has shape [1, 1,")
    else:
        assert sentence.startswith("row 0 is nested more than 32 levels deep")
    assert "nested more than 32" in explain([[0, nested(40)]], 0, "float32", (2,))


def test_of_a_row_of_a_wrong_shape_little_is_looked_at() -> None:
    class Counting(list[object]):
        looked_at = 0

        def __iter__(self) -> Iterator[object]:
            for element in super().__iter__():
                Counting.looked_at += 1
                yield element

    row = Counting([[0]] * 10**6)
    assert "row 0 has shape [1000000, 1]" in explain([row], 0, "float32", (2, 1))
    assert Counting.looked_at == 0


def test_a_ragged_row_is_called_so_wherever_it_is() -> None:
    assert "elements of shape [2] and [1]" in explain([[[1, 2], [3]]], 0, "float32", (2, 2))
    assert "elements of shape [] and [1]" in explain([[[1, [2]], [3, 4]]], 0, "float32", (2, 2))
    assert "elements of shape [1] and []" in explain([[[1], 2]], 0, "float32", (2, 1))
