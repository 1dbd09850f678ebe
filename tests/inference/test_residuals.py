from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from resmem_service.errors import InvalidInput
from resmem_service.inference.residuals import base_prediction, residuals

LIMIT = float(np.finfo(np.float32).max)


def logits(largest: float) -> st.SearchStrategy[NDArray[np.float32]]:
    return hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=6),
        elements=st.floats(-largest, largest, width=32),
    )


def softmax_in_float64(z: NDArray[np.float32], temperature: float) -> NDArray[np.float64]:
    scaled = z.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    result: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return result


@given(z=logits(100.0), temperature=st.floats(0.1, 20))
def test_softmax_is_that_of_float64(z: NDArray[np.float32], temperature: float) -> None:
    base = base_prediction(z, "classification", temperature)
    assert base.dtype == np.float32
    np.testing.assert_allclose(base, softmax_in_float64(z, temperature), atol=2e-5)


@given(z=logits(LIMIT), temperature=st.floats(1e-6, 1e6))
def test_softmax_stays_a_distribution_however_large_the_logits(
    z: NDArray[np.float32], temperature: float
) -> None:
    before = z.copy()
    base = base_prediction(z, "classification", temperature)
    assert ((base >= 0) & (base <= 1)).all()
    np.testing.assert_allclose(base.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(z, before)


@given(z=logits(LIMIT))
def test_regression_takes_the_output_as_it_is(z: NDArray[np.float32]) -> None:
    np.testing.assert_array_equal(base_prediction(z, "regression", 3.0), z)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_is_above_0(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature"):
        base_prediction(np.ones((1, 2), np.float32), "classification", temperature)


@given(z=logits(50.0), data=st.data())
def test_residuals_of_classes_sum_to_0_and_lead_to_the_target(
    z: NDArray[np.float32], data: st.DataObject
) -> None:
    n, width = z.shape
    targets = data.draw(hnp.arrays(np.int32, n, elements=st.integers(0, width - 1)))
    base = base_prediction(z, "classification", 1.0)
    found = residuals(base, targets, "classification")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.sum(axis=1), 0, atol=1e-6)
    np.testing.assert_allclose(base + found, np.eye(width)[targets], atol=1e-6)


def test_residuals_of_regression_are_what_is_missing() -> None:
    base = np.array([[1.0, 2.0]], np.float32)
    found = residuals(base, np.array([[3.0, 1.0]], np.float32), "regression")
    assert found.tolist() == [[2.0, -1.0]]
    assert found.dtype == np.float32


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (np.array([0, 3]), "row 1 is not a class index below 3"),
        (np.array([-1, 0]), "row 0 is not a class index below 3"),
        (np.array([0]), "expected 2 class indices"),
        (np.array([0.0, 1.0]), "expected 2 class indices"),
    ],
)
def test_targets_that_are_no_classes_are_refused(targets: NDArray[Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as caught:
        residuals(np.zeros((2, 3), np.float32), targets, "classification")
    assert caught.value.field == "targets"


def test_regression_targets_that_do_not_fit_are_refused() -> None:
    base = np.array([[0.0], [-LIMIT]], np.float32)
    with pytest.raises(InvalidInput, match="of shape \\[2, 1\\], got \\[2\\]"):
        residuals(base, np.zeros(2, np.float32), "regression")
    with pytest.raises(InvalidInput, match="row 1 has no finite residual"):
        residuals(base, np.array([[0.0], [LIMIT]], np.float32), "regression")
