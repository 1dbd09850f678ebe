"""The best classes."""

import numpy as np
import pytest
from resmem_service.api.ranking import best_class, best_classes


@pytest.mark.parametrize("rows", [1, 5000])
def test_the_best_class_is_argmax(rows: int) -> None:
    """Few scores and many go different ways; of equal ones both take the first."""
    scores = np.random.default_rng(0).integers(0, 4, (rows, 6)).astype(np.float32)
    assert best_class(scores) == scores.argmax(axis=1).tolist()


@pytest.mark.parametrize("count", [1, 2, 5, 6, 50])
def test_the_best_classes_are_a_stable_sort(count: int) -> None:
    for scores in np.random.default_rng(1).integers(0, 4, (50, 6)).astype(np.float32):
        expected = np.argsort(-scores, kind="stable")[:count]
        assert np.array_equal(best_classes(scores, count), expected)
