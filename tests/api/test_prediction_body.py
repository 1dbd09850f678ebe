"""The encoding of predictions that the small models of the other tests do not show."""

from typing import Any

import numpy as np
import orjson
import pytest
from numpy.typing import NDArray
from resmem_service.api.prediction_body import FIELDS, Selection, encode_predictions
from resmem_service.inference.predictions import Predictions
from resmem_service.memory.search.soft_knn import Correction

from tests.api.test_predict import metadata


def predictions(
    base: NDArray[np.float32], residuals: NDArray[np.float32], size: int = 7
) -> Predictions:
    n = len(base)
    none = np.zeros((n, 1))
    return Predictions(
        base=base,
        scores=base + residuals,
        embeddings=np.zeros((n, 4), np.float32),
        correction=Correction(residuals, np.zeros((n, 1), np.int64), none, none),
        memory_size=size,
        revision=3,
    )


def encoded(reply: Predictions, *, top: int | None = None, **facts: Any) -> dict[str, Any]:
    model = metadata(**facts)
    selection = Selection(frozenset(FIELDS[model.task]), top=top)
    body: dict[str, Any] = orjson.loads(encode_predictions(reply, None, selection, model))
    return body


def test_a_regression_with_several_outputs_answers_lists() -> None:
    base = np.array([[1, 2], [3, 4]], np.float32)
    body = encoded(predictions(base, base / np.float32(2)), task="regression", outputs=2)
    assert body["predictions"] == [
        {"value": [1.5, 3], "base": [1, 2], "correction": [0.5, 1]},
        {"value": [4.5, 6], "base": [3, 4], "correction": [1.5, 2]},
    ]


def test_an_empty_memory_is_not_used() -> None:
    base = np.full((1, 3), 1 / 3, np.float32)
    body = encoded(predictions(base, np.zeros_like(base), size=0))
    assert body["memory"] == {"size": 0, "revision": 3, "used": False}


@pytest.mark.parametrize("width", [5, 5000])
def test_equal_scores_have_the_first_label(width: int) -> None:
    """In the small way and the wide one, and the best of `top` is the label."""
    base = np.zeros((1, width), np.float32)
    base[0, 2:4] = 0.5
    reply = predictions(base, np.zeros_like(base))
    (whole,) = encoded(reply, outputs=width)["predictions"]
    (best,) = encoded(reply, top=1, outputs=width)["predictions"]
    assert whole["label"] == whole["base"]["label"] == best["label"] == "2"
    assert [one["label"] for one in best["top"]] == ["2"]


def test_all_equal_and_only_some_wanted() -> None:
    base = np.full((1, 6), 0.25, np.float32)
    (best,) = encoded(predictions(base, np.zeros_like(base)), top=3, outputs=6)["predictions"]
    assert [one["label"] for one in best["top"]] == ["0", "1", "2"]


def test_numbers_are_written_as_the_float32_they_are() -> None:
    base = np.array([[0.1]], np.float32)
    reply = predictions(base, np.zeros_like(base))
    raw = encode_predictions(
        reply, None, Selection(frozenset({"base"})), metadata(task="regression", outputs=1)
    )
    assert b'{"base":0.1}' in raw
