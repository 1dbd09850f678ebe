import numpy as np
import pytest
from resmem_service.fit.neighbours import Neighbours
from resmem_service.fit.teaching import recommended_weight, required_weights
from resmem_service.fit.tuning import Outputs, Setting

from tests.fit.examples import digits_rows, linear_rows
from tests.fit.reference import Vector, base_of, correction_of, residual_of

SETTINGS = [
    Setting(k=1, sigma=1.0, temperature=1.0, alpha=0.0),
    Setting(k=5, sigma=0.7, temperature=1.4, alpha=0.0),
    Setting(k=20, sigma=8.0, temperature=0.7, alpha=0.0),
    Setting(k=20, sigma=2.0, temperature=1.0, alpha=3.0),
]


def taught(
    queries: Outputs, row: int, near: Neighbours, memories: Outputs, setting: Setting, weight: float
) -> Vector:
    """The score after teaching, by the formula: the taught memory is the nearest of k."""
    others = near.rows[row, : setting.k - 1]
    residuals = [residual_of(queries, row, setting)]
    residuals += [residual_of(memories, memory, setting) for memory in others]
    distances = [0.0, *near.distances[row, : setting.k - 1]]
    importances = [weight] + [1.0] * len(others)
    return base_of(queries, row, setting) + correction_of(
        residuals, distances, importances, setting
    )


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_little_more_than_required_flips_the_answer_and_a_little_less_does_not(
    setting: Setting,
) -> None:
    """Every query is taught every class, right or wrong: the law does not ask for truth."""
    queries, near, memories = digits_rows()
    flips = 0
    for target in range(10):
        lesson = Outputs(queries.logits, np.full_like(queries.targets, target))
        required = required_weights(lesson, near, memories, "classification", setting)
        for row, weight in enumerate(required):
            above = taught(lesson, row, near, memories, setting, max(weight, 1e-9) * 1.001)
            assert above.argmax() == target
            if weight > 1e-6:
                flips += 1
                below = taught(lesson, row, near, memories, setting, weight * 0.999)
                assert below.argmax() != target
    assert flips > 0 or setting.k == 1


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_tenth_of_a_regressions_error_remains(setting: Setting) -> None:
    queries, near, memories = linear_rows()
    required = required_weights(queries, near, memories, "regression", setting)
    for row, weight in enumerate(required):
        target = queries.targets[row].astype(np.float64)
        if weight == 0:
            assert setting.k == 1
            continue
        after = taught(queries, row, near, memories, setting, weight) - target
        before = taught(queries, row, near, memories, setting, 0.0) - target
        np.testing.assert_allclose(after, before / 10, rtol=1e-3, atol=1e-6)


def test_the_recommendation_covers_nearly_all_and_is_round() -> None:
    required = np.arange(1, 1001) / 10
    weight = recommended_weight(required)
    assert weight == 120.0
    assert recommended_weight(np.array([10.01])) == 13.0
    assert recommended_weight(np.array([1.0])) == 1.2
    assert recommended_weight(np.array([8123.0])) == 9800.0


def test_it_is_never_below_the_importance_of_any_memory() -> None:
    assert recommended_weight(np.array([1e-12, 0.3])) == 1.0
    assert recommended_weight(np.array([])) == 1.0
