import numpy as np
import pytest

from service.inference.mismatch import explain


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
