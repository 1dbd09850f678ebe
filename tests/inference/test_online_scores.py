import math

import numpy as np
import pytest
from numpy.typing import NDArray
from resmem_service.inference.online_scores import LEAST_PROBABILITY, online_scores


def matrix(*rows: list[float]) -> NDArray[np.float32]:
    return np.array(rows, np.float32)


def test_classification_is_judged_by_log_loss_and_labels() -> None:
    base, corrected = matrix([0.25, 0.75], [0.5, 0.5]), matrix([0.75, 0.25], [1.5, -0.5])
    scores = online_scores(base, corrected, np.array([0, 0], np.int32), "classification")
    assert scores.rows == 2
    assert scores.base_loss == pytest.approx(-math.log(0.25) - math.log(0.5))
    assert scores.resmem_loss == pytest.approx(-math.log(0.75))  # 1.5 counts as 1
    assert (scores.base_errors, scores.resmem_errors) == (1, 0)


def test_a_score_below_0_costs_a_bounded_loss() -> None:
    base, corrected = matrix([1.0, 0.0]), matrix([1.5, -0.5])
    scores = online_scores(base, corrected, np.array([1], np.int32), "classification")
    assert scores.base_loss == scores.resmem_loss == pytest.approx(-math.log(LEAST_PROBABILITY))
    assert (scores.base_errors, scores.resmem_errors) == (1, 1)


def test_regression_is_judged_by_squared_error_averaged_over_outputs() -> None:
    base, corrected = matrix([0.0, 0.0], [1.0, 1.0]), matrix([1.0, 2.0], [1.0, 2.0])
    scores = online_scores(base, corrected, matrix([1.0, 2.0], [1.0, 3.0]), "regression")
    assert scores.base_loss == pytest.approx((1 + 4) / 2 + (0 + 4) / 2)
    assert scores.resmem_loss == pytest.approx(0 + 1 / 2)
    assert (scores.base_errors, scores.resmem_errors) == (0, 0)
